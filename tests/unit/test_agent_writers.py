"""What the agent writes into its cluster: again when it is gone, and for objects made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from federation.agent.imports import ImportWriter
from federation.agent.routing import Router, StatusWriter
from federation.agent.settings import AgentSettings
from federation.agent.state import ClusterObjects, FederationState
from federation.aio import Latest, cancel_and_wait
from federation.model.acks import AckView
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import ExportFact, ServicePort
from federation.model.objects import ApiObject, McsServiceImport, ObjectKey, ObjectSnapshot
from federation.model.snapshot import Snapshot
from federation.model.status import ObjectStatus
from federation.ports import Entry, Listing
from federation.wire.etcd import to_bytes, view_from
from federation.wire.etcd_keys import Keys
from federation.wire.manifests import decode_all, parse_documents
from tests.testkit.standalone import until

KEYS = Keys()
WEST, EAST = ClusterId("west"), ClusterId("east")
USERS = ServiceName(namespace="app", name="users")
NAMESPACE = "{apiVersion: v1, kind: Namespace, metadata: {name: app}}"
CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: federation.dev/gateway-controller}
"""


class Recorder:
    """A sink that keeps what it was given."""

    def __init__(self) -> None:
        self.written: list[dict[ObjectKey, ObjectStatus]] = []

    async def write(self, statuses: Mapping[ObjectKey, ObjectStatus]) -> None:
        self.written.append(dict(statuses))


class Cluster:
    """A cluster's derived objects, seen by its source as soon as they are written."""

    def __init__(self, objects: Latest[ClusterObjects], given: ObjectSnapshot) -> None:
        self._objects = objects
        self.given = given
        self.imports: dict[ObjectKey, ApiObject] = {}
        self.writes = 0

    async def write(self, objects: Mapping[ObjectKey, ApiObject]) -> bool:
        self.writes += 1
        self.imports = dict(objects)
        self.show()
        return True

    def show(self) -> None:
        whole = {**self.given.objects, **self.imports}
        self._objects.set(seen(ObjectSnapshot(whole, synced=True)))


class Publications:
    """Serves nobody."""

    def publish(self, _snapshot: Snapshot) -> int:
        return 1


def snapshot(text: str, **metadata: str) -> ObjectSnapshot:
    found = decode_all(parse_documents(text, origin="test")).objects
    objects = [value.with_metadata(**metadata) for value in found]
    return ObjectSnapshot({value.key: value for value in objects}, synced=True)


def seen(objects: ObjectSnapshot) -> ClusterObjects:
    return ClusterObjects(shown=objects, routed=objects, live=True)


def federation(*facts: ExportFact) -> FederationState:
    entries = [
        Entry(KEYS.export(fact.cluster, fact.service), to_bytes(fact), number, number)
        for number, fact in enumerate(facts, 1)
    ]
    listing = Listing(len(entries), tuple(entries))
    return FederationState(listing, view_from(KEYS, len(entries), entries), live=True)


@asynccontextmanager
async def running(*loops: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            await cancel_and_wait(task)


async def test_an_import_that_somebody_deleted_is_written_again(tmp_path: Path) -> None:
    objects: Latest[ClusterObjects] = Latest()
    exported = ExportFact(
        cluster=EAST,
        region=Region("east"),
        service=USERS,
        ports=(ServicePort(port=80),),
        ready=1,
        total=1,
        capacity=1,
    )
    cluster = Cluster(objects, snapshot(NAMESPACE))
    cluster.show()
    writer = ImportWriter(
        AgentSettings(cluster=WEST, region=Region("west"), state_dir=tmp_path),
        objects=objects,
        federation=Latest(federation(exported)),
        sinks={McsServiceImport: cluster},
    )
    async with running(writer.run()):
        await until(lambda: cluster.writes == 1, "the import is written")
        wanted = dict(cluster.imports)
        cluster.imports = {}
        cluster.show()
        await until(lambda: cluster.imports == wanted, "the import is there again")
    assert list(wanted)
    assert cluster.writes == 2


async def test_an_object_made_anew_gets_the_status_that_it_lacks(tmp_path: Path) -> None:
    objects: Latest[ClusterObjects] = Latest(seen(snapshot(CLASS, uid="first")))
    settings = AgentSettings(cluster=WEST, region=Region("west"), state_dir=tmp_path)
    router = Router(settings, objects=objects, federation=Latest(federation()), sink=Publications())
    sink = Recorder()
    writer = StatusWriter(
        objects=objects,
        routing=router.routing,
        acks=Latest(AckView()),
        sink=sink,
        settle_s=0.0,
    )
    async with running(router.run(), writer.run()):
        await until(lambda: sink.written, "the status is written")
        (status,) = sink.written[-1].values()
        objects.set(seen(snapshot(CLASS, uid="second")))
        await until(lambda: len(sink.written) == 3, "it is written for the second object")
    gone, again = sink.written[1:]
    assert gone == {}
    assert list(again.values()) == [status]
