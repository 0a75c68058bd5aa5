"""Keeps the ports of Gateways in the Service in front of the gateways that they share.

Decides: when they are written: when the Service has not what the Gateways ask for.
Leaves to others: which ports those are (``derive.shared_gateways``), writing (a ``ServicePorts``
port).
Invariants: the Service is never made, and its other ports never touched; nothing is written from
what is not live.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from federation.agent.routing import Routing
from federation.agent.state import ClusterObjects
from federation.aio import Backoff, Latest, any_change, retrying
from federation.derive.shared_gateways import (
    added_ports,
    has_ports,
    shared_place,
    unread_listeners,
)
from federation.model.acks import AckView
from federation.model.base import ServiceName
from federation.model.infrastructure import Place, ServedPort
from federation.model.objects import Gateway, ObjectKey, Service, ServiceSpec
from federation.ports import PortError, ServicePorts, TemporaryError

log = logging.getLogger(__name__)

SETTLE_S = 0.05


class SharedService:
    """The loop, and where Gateways are reached; its cell ``failure`` says why ports are missing."""

    def __init__(
        self,
        name: ServiceName,
        *,
        objects: Latest[ClusterObjects],
        routing: Latest[Routing],
        acks: Latest[AckView],
        sink: ServicePorts | None,
    ) -> None:
        """``sink`` is ``None`` where nothing can be written."""
        self._name = name
        self._objects = objects
        self._routing = routing
        self._acks = acks
        self._sink = sink
        self._refused: tuple[Sequence[ServedPort], ServiceSpec] | None = None
        self.failure: Latest[str] = Latest("")

    def __repr__(self) -> str:
        return f"SharedService({self._name}, {self.failure.value or 'in order'})"

    @property
    def cells(self) -> Sequence[Latest[Any]]:
        """What places depend on besides the routing."""
        return (self.failure,)

    def of(self, routing: Routing) -> Mapping[ObjectKey, Place]:
        """Where each Gateway is reached by the Service."""
        objects = routing.inputs.objects
        return {
            key: shared_place(gateway, ports, objects, self._name, failure=self.failure.value or "")
            for key, ports in routing.compiled.ports.items()
            if (gateway := objects.get(Gateway, key.namespace, key.name)) is not None
        }

    async def run(self) -> None:
        """Write after every change, for ever."""
        cells: tuple[Latest[Any], ...] = (self._objects, self._routing, self._acks)
        async with aclosing(any_change(*cells, settle_s=SETTLE_S)) as changes:
            async for _ in changes:
                await retrying(self._step, on=TemporaryError, backoff=Backoff(max_s=2.0))

    async def _step(self) -> None:
        """Write if need be. Raises ``TemporaryError`` when it has to be tried again."""
        objects, routing, acks = self._objects.value, self._routing.value, self._acks.value
        if self._sink is None or objects is None or routing is None or not objects.live:
            return
        service = objects.shown.get(Service, self._name.namespace, self._name.name)
        if service is None or acks is None:
            return
        sure = not unread_listeners(objects.shown)
        wanted = added_ports(service, routing.compiled.ports, acks.nodes, removing=sure)
        if wanted is None or has_ports(service, wanted):
            return
        if self._refused == (wanted, service.spec):
            return  # the same would be refused again
        try:
            await self._sink.write(self._name, wanted, uid=service.metadata.uid)
        except PortError as error:
            if self.failure.set(f"adding it failed: {error}"):
                log.warning("ports are not added to the Service", extra={"reason": str(error)})
            if isinstance(error, TemporaryError):
                raise
            self._refused = (wanted, service.spec)
        else:
            self.failure.set("")
