"""A console of this process on a real etcd, for tests: served on loopback, asked over HTTP.

``running_console`` serves; ``Page`` is a client that holds a session as a browser does.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import ClientResponse, ClientSession, CookieJar, TCPConnector

from federation.adapters.clock import SystemClock
from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.adapters.universal import UniversalSource
from federation.aio import cancel_and_wait
from federation.console import Access, Console, ConsoleSettings, Limits, ObjectsFrom
from federation.model.base import ClusterId, Region, ServiceName, Value
from federation.model.facts import (
    ClusterGateways,
    ClusterWeight,
    ExportFact,
    FactsManifest,
    Heartbeat,
    Member,
    PeerGateway,
    ServicePolicyFact,
    ServicePort,
)
from federation.ports import MAX_WRITES, Delete, Put, Store
from federation.resolver import Resolver, ResolverSettings
from federation.wire.etcd import checksum, to_bytes
from federation.wire.etcd_keys import Keys
from tests.testkit.ports import free_port

DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the API."""

    status: int
    headers: Mapping[str, str]
    json: Any

    @property
    def error(self) -> str:
        """``code: sentence`` of a refusal."""
        found = self.json["error"]
        return f"{found['code']}: {found['message']}"


class Page:
    """A browser's page: it has a session, its token, and our origin."""

    def __init__(self, base: str, session: ClientSession) -> None:
        self.base = base
        self.session = session
        self.csrf = ""

    async def open(self) -> Answer:
        """Ask for the session, as a page does first."""
        found = await self.get("/api/session")
        self.csrf = found.json["csrf"]
        return found

    async def get(self, path: str, **options: Any) -> Answer:
        async with self.session.get(f"{self.base}{path}", **options) as response:
            return await _answer(response)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """What changes something; a header ``None`` is left out."""
        ours: dict[str, str | None] = {"Origin": self.base, "X-CSRF-Token": self.csrf}
        sent = {name: value for name, value in (ours | dict(headers or {})).items() if value}
        options: dict[str, Any] = {} if body is None else {"json": body}
        url = f"{self.base}{path}"
        async with self.session.request(method, url, headers=sent, **options) as response:
            return await _answer(response)

    async def until(
        self, path: str, holds: Callable[[Any], bool], *, within_s: float = DEADLINE_S
    ) -> Any:
        """The JSON at ``path`` once it ``holds``."""
        last: Any = None
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = await self.get(path)
                    last = found.json
                    if found.status == 200 and holds(last):
                        return last
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{path} is still {json.dumps(last)[:2000]}") from None


async def _answer(response: ClientResponse) -> Answer:
    text = await response.text()
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    return Answer(response.status, dict(response.headers), json.loads(text) if is_json else text)


async def eventually(
    look: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool], within_s: float = DEADLINE_S
) -> Any:
    """What ``look`` gives once it ``holds``."""
    found: Any = None
    try:
        async with asyncio.timeout(within_s):
            while True:
                if holds(found := await look()):
                    return found
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"it is still {found!r}") from None


def settings(**changes: Any) -> ConsoleSettings:
    """Settings of a console on loopback where everybody may write, with ``changes``."""
    plain = ConsoleSettings(
        host="127.0.0.1",
        port=free_port(),
        version="test",
        access=Access(open_write=True),
        limits=Limits(tick_s=0.1, beat_s=1.0),
    )
    return replace(plain, **changes)


@asynccontextmanager
async def running_console(
    endpoint: str, prefix: str, wanted: ConsoleSettings | None = None
) -> AsyncGenerator[str, None]:
    """Serve a console; its base address."""
    used = wanted or settings()
    store = EtcdStore(EtcdSettings(endpoints=(endpoint,), call_timeout_s=1.0))
    try:
        keys = Keys(prefix)
        console = Console(
            store=store,
            clock=SystemClock(),
            keys=keys,
            settings=used,
            sources=lambda cluster: ObjectsFrom(UniversalSource(store, keys, cluster)),
            history=store,
        )
        async with console.serving():
            scheme = "https" if used.tls is not None else "http"
            yield f"{scheme}://{used.host}:{used.port}"
    finally:
        await store.close()


@asynccontextmanager
async def page(
    base: str, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncGenerator[Page, None]:
    """A client of the console at ``base``."""
    connector = TCPConnector(ssl=tls) if tls is not None else TCPConnector()
    jar = CookieJar(unsafe=True)  # cookies of addresses
    async with ClientSession(connector=connector, cookie_jar=jar, **options) as session:
        yield Page(base, session)


class Published:
    """What agents of clusters would have published, written to a real etcd by hand."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def join(self, cluster: str, region: str) -> None:
        """A member that is heard of, with one gateway."""
        name, where = ClusterId(cluster), Region(region)
        heartbeat = Heartbeat(cluster=name, instance=cluster, seen_revision=1, version="1")
        gateways = ClusterGateways(
            cluster=name,
            region=where,
            gateways=(PeerGateway(name=f"{cluster}-gw-1", address="127.0.0.1:15444"),),
        )
        await self._put(
            {
                self._keys.member(name): Member(cluster=name, region=where, instance=cluster),
                self._keys.heartbeat(name): heartbeat,
                self._keys.gateways(name): gateways,
            }
        )

    async def leave(self, cluster: str) -> None:
        """Its heartbeat ends."""
        await self._store.commit([Delete(self._keys.heartbeat(ClusterId(cluster)))])

    async def export(
        self, cluster: str, region: str, names: Sequence[str], *, ready: int = 2, port: int = 9090
    ) -> None:
        """Services of namespace ``app`` under the cluster's seal."""
        name = ClusterId(cluster)
        facts = {}
        for service in names:
            fact = ExportFact(
                cluster=name,
                region=Region(region),
                service=ServiceName(namespace="app", name=service),
                ports=(ServicePort(name="grpc", port=port),),
                ready=ready,
                total=2,
                capacity=ready,
            )
            facts[self._keys.export(name, fact.service)] = fact
        await self._put(facts)
        listing = await self._store.list(self._keys.exports(name))
        sealed = {entry.key: entry.value for entry in listing.entries}
        manifest = FactsManifest(
            cluster=name, epoch=listing.revision, count=len(sealed), checksum=checksum(sealed)
        )
        await self._put({self._keys.manifest(name): manifest})

    async def weights(self, cluster: str, service: str, **weights: int) -> None:
        """What a MultiClusterService there asks for."""
        name, meant = ClusterId(cluster), ServiceName(namespace="app", name=service)
        fact = ServicePolicyFact(
            cluster=name,
            service=meant,
            import_name=f"{service}-global",
            weights=tuple(
                ClusterWeight(target=target.replace("_", "-"), weight=weight)
                for target, weight in weights.items()
            ),
            weights_origin=f"MultiClusterService app/{service}-global in {cluster}",
        )
        await self._put({self._keys.policy(name, meant, fact.import_name): fact})

    async def _put(self, values: Mapping[str, Value]) -> None:
        writes = [Put(key, to_bytes(value)) for key, value in values.items()]
        for start in range(0, len(writes), MAX_WRITES):
            await self._store.commit(writes[start : start + MAX_WRITES])


@asynccontextmanager
async def running_resolver(
    store: Store, keys: Keys, name: str = "resolver-1"
) -> AsyncGenerator[None, None]:
    """A real resolver on ``store``."""
    resolver = Resolver(
        store=store,
        clock=SystemClock(),
        keys=keys,
        settings=ResolverSettings(identity=name, lease_ttl_s=2.0, return_over_s=0.0),
    )
    task = asyncio.create_task(resolver.run())
    try:
        yield
    finally:
        await cancel_and_wait(task)
