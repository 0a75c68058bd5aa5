"""A control plane in one process: agents and a resolver on one store in memory.

Each process has a connection of its own, so a test can cut one off. ``crash`` ends an agent as
SIGKILL does: nothing is revoked, leases run out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from federation.adapters.memory import MemoryCluster, MemoryStore
from federation.adapters.universal import UniversalObjects, UniversalSource, UniversalStatusSink
from federation.agent import Agent, AgentSettings
from federation.aio import Latest, cancel_and_wait
from federation.derive.drain_admission import DrainRight
from federation.model.acks import AckView, NodeAcks
from federation.model.base import ClusterId, Region
from federation.model.objects import ApiObject, ObjectKey
from federation.model.snapshot import Snapshot
from federation.model.status import ObjectStatus
from federation.model.view import FederationView
from federation.resolver.service import Resolver
from federation.resolver.settings import ResolverSettings
from federation.wire.etcd import ViewReading, view_from
from federation.wire.etcd_keys import Keys
from federation.wire.manifests import decode_all, parse_documents
from tests.testkit.virtual_time import LoopClock

KEYS = Keys()


class Gateways:
    """The gateways of a cluster as the agent meets them: they take every snapshot at once."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.snapshots: list[Snapshot] = []
        self.acks: Latest[AckView] = Latest(AckView())
        self._acknowledge()

    def publish(self, snapshot: Snapshot) -> int:
        if not self.snapshots or self.snapshots[-1] != snapshot:
            self.snapshots.append(snapshot)
            self._acknowledge()
        return len(self.snapshots)

    def connect(self, *names: str) -> None:
        self.names = names
        self._acknowledge()

    def _acknowledge(self) -> None:
        now = len(self.snapshots)
        nodes = tuple(NodeAcks(n, "gateway", now, f"{n}.example:15444") for n in self.names)
        self.acks.set(AckView(now, nodes))


class Member:
    """One cluster: its objects, its agent, its gateways."""

    def __init__(self, name: str, cluster: MemoryCluster, state_dir: Path) -> None:
        self.cluster = ClusterId(name)
        self.region = Region(f"region-{name}")
        self.state_dir = state_dir / name
        self.users = UniversalObjects(
            MemoryStore(cluster, name=f"users of {name}"), KEYS, self.cluster, LoopClock()
        )
        self.gateways = Gateways(f"{name}-gw-1", f"{name}-gw-2")
        self._shared = cluster
        self.store = MemoryStore(cluster, name=f"agent of {name}")
        self.agent: Agent | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self, *, connected: bool = True) -> asyncio.Task[None]:
        self.store = MemoryStore(self._shared, name=f"agent of {self.cluster}")
        if not connected:
            self.store.cut()
        clock = LoopClock()
        self.gateways.snapshots = []
        self.agent = Agent(
            AgentSettings(cluster=self.cluster, region=self.region, state_dir=self.state_dir),
            store=self.store,
            keys=KEYS,
            source=UniversalSource(self.store, KEYS, self.cluster),
            statuses=UniversalStatusSink(self.store, KEYS, self.cluster, clock),
            snapshots=self.gateways,
            acks=self.gateways.acks,
            clock=clock,
        )
        self.task = asyncio.create_task(self.agent.run(), name=f"agent {self.cluster}")
        return self.task

    async def crash(self) -> None:
        self.store.cut()
        await self.stop()

    async def stop(self) -> None:
        if self.task is not None:
            await cancel_and_wait(self.task)
            self.task = None

    async def apply(self, text: str) -> None:
        for value in objects(text):
            await self.users.apply(value)

    async def delete(self, *keys: ObjectKey) -> None:
        for key in keys:
            await self.users.delete(key)

    async def statuses(self) -> dict[ObjectKey, ObjectStatus]:
        return dict(await self.users.statuses())


class World:
    """All members, and what an onlooker sees."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.shared = MemoryCluster()
        self.onlooker = MemoryStore(self.shared, name="onlooker")
        self.members = {name: Member(name, self.shared, directory) for name in names}
        self._resolver: asyncio.Task[None] | None = None

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def start_resolver(self, *drain_rights: DrainRight) -> None:
        store = MemoryStore(self.shared, name="resolver")
        settings = ResolverSettings(identity="resolver", drain_rights=frozenset(drain_rights))
        resolver = Resolver(store=store, clock=LoopClock(), keys=KEYS, settings=settings)
        self._resolver = asyncio.create_task(resolver.run(), name="resolver")

    def reading(self) -> ViewReading:
        listing = self.shared.listing(KEYS.state)
        return view_from(KEYS, listing.revision, listing.entries)

    @property
    def view(self) -> FederationView:
        return self.reading().view

    async def stop(self) -> None:
        for member in self.members.values():
            await member.stop()
        if self._resolver is not None:
            with suppress(asyncio.CancelledError):
                await cancel_and_wait(self._resolver)


@asynccontextmanager
async def world(directory: Path, *names: str, resolver: bool = False) -> AsyncIterator[World]:
    """A world with all agents running."""
    made = World(directory, *names)
    try:
        for member in made.members.values():
            member.start()
        if resolver:
            made.start_resolver()
        await until(lambda: len(made.view.manifests) == len(names), "all agents to join")
        yield made
    finally:
        await made.stop()


async def until(holds: Callable[[], bool], what: str, *, within_s: float = 30.0) -> float:
    """Let virtual time pass until ``holds``; returns how long it took."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not holds():
        assert loop.time() - begun < within_s, f"waited {within_s} virtual seconds for {what}"
        await asyncio.sleep(0.001)
    return loop.time() - begun


async def pass_time(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)


def objects(text: str) -> tuple[ApiObject, ...]:
    decoded = decode_all(parse_documents(text, origin="test"))
    assert not decoded.rejected, decoded.rejected[0].message
    return decoded.objects


def service(name: str, ready: int, *, export: bool = True) -> str:
    """A Service ``app/NAME`` with ``ready`` endpoints, exported."""
    endpoints = "\n".join(
        f"  - addresses: [10.0.0.{number + 1}]\n    conditions: {{ready: true}}"
        for number in range(ready)
    )
    text = f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: app}}
spec:
  ports: [{{name: grpc, port: 50051}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: app, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: grpc, port: 50051}}]
endpoints:{" []" if not ready else ""}
{endpoints}
"""
    if export:
        text += f"""---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {{name: {name}, namespace: app}}
"""
    return text


def entry_point(name: str) -> str:
    """A Gateway and a route to the import of ``app/NAME``."""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: front, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: grpc, port: 8080, protocol: HTTP}}]
---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: {{name: {name}, namespace: app}}
spec:
  type: ClusterSetIP
  ports: [{{name: grpc, port: 50051, protocol: TCP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: to-{name}, namespace: app}}
spec:
  parentRefs: [{{name: front}}]
  rules:
  - backendRefs:
    - {{group: multicluster.x-k8s.io, kind: ServiceImport, name: {name}, port: 50051}}
"""
