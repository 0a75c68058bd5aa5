"""``fedctl drain``, ``undrain``, ``status`` and ``explain`` on a real etcd with a resolver."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from federation.adapters.clock import SystemClock
from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.aio import cancel_and_wait
from federation.cli.main import app
from federation.model.base import ClusterId, Region, ServiceName, Value
from federation.model.facts import (
    AcceptedShrink,
    ClusterGateways,
    ExportFact,
    FactsManifest,
    Heartbeat,
    Member,
    PeerGateway,
    Quarantine,
    ServicePort,
)
from federation.ports import Put
from federation.resolver import Resolver, ResolverSettings
from federation.wire.etcd import from_bytes, to_bytes
from federation.wire.etcd_keys import Keys
from tests.testkit.etcd import EtcdServer

USERS = ServiceName(namespace="app", name="user-service")


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Federation:
    """A federation of two clusters below a prefix of its own."""

    etcd: str
    keys: Keys

    async def fedctl(self, *arguments: str) -> Ran:
        command = ["--etcd", self.etcd, "--prefix", self.keys.prefix, *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        return Ran(result.exit_code, result.stdout, result.stderr)


def facts(keys: Keys, *, heard: bool) -> Sequence[Put]:
    values: dict[str, Value] = {}
    for name in ("us-west-1", "us-east-1"):
        cluster, region = ClusterId(name), Region(name)
        values[keys.member(cluster)] = Member(cluster=cluster, region=region, instance=name)
        if heard:
            values[keys.heartbeat(cluster)] = Heartbeat(
                cluster=cluster, instance=name, seen_revision=1, version="test"
            )
        values[keys.gateways(cluster)] = ClusterGateways(
            cluster=cluster,
            region=region,
            gateways=(PeerGateway(name="gw", address="127.0.0.1:1"),),
        )
        values[keys.export(cluster, USERS)] = ExportFact(
            cluster=cluster,
            region=region,
            service=USERS,
            ports=(ServicePort(port=9090),),
            ready=2,
            total=2,
            capacity=2,
        )
    return [Put(key, to_bytes(value)) for key, value in values.items()]


@asynccontextmanager
async def storing(server: EtcdServer) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(EtcdSettings(endpoints=(server.endpoint,)))
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def running_federation(
    server: EtcdServer, *, heard: bool = False
) -> AsyncIterator[Federation]:
    """Two clusters and a resolver; with ``heard`` both give signs of life."""
    keys = Keys(f"/test-{uuid.uuid4().hex}/")
    store = EtcdStore(EtcdSettings(endpoints=(server.endpoint,)))
    await store.commit(facts(keys, heard=heard))
    resolver = Resolver(
        store=store, clock=SystemClock(), keys=keys, settings=ResolverSettings(identity="one")
    )
    task = asyncio.create_task(resolver.run())
    try:
        async with asyncio.timeout(20):
            async for listing in store.mirror(keys.resolved_manifest):
                if listing.entries:
                    break
        yield Federation(server.endpoint, keys)
    finally:
        await cancel_and_wait(task)
        await store.close()


async def test_drain_wait_then_refuse_the_rest_then_undrain(etcd_server: EtcdServer) -> None:
    async with running_federation(etcd_server, heard=True) as federation:
        preview = await federation.fedctl("drain", "us-east-1", "--dry-run")
        assert preview.code == 0
        assert "2 of 4 units of ready capacity are left, in us-west-1" in preview.out
        assert (await federation.fedctl("status", "-o", "json")).json()["drains"] == []

        drained = await federation.fedctl(
            "drain", "us-east-1", "--over", "1s", "--grace", "0s", "--wait"
        )
        assert drained.code == 0, drained.err
        assert "Drained, 0 % of the weight left" in drained.out
        explained = await federation.fedctl(
            "explain", "app/user-service", "--from", "us-east-1", "-o", "json"
        )
        rows = {row["cluster"]: row["weightBp"] for row in explained.json()["clusters"]}
        assert rows == {"us-west-1": 10_000, "us-east-1": 0}

        refused = await federation.fedctl("drain", "us-west-1")
        assert refused.code == 5
        assert refused.err == (
            "error: draining us-west-1 would leave no healthy cluster for app/user-service "
            "(us-east-1 is drained). Use --force to drain all the same\n"
        )
        status = (await federation.fedctl("status", "-o", "json")).json()
        assert [drain["name"] for drain in status["drains"]] == ["us-east-1"]
        assert status["leader"]["resolver"] == "one"

        assert (await federation.fedctl("undrain", "us-east-1")).code == 0
        assert (await federation.fedctl("undrain", "us-east-1")).code == 4


async def test_a_quarantine_is_shown_with_the_way_out_and_accepted(etcd_server: EtcdServer) -> None:
    async with running_federation(etcd_server) as federation:
        east, keys = ClusterId("us-east-1"), federation.keys
        doubt = Quarantine(missing=(USERS,), reason="1 of 1 is missing", since="2026-01-01")
        sealed = FactsManifest(cluster=east, epoch=1, count=0, checksum="", quarantine=doubt)
        async with storing(etcd_server) as store:
            await store.commit([Put(keys.manifest(east), to_bytes(sealed))])
            words = (await federation.fedctl("status")).out
            assert "Quarantined: us-east-1 since 2026-01-01: 1 of 1 is missing\n" in words
            assert "  missing: app/user-service\n" in words
            assert "  if they are meant to be gone: fedctl accept-shrink us-east-1" in words

            preview = await federation.fedctl("accept-shrink", "us-east-1", "--dry-run")
            assert preview.code == 0
            assert preview.out.splitlines() == [
                "app/user-service: no longer exported by us-east-1, still exported by us-west-1",
                "nothing was changed",
            ]
            assert await store.get(keys.accepted_shrink(east)) is None

            accepted = await federation.fedctl("accept-shrink", "us-east-1")
            assert accepted.code == 0
            assert "us-east-1 publishes and routes by what its source shows\n" in accepted.out
            assert accepted.err.endswith("us-east-1 is stale; its agent does so when it is back\n")
            stored = await store.get(keys.accepted_shrink(east))
            assert stored is not None
            assert from_bytes(AcceptedShrink, stored.value).missing == (USERS,)
        unknown = await federation.fedctl("accept-shrink", "mars")
        assert unknown.code == 4
        assert "known names: us-east-1, us-west-1" in unknown.err


async def test_names_that_nobody_knows(etcd_server: EtcdServer) -> None:
    async with running_federation(etcd_server) as federation:
        for arguments, message in (
            (("drain", "mars"), "known names: us-east-1, us-west-1"),
            (("explain", "app/mars", "--from", "us-west-1"), "known services: app/user-service"),
            (("explain", "app/user-service", "--from", "mars"), "known regions: us-east-1"),
            (("drain", "us-east-1", "--service", "app/mars"), "no cluster exports app/mars"),
        ):
            ran = await federation.fedctl(*arguments)
            assert ran.code == 4
            assert message in ran.err
        ran = await federation.fedctl("explain", "user-service", "--from", "us-west-1")
        assert (ran.code, ran.err) == (
            2,
            'error: "user-service" is not a service; write NAMESPACE/NAME\n',
        )


async def test_status_in_words(etcd_server: EtcdServer) -> None:
    async with running_federation(etcd_server) as federation:
        words = (await federation.fedctl("status")).out
        assert "Resolver: one leads (term " in words
        assert "us-east-1 2/2, us-west-1 2/2" in words
        assert "Stale" in words
