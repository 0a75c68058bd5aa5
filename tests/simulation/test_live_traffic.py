"""Live traffic through a store: what an agent writes and when, and what a resolver counts of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from federation.adapters.memory import MemoryCluster, MemoryStore
from federation.agent import Agent, AgentSettings
from federation.aio import cancel_and_wait
from federation.cli.federation_traffic import KEPT_S, FederationTraffic, LiveTraffic
from federation.model.base import ClusterId, Region
from federation.model.drain import Drain, DrainState, DrainTargetKind
from federation.model.load import FlowKey, FlowLoad, GatewayLoad
from federation.model.traffic_report import Flow, GatewayTraffic, TrafficReport
from federation.ports import Delete, Entry, Put
from federation.resolver import Resolver, ResolverSettings
from federation.wire.etcd import from_bytes, to_bytes
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import TrafficReader, traffic_to_bytes
from tests.simulation.world import Gateways, UniversalSource, UniversalStatusSink
from tests.testkit.virtual_time import LoopClock

VIRTUAL_TIME = True

KEYS = Keys()
WEST, EAST = ClusterId("west"), ClusterId("east")
TO_EAST = FlowKey("app/users", True, EAST, Region("r-east"))


@pytest.fixture
def shared() -> MemoryCluster:
    return MemoryCluster()


class Traffic:
    """What the gateways of the test's cluster carry."""

    def __init__(self) -> None:
        self.loads: tuple[GatewayLoad, ...] = ()

    def carry(self, calls: int, *, streams: int = 0) -> None:
        flow = FlowLoad(succeeded=calls, open=streams)
        self.loads = (GatewayLoad(GatewayTraffic(name="gw-1"), 2_000, {TO_EAST: flow}),)


@asynccontextmanager
async def agent(store: MemoryStore, directory: Path, traffic: Traffic) -> AsyncIterator[None]:
    gateways, clock = Gateways("gw-1"), LoopClock()
    subject = Agent(
        AgentSettings(cluster=WEST, region=Region("r-west"), state_dir=directory / "west"),
        store=store,
        keys=KEYS,
        source=UniversalSource(store, KEYS, WEST),
        statuses=UniversalStatusSink(store, KEYS, WEST, clock),
        snapshots=gateways,
        acks=gateways.acks,
        clock=clock,
        loads=lambda: traffic.loads,
    )
    task = asyncio.create_task(subject.run())
    try:
        yield
    finally:
        await cancel_and_wait(task)


def stored(shared: MemoryCluster) -> Entry | None:
    return next(iter(shared.listing(KEYS.traffic).entries), None)


def report(shared: MemoryCluster) -> TrafficReport:
    reading = TrafficReader(KEYS).read(shared.listing(KEYS.traffic).entries)
    assert reading.problems == ()
    return reading.reports[WEST]


async def test_an_agent_tells_what_changes_and_nothing_else(
    shared: MemoryCluster, tmp_path: Path
) -> None:
    traffic, store = Traffic(), MemoryStore(shared, name="agent")
    traffic.carry(10)
    async with agent(store, tmp_path, traffic):
        await asyncio.sleep(6)
        first = stored(shared)
        assert first is not None
        assert first.leased
        assert report(shared).flows[0].calls_per_s == 5.0
        same = set()
        for _ in range(10):
            await asyncio.sleep(1)
            same.add(entry.mod_revision if (entry := stored(shared)) else 0)
        assert len(same) <= 2  # one more where the heartbeat had to take a new lease
        traffic.carry(20)
        await asyncio.sleep(3)
        assert report(shared).flows[0].calls_per_s == 10.0
        # Each change within two seconds is not worth a write.
        writes = set()
        for calls in range(40):
            traffic.carry(calls + 100)
            await asyncio.sleep(0.25)
            writes.add(entry.mod_revision if (entry := stored(shared)) else 0)
        assert 4 <= len(writes) <= 7
        traffic.loads = ()
        await asyncio.sleep(3)
        assert (report(shared).flows, report(shared).gateways) == ((), ())
    await asyncio.sleep(6)
    assert stored(shared) is None


async def test_reports_are_dropped_while_the_store_is_away_and_end_with_their_agent(
    shared: MemoryCluster, tmp_path: Path
) -> None:
    traffic, store = Traffic(), MemoryStore(shared, name="agent")
    traffic.carry(10)
    async with agent(store, tmp_path, traffic):
        await asyncio.sleep(6)
        assert stored(shared) is not None
        store.cut()
        for calls in range(20):
            traffic.carry(1000 + calls)
            await asyncio.sleep(1)
        assert stored(shared) is None  # with the heartbeat's lease
        traffic.carry(30)
        store.mend()
        await asyncio.sleep(10)
        # What was carried meanwhile was dropped: the first report is of now.
        assert report(shared).flows[0].calls_per_s == 15.0


def drain(name: str, target: str) -> Drain:
    kind = DrainTargetKind.CLUSTER
    return Drain(name=name, target_kind=kind, target=target, over_ms=0, grace_ms=10_000)


def tell(streams: int, cluster: ClusterId = WEST) -> Put:
    flow = Flow(service="app/users", to_cluster=EAST, open=streams)
    told = TrafficReport(at=streams, cluster=cluster, region=Region("r"), flows=(flow,))
    return Put(KEYS.traffic_of(cluster), traffic_to_bytes(told))


@asynccontextmanager
async def resolving(store: MemoryStore) -> AsyncIterator[None]:
    settings = ResolverSettings(identity="one", lease_ttl_s=2.0)
    resolver = Resolver(store=store, clock=LoopClock(), keys=KEYS, settings=settings)
    task = asyncio.create_task(resolver.run())
    try:
        yield
    finally:
        await cancel_and_wait(task)


async def state(store: MemoryStore, name: str = "d") -> DrainState:
    entry = await store.get(KEYS.drain_state(name))
    assert entry is not None
    return from_bytes(DrainState, entry.value)


async def test_a_drain_says_how_many_streams_are_left(shared: MemoryCluster) -> None:
    store = MemoryStore(shared, name="resolver")
    async with resolving(store):
        await store.commit([Put(KEYS.drain("d"), to_bytes(drain("d", "east")))])
        # What was counted before the streams were opened is not "none left".
        await store.commit([tell(0), tell(0, EAST)])
        await asyncio.sleep(3)
        assert (await state(store)).streams_left is None
        await store.commit([tell(5), tell(2, EAST)])
        await asyncio.sleep(6)
        assert (await state(store)).streams_left == 7
        # Many reports, few writes.
        before = await store.get(KEYS.drain_state("d"))
        assert before is not None
        revisions = set()
        for streams in range(40, 0, -1):
            await store.commit([tell(streams)])
            await asyncio.sleep(0.25)
            entry = await store.get(KEYS.drain_state("d"))
            revisions.add(entry.mod_revision if entry else 0)
        assert 4 <= len(revisions) <= 8  # one of them is of the phase
        # Also after the grace, when nothing else changes any more.
        await store.commit([tell(0), Delete(KEYS.traffic_of(EAST))])
        await asyncio.sleep(3)
        found = await state(store)
        assert (found.phase.value, found.streams_left) == ("Drained", 0)
        rests = await store.get(KEYS.drain_state("d"))
        await asyncio.sleep(20)
        assert await store.get(KEYS.drain_state("d")) == rests
        await store.commit([Delete(KEYS.drain("d"))])
        await asyncio.sleep(1)
        assert (await state(store)).streams_left is None  # its weight returns


async def test_a_successor_keeps_the_count(shared: MemoryCluster) -> None:
    store = MemoryStore(shared, name="resolver")
    await store.commit([Put(KEYS.drain("d"), to_bytes(drain("d", "east"))), tell(3)])
    async with resolving(store):
        await asyncio.sleep(9)
        assert (await state(store)).streams_left == 3
    async with resolving(store):
        await asyncio.sleep(2)
        assert (await state(store)).streams_left == 3


async def test_a_reader_tells_old_figures_from_new_ones(shared: MemoryCluster) -> None:
    writer, store = MemoryStore(shared, name="agents"), MemoryStore(shared, name="reader")
    traffic = FederationTraffic(store, KEYS, clock=LoopClock())
    task = asyncio.create_task(traffic.run())
    try:
        await writer.commit([tell(1), tell(2, EAST), Put(KEYS.traffic_of(ClusterId("x")), b"?")])
        await asyncio.sleep(1)
        known = _known(traffic)
        assert list(known.clusters) == [EAST, WEST]
        assert "traffic/x: not a valid TrafficReport" in known.problems[0]
        now = LoopClock().monotonic
        assert known.clusters[WEST].age_s(now()) == pytest.approx(1.0, abs=0.1)
        await writer.commit([tell(3, EAST), Delete(KEYS.traffic_of(WEST))])
        await asyncio.sleep(5)
        known = _known(traffic)
        assert known.clusters[EAST].report.flows[0].open == 3
        assert (known.clusters[EAST].stale, known.clusters[WEST].stale) == (False, True)
        assert known.clusters[WEST].report.flows[0].open == 1
        store.cut()
        await asyncio.sleep(5)
        known = _known(traffic)
        assert known.away
        assert known.clusters[EAST].report.flows[0].open == 3
        store.mend()
        await writer.commit([tell(4, EAST)])
        await asyncio.sleep(5)
        known = _known(traffic)
        assert (known.away, known.clusters[EAST].report.flows[0].open) == ("", 4)
        await asyncio.sleep(KEPT_S)
        await writer.commit([tell(5, EAST)])
        await asyncio.sleep(1)
        assert list(_known(traffic).clusters) == [EAST]
    finally:
        await cancel_and_wait(task)


def _known(traffic: FederationTraffic) -> LiveTraffic:
    assert traffic.latest.value is not None
    return traffic.latest.value
