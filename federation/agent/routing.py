"""From what is known to what the gateways do, and to the statuses that say so.

Decides: when to compile: after any change that routing depends on, the newest inputs at once, older
ones never; and when statuses are written: when conditions or the gateways' answers have changed.
Leaves to others: routing itself (``derive.compile``), serving (a ``SnapshotSink``), what an answer
means (``derive.programmed``), storing statuses (a ``StatusSink``).
Invariants: nothing is published before objects and federation are known; equal inputs are compiled
once; a status sink that is away holds up no routing, and gets the newest statuses when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from federation.agent.published import Publications
from federation.agent.settings import AgentSettings
from federation.agent.state import (
    ClusterObjects,
    FederationState,
    dialled_snapshot,
    routing_view,
)
from federation.agent.tracing import Change, ChangeTraces
from federation.aio import Latest, any_change
from federation.derive.compile import Compiled, CompileInputs, Compiler
from federation.derive.entrances import gateway_pods
from federation.derive.programmed import with_programmed
from federation.derive.refused import with_refused
from federation.model.acks import AckView, NodeAcks
from federation.model.infrastructure import Place
from federation.model.objects import ObjectKey
from federation.model.serving import serves_gateway
from federation.model.status import ObjectStatus
from federation.ports import SnapshotSink, StatusSink, TemporaryError
from federation.telemetry import catalogue, count, spans, timed

log = logging.getLogger(__name__)

BESIDE_OBJECTS = 500
"""From so many objects on, compiling all of them anew takes more than some 50 ms."""

STATUS_RETRY_S = 0.5
"""Wait before statuses are offered again to a sink that did not take them all; doubled each time
that nothing has changed meanwhile, since one may be refused for as long as a right is missing."""

STATUS_RETRY_MAX_S = 16.0
"""Longest such wait."""

GATEWAYS_BACK_S = 3.0
"""Longest wait of a new agent for the gateways that its predecessor advertised, before it says what
they have programmed: they try again every 2 s at most, and what they do has not changed."""


@dataclass(frozen=True, slots=True)
class Routing:
    """What is served now: what it was compiled from, the outcome, and the sink's generation."""

    inputs: CompileInputs
    compiled: Compiled
    generation: int


class Router:
    """Compiles and publishes; its cell ``routing`` holds what is in force."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        objects: Latest[ClusterObjects],
        federation: Latest[FederationState],
        sink: SnapshotSink,
        traces: ChangeTraces | None = None,
    ) -> None:
        """``traces`` follows each change to the gateways' answers (``None``: nobody does)."""
        self._settings = settings
        self._traces = traces
        self.publications = Publications()
        self._objects = objects
        self._federation = federation
        self._sink = sink
        self._compiler = Compiler()
        self.routing: Latest[Routing] = Latest()

    def __repr__(self) -> str:
        served = self.routing.value
        return f"Router(generation={served.generation if served is not None else 'none'})"

    async def run(self) -> None:
        """Compile after every change, for ever."""
        cells = (self._objects, self._federation)
        async with aclosing(any_change(*cells, settle_s=self._settings.settle_s)) as changes:
            async for _ in changes:
                await self._step()

    async def _step(self) -> None:
        """Compile the newest inputs and publish, unless nothing that matters has changed."""
        inputs = self._inputs()
        served = self.routing.value
        if inputs is None or (served is not None and inputs == served.inputs):
            return
        change = self._trace(served, inputs)
        with timed(catalogue.COMPILE_SECONDS):
            compiled = await self._compile(inputs)
        self._count_compiled(change)
        dialled = dialled_snapshot(compiled.snapshot, self._settings.endpoint_dial)
        if dialled is not compiled.snapshot:
            compiled = replace(compiled, snapshot=dialled)
        generation = self._sink.publish(compiled.snapshot)
        self.publications.note(generation)
        self.routing.set(Routing(inputs, compiled, generation))
        if served is None or generation != served.generation:
            count(catalogue.PUBLICATIONS)
        if change is not None and self._traces is not None:
            if served is None or generation != served.generation:
                self._traces.published(change, generation)
            else:
                self._traces.unchanged(change)
        if served is None or generation != served.generation:
            log.info(
                "snapshot published",
                extra={
                    "generation": generation,
                    "objects_revision": inputs.objects.revision,
                    "compiled": dict(self._compiler.made),
                },
            )

    def _trace(self, served: Routing | None, inputs: CompileInputs) -> Change | None:
        if self._traces is None:
            return None
        objects = inputs.objects
        change = self._traces.change(
            served.inputs.objects.objects if served is not None else None,
            objects.objects,
            objects_at_ns=objects.changed_at_ns or self._objects.changed_at_ns,
            federation_at_ns=self._federation.changed_at_ns,
            revision=self._federation.value.listing.revision if self._federation.value else 0,
        )
        change.begin(spans.COMPILE)
        return change

    def _count_compiled(self, change: Change | None) -> None:
        count(catalogue.COMPILATIONS)
        for piece, number in self._compiler.made.items():
            count(catalogue.COMPILED, piece, by=number)
        if change is not None:
            made = ", ".join(f"{piece}={number}" for piece, number in self._compiler.made.items())
            change.end_part(**{spans.PIECES: made})
            change.begin(spans.PUBLISH)

    async def _compile(self, inputs: CompileInputs) -> Compiled:
        """Much is compiled beside the loop, so that heartbeats and xDS go on meanwhile."""
        if len(inputs.objects.objects) < BESIDE_OBJECTS:
            return self._compiler.compile(inputs)
        return await asyncio.to_thread(self._compiler.compile, inputs)

    def _inputs(self) -> CompileInputs | None:
        objects, federation = self._objects.value, self._federation.value
        if objects is None or federation is None:
            return None
        own = self._settings.cluster
        view = routing_view(federation.view, own=own, peer_dial=self._settings.peer_dial)
        return CompileInputs(
            cluster=own,
            region=self._settings.region,
            objects=objects.routed,
            view=view,
            settings=self._settings.compile,
            kept_certificates=objects.kept_certificates,
        )


def _all_served(routing: Routing, nodes: Sequence[NodeAcks]) -> bool:
    """Whether every Gateway is served by one of ``nodes``, of which no address is advertised."""
    gateways = {listener.gateway for listener in routing.compiled.snapshot.listeners} - {""}
    return all(any(serves_gateway(n.serves, name) for n in nodes) for name in gateways)


class Places(Protocol):
    """Who knows where Gateways are reached besides the gateways themselves."""

    @property
    def cells(self) -> Sequence[Latest[Any]]:
        """What it knows it by, besides the routing."""
        ...

    def of(self, routing: Routing) -> Mapping[ObjectKey, Place]:
        """The places of Gateways of ``routing``."""
        ...


class StatusWriter:
    """Keeps the stored statuses at what compiling and the gateways say.

    Its cell ``statuses`` holds what was written last.
    """

    def __init__(
        self,
        *,
        objects: Latest[ClusterObjects],
        routing: Latest[Routing],
        acks: Latest[AckView],
        sink: StatusSink,
        settle_s: float,
        places: Places | None = None,
    ) -> None:
        """``places`` says where Gateways are reached, where gateways do not say it themselves."""
        self._places = places
        self._objects = objects
        self._routing = routing
        self._acks = acks
        self._sink = sink
        self._settle_s = settle_s
        self._written: Mapping[ObjectKey, ObjectStatus] | None = None
        self._uids: Mapping[ObjectKey, str | None] = {}
        self.statuses: Latest[Mapping[ObjectKey, ObjectStatus]] = Latest()

    def __repr__(self) -> str:
        return f"StatusWriter({'unwritten' if self._written is None else len(self._written)})"

    async def run(self) -> None:
        """Write after every change, for ever."""
        cells: tuple[Latest[Any], ...] = (self._routing, self._acks)
        if self._places is not None:
            cells = (*cells, *self._places.cells)
        if self._written is None:
            await self._gateways_back()
        changed = asyncio.Event()
        for cell in cells:
            cell.subscribe(changed)
        try:
            await self._follow(changed)
        finally:
            for cell in cells:
                cell.unsubscribe(changed)

    async def _follow(self, changed: asyncio.Event) -> None:
        wait_s = 0.0
        while True:
            changed.clear()
            failure = await self._step()
            if failure is None:
                wait_s = 0.0
                await changed.wait()
                await asyncio.sleep(self._settle_s)
                continue
            if not wait_s:
                log.warning("statuses are not written", extra={"reason": str(failure)})
            wait_s = min(max(wait_s * 2, STATUS_RETRY_S), STATUS_RETRY_MAX_S)
            await asyncio.sleep(STATUS_RETRY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s - STATUS_RETRY_S):
                    await changed.wait()

    async def _gateways_back(self) -> None:
        """Wait for the gateways of before, so that Programmed does not flap with each new agent."""
        async with aclosing(self._routing.changes()) as routings:
            routing = await anext(routings)
        inputs = routing.inputs
        names = _gateways_expected(inputs)
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(GATEWAYS_BACK_S),
                aclosing(self._acks.changes()) as answers,
            ):
                async for acks in answers:
                    nodes = [n for n in acks.nodes if n.generation >= acks.generation]
                    current = {node.node for node in nodes}
                    if names <= current | set(acks.left) and (
                        not inputs.settings.dedicated_gateways or _all_served(routing, nodes)
                    ):
                        return

    async def _step(self) -> TemporaryError | None:
        """Write the newest statuses; what went wrong if the sink is away."""
        routing, objects = self._routing.value, self._objects.value
        if routing is None or objects is None or not objects.live:
            return None  # statuses made from old objects would go back in time
        statuses = with_programmed(
            routing.compiled.statuses,
            self._acks.value or AckView(),
            snapshot=routing.compiled.snapshot,
            previous=self._written,
            places=self._places.of(routing) if self._places is not None else None,
        )
        shown = objects.shown
        controller = routing.inputs.settings.controller_name
        statuses = with_refused(statuses, shown, controller=controller)
        # Objects that only routing still knows have no place where a status could be written.
        uids = {
            key: shown.objects[key].metadata.uid
            if key in shown.objects
            else shown.rejected[key].uid
            for key in statuses
            if key in shown.objects or key in shown.rejected
        }
        statuses = {key: statuses[key] for key in uids}
        if statuses != self._written or uids != self._uids:
            # What was deleted and made again between two looks is another object, with no status.
            made_anew = {key for key, uid in uids.items() if self._uids.get(key, uid) != uid}
            try:
                if made_anew:
                    known = {key: at for key, at in statuses.items() if key not in made_anew}
                    await self._sink.write(known)
                await self._sink.write(statuses)
            except TemporaryError as failure:
                return failure
            self._written, self._uids = statuses, uids
        self.statuses.set(statuses)
        return None


def _gateways_expected(inputs: CompileInputs) -> set[str]:
    """The gateways that are known to be there, by what says so."""
    service = inputs.settings.gateway_service
    if service is not None:
        return {pod.name for pod in gateway_pods(inputs.objects, service)} - {""}
    advertised = inputs.view.gateways.get(inputs.cluster)
    return {peer.name for peer in advertised.gateways} if advertised is not None else set()
