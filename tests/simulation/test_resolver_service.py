"""Resolvers on a store in memory: election, fencing, outages, ramps that outlive their leader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from federation.adapters.clock import SystemClock
from federation.adapters.memory import MemoryCluster, MemoryStore
from federation.aio import cancel_and_wait
from federation.model.base import ClusterId, Region, ServiceName, Value
from federation.model.drain import Drain, DrainTargetKind
from federation.model.facts import (
    ClusterGateways,
    ClusterWeight,
    ExportFact,
    Member,
    PeerGateway,
    ServicePolicyFact,
    ServicePort,
)
from federation.model.view import FederationView
from federation.ports import CreatedAt, Delete, Put
from federation.resolver import Resolver, ResolverSettings
from federation.wire.etcd import to_bytes, view_from
from federation.wire.etcd_keys import Keys

KEYS = Keys()
SERVICE = ServiceName(namespace="app", name="user-service")
WEST, EAST = ClusterId("us-west-1"), ClusterId("us-east-1")
DEADLINE_S = 20.0


def facts(*, west_ready: int = 3, east_ready: int = 3, west_weight: int = 60) -> list[Put]:
    writes: list[Put] = []
    for cluster, ready in ((WEST, west_ready), (EAST, east_ready)):
        region = Region(cluster)
        values: dict[str, Value] = {
            KEYS.member(cluster): Member(cluster=cluster, region=region, instance=cluster),
            KEYS.gateways(cluster): ClusterGateways(
                cluster=cluster,
                region=region,
                gateways=(PeerGateway(name="gw", address="127.0.0.1:1"),),
            ),
            KEYS.export(cluster, SERVICE): ExportFact(
                cluster=cluster,
                region=region,
                service=SERVICE,
                ports=(ServicePort(port=9090),),
                ready=ready,
                total=3,
                capacity=ready,
            ),
        }
        writes += [Put(key, to_bytes(value)) for key, value in values.items()]
    policy = ServicePolicyFact(
        cluster=WEST,
        service=SERVICE,
        import_name="user-service-import",
        weights=(
            ClusterWeight(target=WEST, weight=west_weight),
            ClusterWeight(target=EAST, weight=100 - west_weight),
        ),
    )
    return [*writes, Put(KEYS.policy(WEST, SERVICE, policy.import_name), to_bytes(policy))]


def view(cluster: MemoryCluster) -> FederationView:
    listing = cluster.listing(KEYS.state)
    return view_from(KEYS, listing.revision, listing.entries).view


def weights(cluster: MemoryCluster, region: str = "us-west-1") -> dict[str, int]:
    service = view(cluster).resolved.get(SERVICE)
    source = service.source(Region(region)) if service else None
    return {share.cluster: share.weight_bp for share in source.shares} if source else {}


async def until(cluster: MemoryCluster, holds: Callable[[], bool]) -> None:
    """Wait until ``holds`` after some change of the store."""
    async with asyncio.timeout(DEADLINE_S):
        async for _ in cluster.moves.changes():
            if holds():
                return


@asynccontextmanager
async def running(store: MemoryStore, identity: str) -> AsyncIterator[Resolver]:
    resolver = Resolver(
        store=store,
        clock=SystemClock(),
        keys=KEYS,
        settings=ResolverSettings(identity=identity, lease_ttl_s=1.0, retry_max_s=0.1),
    )
    task = asyncio.create_task(resolver.run())
    try:
        yield resolver
    finally:
        await cancel_and_wait(task)


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


async def test_facts_become_sealed_services(cluster: MemoryCluster) -> None:
    cluster.commit(facts(), ())
    async with running(MemoryStore(cluster), "one"):
        await until(cluster, lambda: view(cluster).resolved_manifest is not None)
        assert weights(cluster) == {"us-west-1": 6000, "us-east-1": 4000}
        manifest = view(cluster).resolved_manifest
        assert manifest is not None
        assert (manifest.resolver, manifest.count, manifest.epoch) == ("one", 1, 1)
        assert manifest.term > 0


async def test_a_change_is_resolved_and_quiet_follows(cluster: MemoryCluster) -> None:
    cluster.commit(facts(), ())
    async with running(MemoryStore(cluster), "one"):
        await until(cluster, lambda: bool(weights(cluster)))
        cluster.commit(facts(west_weight=10), ())
        await until(cluster, lambda: weights(cluster).get("us-west-1") == 1000)
        revision = cluster.revision
        cluster.commit([Put(KEYS.heartbeat(WEST), b"{}")], ())
        cluster.commit(facts(west_weight=11), ())
        await until(cluster, lambda: weights(cluster).get("us-west-1") == 1100)
        assert cluster.revision <= revision + 3, "one write for each change that mattered"


async def test_only_the_leader_writes_and_a_killed_one_is_replaced(cluster: MemoryCluster) -> None:
    cluster.commit(facts(), ())
    first, second = MemoryStore(cluster, name="first"), MemoryStore(cluster, name="second")
    async with running(first, "first") as leader:
        await until(cluster, lambda: bool(weights(cluster)))
        async with running(second, "second") as standby:
            assert leader.leading
            assert not standby.leading
            first.cut()  # as a kill: its lease runs out
            killed = time.monotonic()
            cluster.commit(facts(east_ready=0), ())
            await until(cluster, lambda: weights(cluster).get("us-east-1") == 0)
            assert time.monotonic() - killed < 5.0
            manifest = view(cluster).resolved_manifest
            assert manifest is not None
            assert manifest.resolver == "second"


async def test_a_former_leader_writes_nothing(cluster: MemoryCluster) -> None:
    store = MemoryStore(cluster)
    cluster.commit(facts(), ())
    async with running(store, "one"):
        await until(cluster, lambda: view(cluster).resolved_manifest is not None)
        manifest = view(cluster).resolved_manifest
        assert manifest is not None
        election = cluster.listing(KEYS.resolver_election).entries[0]
        assert election.create_revision == manifest.term
        stale = CreatedAt(election.key, election.create_revision - 1)
        assert await store.commit([Put("anything", b"")], guards=[stale]) is None


async def test_losing_the_store_empties_nothing_and_heals(cluster: MemoryCluster) -> None:
    store = MemoryStore(cluster)
    cluster.commit(facts(), ())
    async with running(store, "one"):
        await until(cluster, lambda: bool(weights(cluster)))
        store.cut()
        await until(cluster, lambda: not cluster.listing(KEYS.resolver_election).entries)
        cluster.commit(facts(west_weight=20), ())
        assert weights(cluster) == {"us-west-1": 6000, "us-east-1": 4000}
        store.mend()
        await until(cluster, lambda: weights(cluster).get("us-west-1") == 2000)


def drain_of(target: str, **changes: int) -> Put:
    drain = Drain(name=target, target_kind=DrainTargetKind.REGION, target=target)
    return Put(KEYS.drain(target), to_bytes(drain.model_copy(update=changes)))


async def test_a_ramp_goes_on_under_the_next_leader(cluster: MemoryCluster) -> None:
    cluster.commit(facts(), ())
    seen: list[int] = []

    def fallen_to(bp: int) -> Callable[[], bool]:
        def holds() -> bool:
            now = weights(cluster).get("us-east-1", -1)
            seen.append(now)
            return now <= bp

        return holds

    async with running(MemoryStore(cluster), "first"):
        await until(cluster, lambda: bool(weights(cluster)))
        cluster.commit([drain_of("us-east-1", over_ms=3_000, grace_ms=0)], ())
        await until(cluster, fallen_to(3999))
    async with running(MemoryStore(cluster), "second"):
        await until(cluster, fallen_to(0))
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) > 3, "the weight falls in steps"


async def test_undrain_brings_the_weight_back_and_ends_the_state(cluster: MemoryCluster) -> None:
    cluster.commit([*facts(), drain_of("us-east-1", over_ms=0, grace_ms=0)], ())
    async with running(MemoryStore(cluster), "one"):
        await until(cluster, lambda: weights(cluster).get("us-east-1") == 0)
        cluster.commit([Delete(KEYS.drain("us-east-1"))], ())
        await until(cluster, lambda: 0 < weights(cluster)["us-east-1"] < 4000)
        await until(cluster, lambda: weights(cluster)["us-east-1"] == 4000)
        assert view(cluster).drain_states == {}


async def test_an_expired_drain_ends_by_itself(cluster: MemoryCluster) -> None:
    put = drain_of("us-east-1", over_ms=0, grace_ms=0, expires_ms=600)
    cluster.commit([*facts(), put], ())
    async with running(MemoryStore(cluster), "one"):
        await until(cluster, lambda: weights(cluster).get("us-east-1") == 0)
        await until(cluster, lambda: not view(cluster).drains)
        await until(cluster, lambda: weights(cluster)["us-east-1"] == 4000)


async def test_a_return_goes_on_under_the_next_leader(cluster: MemoryCluster) -> None:
    cluster.commit(facts(), ())
    async with running(MemoryStore(cluster), "first"):
        await until(cluster, lambda: weights(cluster).get("us-east-1") == 4000)
        cluster.commit(facts(east_ready=0), ())
        await until(cluster, lambda: weights(cluster)["us-east-1"] == 0)
        cluster.commit(facts(), ())
        await until(cluster, lambda: weights(cluster)["us-east-1"] > 0)
        assert weights(cluster)["us-east-1"] == 400, "the first step is there at once"
    async with running(MemoryStore(cluster), "second"):
        await until(
            cluster, lambda: getattr(view(cluster).resolved_manifest, "resolver", "") == "second"
        )
        assert weights(cluster)["us-east-1"] < 4000, "a new leader does not jump"
