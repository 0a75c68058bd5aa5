"""A leading resolver whose writes fail half-way: lost answers, a lead that ends between commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from federation.adapters.clock import SystemClock
from federation.adapters.memory import MemoryCluster, MemoryStore
from federation.aio import cancel_and_wait
from federation.model.base import ClusterId, Region, ServiceName, Value
from federation.model.facts import (
    ClusterGateways,
    ExportFact,
    Member,
    PeerGateway,
    ServicePort,
)
from federation.model.view import FederationView
from federation.ports import MAX_WRITES, Delete, Guard, Put, StoreUnavailable, Write
from federation.resolver import Resolver, ResolverSettings
from federation.wire.etcd import checksum, to_bytes, view_from
from federation.wire.etcd_keys import Keys

KEYS = Keys()
WEST = ClusterId("us-west-1")
MANY = MAX_WRITES + 20
DEADLINE_S = 20.0


class FailingStore(MemoryStore):
    """A connection on which something happens right after a commit of resolved services."""

    after_commit: Callable[[], None] | None = None

    async def commit(self, writes: Sequence[Write], *, guards: Sequence[Guard] = ()) -> int | None:
        revision = await super().commit(writes, guards=guards)
        resolved = any(write.key.startswith(KEYS.resolved_services) for write in writes)
        if resolved and self.after_commit is not None:
            strike, self.after_commit = self.after_commit, None
            strike()
        return revision


def facts(*, ready: int, services: int) -> list[Put]:
    region = Region(WEST)
    values: dict[str, Value] = {
        KEYS.member(WEST): Member(cluster=WEST, region=region, instance="i"),
        KEYS.gateways(WEST): ClusterGateways(
            cluster=WEST, region=region, gateways=(PeerGateway(name="gw", address="a:1"),)
        ),
    }
    for number in range(services):
        name = ServiceName(namespace="app", name=f"s{number}")
        values[KEYS.export(WEST, name)] = ExportFact(
            cluster=WEST,
            region=region,
            service=name,
            ports=(ServicePort(port=9090),),
            ready=ready,
            total=3,
            capacity=ready,
        )
    return [Put(key, to_bytes(value)) for key, value in values.items()]


def put_all(cluster: MemoryCluster, writes: Sequence[Put]) -> None:
    for start in range(0, len(writes), MAX_WRITES):
        cluster.commit(writes[start : start + MAX_WRITES], ())


def view(cluster: MemoryCluster) -> FederationView:
    listing = cluster.listing(KEYS.state)
    return view_from(KEYS, listing.revision, listing.entries).view


def sealed_by(cluster: MemoryCluster) -> str | None:
    """Who sealed what is stored; ``None`` while the seal does not fit."""
    manifest = view(cluster).resolved_manifest
    stored = {entry.key: entry.value for entry in cluster.listing(KEYS.resolved_services).entries}
    fits = manifest is not None and manifest.checksum == checksum(stored)
    return manifest.resolver if manifest is not None and fits else None


async def until(cluster: MemoryCluster, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        async for _ in cluster.moves.changes():
            if holds():
                return


@asynccontextmanager
async def running(store: MemoryStore, identity: str) -> AsyncIterator[None]:
    settings = ResolverSettings(identity=identity, lease_ttl_s=1.0, retry_max_s=0.1)
    resolver = Resolver(store=store, clock=SystemClock(), keys=KEYS, settings=settings)
    task = asyncio.create_task(resolver.run())
    try:
        yield
    finally:
        await cancel_and_wait(task)


async def test_a_lost_answer_is_settled_by_reading() -> None:
    cluster = MemoryCluster()
    store = FailingStore(cluster)

    def lose_the_answer() -> None:
        raise StoreUnavailable("the answer was lost")

    store.after_commit = lose_the_answer
    put_all(cluster, facts(ready=1, services=1))
    async with running(store, "one"):
        await until(cluster, lambda: sealed_by(cluster) == "one")
        term = view(cluster).resolved_manifest
        assert term is not None
        revision = cluster.revision
        put_all(cluster, facts(ready=0, services=1))
        store.after_commit = lose_the_answer
        await until(cluster, lambda: cluster.revision >= revision + 2)
        assert sealed_by(cluster) == "one"
        after = view(cluster).resolved_manifest
        assert after is not None
        assert after.term == term.term, "the same term goes on"
        assert len(cluster.listing(KEYS.resolver_election).entries) == 1


async def test_a_lead_lost_between_commits_is_finished_by_the_next() -> None:
    cluster = MemoryCluster()
    store = FailingStore(cluster, name="first")

    def depose() -> None:
        election = cluster.listing(KEYS.resolver_election).entries
        first = min(election, key=lambda entry: entry.create_revision)
        cluster.commit([Delete(first.key)], ())

    async with running(store, "first"):
        await until(cluster, lambda: bool(cluster.listing(KEYS.resolver_election).entries))
        async with running(MemoryStore(cluster, name="second"), "second"):
            await until(cluster, lambda: len(cluster.listing(KEYS.resolver_election).entries) == 2)
            store.after_commit = depose
            put_all(cluster, facts(ready=1, services=MANY))
            await until(cluster, lambda: sealed_by(cluster) == "second")
            await until(cluster, lambda: len(view(cluster).resolved) == MANY)


async def test_a_store_that_goes_between_commits_is_waited_for() -> None:
    cluster = MemoryCluster()
    store = FailingStore(cluster)
    store.after_commit = store.cut
    put_all(cluster, facts(ready=1, services=MANY))
    async with running(store, "one"):
        await until(cluster, lambda: len(view(cluster).resolved) > 0)
        assert sealed_by(cluster) is None
        store.mend()
        await until(cluster, lambda: sealed_by(cluster) == "one")
        assert len(view(cluster).resolved) == MANY
