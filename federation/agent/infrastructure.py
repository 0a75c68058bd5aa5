"""Keeps the gateways of each Gateway made, where Gateways have gateways of their own.

Decides: when that is looked after: after a change of what is wanted, when a Service of it is gone,
and every ``LOOK_AGAIN_S`` besides, since nobody tells of a Deployment that was changed or deleted.
Leaves to others: what is wanted (``derive.infrastructure``), writing (a ``GatewayInfrastructure``
port).
Invariants: nothing is made or removed from what is not live: what the agent does not know at the
moment is not gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from federation.agent.routing import Routing
from federation.agent.state import ClusterObjects
from federation.aio import Latest
from federation.derive.infrastructure import infrastructure_of, place_of, unread_gateways
from federation.model.infrastructure import GatewayTemplate, MadeKind, MadeObject, Place
from federation.model.objects import Gateway, ObjectKey, ObjectSnapshot, Service
from federation.ports import GatewayInfrastructure, PortError

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 5.0

SETTLE_S = 0.05
"""Changes that come together are one look."""

Failures = Mapping[ObjectKey, str]
"""Why something of a Gateway could not be made."""


class InfrastructureWriter:
    """The loop, and where Gateways are reached.

    Its cell ``failures`` tells of Gateways for which something could not be made.
    """

    def __init__(
        self,
        template: GatewayTemplate,
        *,
        objects: Latest[ClusterObjects],
        routing: Latest[Routing],
        sink: GatewayInfrastructure,
    ) -> None:
        self._template = template
        self._objects = objects
        self._routing = routing
        self._sink = sink
        self._written: Mapping[ObjectKey, Sequence[MadeObject]] | None = None
        self._away = False
        self.failures: Latest[Failures] = Latest({})

    def __repr__(self) -> str:
        return (
            f"InfrastructureWriter({'unwritten' if self._written is None else len(self._written)})"
        )

    async def run(self) -> None:
        """Look after every change and now and then, for ever."""
        changed = asyncio.Event()
        cells: tuple[Latest[ClusterObjects] | Latest[Routing], ...] = (self._objects, self._routing)
        for cell in cells:
            cell.subscribe(changed)
        clock = asyncio.get_running_loop().time
        try:
            looked_s = -LOOK_AGAIN_S
            while True:
                changed.clear()
                if await self._step(due=clock() - looked_s >= LOOK_AGAIN_S):
                    looked_s = clock()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(looked_s + LOOK_AGAIN_S):
                        await changed.wait()
                await asyncio.sleep(SETTLE_S)
        finally:
            for cell in cells:
                cell.unsubscribe(changed)

    async def _step(self, *, due: bool) -> bool:
        """Look after it, if there is reason to; says whether it did."""
        objects, routing = self._objects.value, self._routing.value
        if objects is None or routing is None or not objects.live:
            return due
        wanted = self._wanted(routing)
        if not due and wanted == self._written and _services_there(wanted, objects.shown):
            return False
        # A Gateway that has no port to open now keeps what it has.
        kept = [key for key, made in wanted.items() if not made]
        kept += unread_gateways(objects.shown)
        try:
            failures = await self._sink.write(wanted, kept=kept)
        except PortError as error:
            if not self._away:
                log.warning("gateways of Gateways are not kept", extra={"reason": str(error)})
            self._away = True
            return True
        self._away = False
        self._written = wanted
        self.failures.set(failures)
        return True

    @property
    def cells(self) -> Sequence[Latest[Any]]:
        """What places depend on besides the routing."""
        return (self.failures,)

    def of(self, routing: Routing) -> Mapping[ObjectKey, Place]:
        """Where each Gateway is reached by its own Service."""
        objects, failures = routing.inputs.objects, self.failures.value or {}
        return {
            gateway.key: place_of(
                gateway, objects, self._template, failure=failures.get(gateway.key, "")
            )
            for gateway in _served(routing)
        }

    def _wanted(self, routing: Routing) -> Mapping[ObjectKey, Sequence[MadeObject]]:
        ports = routing.compiled.ports
        return {
            gateway.key: infrastructure_of(gateway, ports[gateway.key], self._template)
            for gateway in _served(routing)
        }


def _served(routing: Routing) -> Iterator[Gateway]:
    objects = routing.inputs.objects
    for key in routing.compiled.ports:
        gateway = objects.get(Gateway, key.namespace, key.name)
        if gateway is not None:
            yield gateway


def _services_there(
    wanted: Mapping[ObjectKey, Sequence[MadeObject]], shown: ObjectSnapshot
) -> bool:
    return all(
        shown.get(Service, entry.key.namespace, entry.key.name) is not None
        for objects in wanted.values()
        for entry in objects
        if entry.kind is MadeKind.SERVICE
    )
