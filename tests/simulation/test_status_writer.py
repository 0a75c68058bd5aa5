"""How often an agent offers a status again that its cluster does not take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from federation.agent.routing import STATUS_RETRY_MAX_S, STATUS_RETRY_S, Router, StatusWriter
from federation.agent.settings import AgentSettings
from federation.agent.state import ClusterObjects, FederationState
from federation.aio import Latest, cancel_and_wait
from federation.model.acks import AckView
from federation.model.base import ClusterId, Region
from federation.model.objects import ObjectKey, ObjectSnapshot
from federation.model.snapshot import Snapshot
from federation.model.status import ObjectStatus
from federation.ports import Listing, TemporaryError
from federation.wire.etcd import view_from
from federation.wire.etcd_keys import Keys
from federation.wire.manifest_yaml import parse_documents
from federation.wire.manifests import decode_all

VIRTUAL_TIME = True
pytestmark = pytest.mark.timeout(20)

CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: federation.dev/gateway-controller}
"""


class Refusing:
    """A sink that never takes all statuses, as for lack of a right."""

    def __init__(self) -> None:
        self.tried_s: list[float] = []

    async def write(self, statuses: Mapping[ObjectKey, ObjectStatus]) -> None:
        self.tried_s.append(asyncio.get_running_loop().time())
        raise TemporaryError(f"1 of {len(statuses)} statuses were not written: 403")


class Nobody:
    """Serves nobody."""

    def publish(self, _snapshot: Snapshot) -> int:
        return 1


async def test_less_and_less_often_but_at_once_after_a_change(tmp_path: Path) -> None:
    found = decode_all(parse_documents(CLASS, origin="test")).objects
    objects = ObjectSnapshot({value.key: value for value in found}, synced=True)
    shown = Latest(ClusterObjects(shown=objects, routed=objects, live=True))
    federation = Latest(FederationState(Listing(0, ()), view_from(Keys(), 0, ()), live=True))
    settings = AgentSettings(cluster=ClusterId("west"), region=Region("west"), state_dir=tmp_path)
    router = Router(settings, objects=shown, federation=federation, sink=Nobody())
    acks: Latest[AckView] = Latest(AckView())
    sink = Refusing()
    writer = StatusWriter(objects=shown, routing=router.routing, acks=acks, sink=sink, settle_s=0.0)
    tasks = [asyncio.ensure_future(loop) for loop in (router.run(), writer.run())]
    try:
        await asyncio.sleep(100)
        waits = [after - before for before, after in pairwise(sink.tried_s)]
        doubled = [STATUS_RETRY_S * 2**number for number in range(6)]
        assert waits[:6] == pytest.approx(doubled)
        assert waits[6:] == pytest.approx([STATUS_RETRY_MAX_S] * len(waits[6:]))
        tries = len(sink.tried_s)
        acks.set(AckView(generation=7))
        await asyncio.sleep(STATUS_RETRY_S)
        assert len(sink.tried_s) == tries + 1
    finally:
        for task in tasks:
            await cancel_and_wait(task)
