"""etcd with authentication: each part can do its work, and write nothing of another's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.adapters.etcd import EtcdSettings, EtcdStore, EtcdTls
from federation.cli.lab.authority import Authority
from federation.cli.main import app
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import Drain, DrainTargetKind
from federation.model.facts import Member
from federation.ports import Delete, Put, Store, StoreRefused
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys
from tests.testkit.etcd import EtcdServer, TlsFiles, running_etcd

KEYS = Keys()
WEST, EAST = ClusterId("us-west-1"), ClusterId("us-east-1")
SERVICE = ServiceName(namespace="app", name="users")


class Guarded:
    """An etcd whose users are known by certificates of one authority."""

    def __init__(self, directory: Path) -> None:
        self._authority = Authority("ours")
        self._directory = directory
        self.server = self.files("etcd")
        self.etcd: EtcdServer

    def files(self, name: str) -> TlsFiles:
        """The identity called ``name``."""
        pair = self._authority.issue(name, addresses=("127.0.0.1",))
        place = self._directory / name
        place.mkdir(exist_ok=True)
        files = TlsFiles(place / "ca.pem", place / "cert.pem", place / "key.pem")
        files.authority.write_bytes(self._authority.certificate_pem)
        files.certificate.write_bytes(pair.certificate_pem)
        files.private_key.write_bytes(pair.key_pem)
        return files

    @asynccontextmanager
    async def store(self, user: str) -> AsyncIterator[Store]:
        """The store as ``user`` sees it."""
        files = self.files(user)
        tls = EtcdTls(files.authority, files.certificate, files.private_key)
        store = EtcdStore(EtcdSettings((f"https://{self.etcd.endpoint}",), tls=tls))
        try:
            yield store
        finally:
            await store.close()

    def fedctl(self, *arguments: str, user: str = "root", code: int = 0) -> str:
        """One command as ``user``, which must end with ``code``."""
        files = self.files(user)
        options = (
            *("--etcd", f"https://{self.etcd.endpoint}", "--etcd-ca", str(files.authority)),
            *("--etcd-cert", str(files.certificate), "--etcd-key", str(files.private_key)),
        )
        done = CliRunner().invoke(app, [*options, *arguments])
        assert done.exit_code == code, done.output
        return done.output


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    found = Guarded(tmp_path)
    with running_etcd(found.server) as found.etcd:
        for name in (WEST, EAST, "resolver", "operator", "console"):
            found.fedctl("access", "grant", name)
        found.fedctl("access", "enable")
        yield found


async def test_a_cluster_writes_its_own_keys_alone(guarded: Guarded) -> None:
    async with guarded.store(WEST) as store:
        async with store.lease(ttl_s=5) as lease:
            await store.commit([Put(KEYS.heartbeat(WEST), b"x", lease.id)])
        for key in (
            KEYS.member(WEST),
            KEYS.gateways(WEST),
            KEYS.traffic_of(WEST),
            KEYS.export(WEST, SERVICE),
            KEYS.manifest(WEST),
            KEYS.requested_drain(WEST, "d"),
            f"{KEYS.statuses(WEST)}core/Service/app/users",
        ):
            await store.commit([Put(key, b"x")])
        for key in (
            KEYS.member(EAST),
            KEYS.heartbeat(EAST),
            KEYS.gateways(EAST),
            KEYS.traffic_of(EAST),
            KEYS.export(EAST, SERVICE),
            KEYS.export(ClusterId("us-west-10"), SERVICE),
            KEYS.resolved(SERVICE),
            KEYS.drain("d"),
            KEYS.requested_drain(EAST, "d"),
            KEYS.drain_state("us-west-1:d"),
            f"{KEYS.objects(WEST)}core/Service/app/users",
        ):
            with pytest.raises(StoreRefused, match="permission denied"):
                await store.commit([Put(key, b"x")])
            with pytest.raises(StoreRefused, match="permission denied"):
                await store.commit([Delete(key)])
        assert (await store.list(KEYS.state)).entries


async def test_a_resolver_leads_and_resolves(guarded: Guarded) -> None:
    async with guarded.store("resolver") as store:
        async with store.campaign(KEYS.resolver_election, identity="one", ttl_s=5) as leadership:
            assert leadership.term > 0
            await store.commit(
                [Put(KEYS.resolved(SERVICE), b"x"), Put(KEYS.drain_state("d"), b"x")]
            )
            await store.commit([Delete(KEYS.drain("expired"))])
            assert not (await store.list(KEYS.traffic)).entries
            with pytest.raises(StoreRefused):
                await store.commit([Put(KEYS.traffic_of(WEST), b"x")])
        with pytest.raises(StoreRefused, match=r"permission denied; .* `fedctl access grant`"):
            await store.commit([Put(KEYS.export(WEST, SERVICE), b"x")])


async def test_rights_are_replaced_and_taken(guarded: Guarded) -> None:
    told = await asyncio.to_thread(guarded.fedctl, "access", "grant", WEST)
    assert f"us-west-1 may read and write {KEYS.facts(WEST)}" in told.splitlines()
    await asyncio.to_thread(guarded.fedctl, "access", "revoke", WEST)
    async with guarded.store(WEST) as store:
        with pytest.raises(StoreRefused):
            await store.commit([Put(KEYS.member(WEST), b"x")])


async def test_check_tells_who_has_no_rights(guarded: Guarded) -> None:
    async with guarded.store("root") as store:
        for cluster in (WEST, EAST):
            member = Member(cluster=cluster, region=Region("r"), instance="i")
            await store.commit([Put(KEYS.member(cluster), to_bytes(member))])

    def check(user: str, code: int) -> dict[str, dict[str, str]]:
        command = ("check", "--only", "etcd", "-o", "json")
        found = json.loads(guarded.fedctl(*command, user=user, code=code))["findings"]
        return {it["what"]: it for it in found}

    assert set(await asyncio.to_thread(check, "root", 0)) == {"etcd has one member"}
    unread = (await asyncio.to_thread(check, "operator", 0))["rights cannot be looked at"]
    assert "permission denied" in unread["why"]
    await asyncio.to_thread(guarded.fedctl, "access", "revoke", WEST)
    missing = (await asyncio.to_thread(check, "root", 1))["a cluster has no rights"]
    assert (missing["subject"], missing["next"]) == (WEST, f"fedctl access grant {WEST}")


async def test_a_console_looks_at_everything_and_writes_drains_alone(guarded: Guarded) -> None:
    async with guarded.store("console") as store:
        assert (await store.list(KEYS.prefix)).entries == ()
        drain = Drain(name="r", target_kind=DrainTargetKind.REGION, target="r")
        await store.commit([Put(KEYS.drain("r"), to_bytes(drain))])
        await store.commit([Delete(KEYS.drain("r"))])
        for key in (
            KEYS.member(WEST),
            KEYS.requested_drain(WEST, "r"),
            KEYS.drain_state("r"),
            KEYS.resolved_manifest,
            f"{KEYS.objects(WEST)}core/Secret/app/x",
            f"{KEYS.resolver_election}/x",
        ):
            with pytest.raises(StoreRefused, match="permission denied"):
                await store.commit([Put(key, b"x")])
