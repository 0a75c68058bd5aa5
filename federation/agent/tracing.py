"""Traces of changes: from an object's change over compiling to each gateway's answer.

Decides: what one trace holds, when it ends, how many are open at once.
Leaves to others: where spans go (``telemetry.otlp``); without it nothing here is made.
Invariants: at most ``OPEN_MAX`` traces are open, the oldest ends first; a gateway that leaves or
refuses ends its span with an error; nothing waits for a trace.

    change ──▶ compile ──▶ publish ──▶ acknowledge (one for each connected gateway)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from federation.aio import Latest
from federation.model.acks import AckView, NodeAcks
from federation.model.base import ClusterId
from federation.model.objects import ApiObject, ObjectKey
from federation.telemetry import spans

OPEN_MAX = 64
"""Changes whose answers are waited for at once."""

NAMED_MAX = 16
"""Objects, and refused resources, that are named in a span."""


@dataclass(slots=True)
class _Open:
    """A published change and the gateways that have not answered it."""

    generation: int
    root: Span
    waiting: dict[str, Span]


class Change:
    """One change on its way through the agent."""

    def __init__(self, tracer: Tracer, root: Span) -> None:
        self._tracer = tracer
        self.root = root
        self.context = set_span_in_context(root)
        self._part: Span | None = None

    def begin(self, name: str) -> None:
        """The next part of the work begins; the last one is over."""
        self.end_part()
        self._part = self._tracer.start_span(name, self.context)

    def end_part(self, **attributes: int | str) -> None:
        """The part is over; ``attributes`` are what came of it."""
        if self._part is not None:
            for name, value in attributes.items():
                self._part.set_attribute(name, value)
            self._part.end()
            self._part = None


class ChangeTraces:
    """The traces of one agent."""

    def __init__(self, tracer: Tracer, acks: Latest[AckView], cluster: ClusterId) -> None:
        self._tracer = tracer
        self._acks = acks
        self._cluster = cluster
        self._open: list[_Open] = []

    def __repr__(self) -> str:
        return f"ChangeTraces(open={len(self._open)})"

    def change(
        self,
        before: Mapping[ObjectKey, ApiObject] | None,
        after: Mapping[ObjectKey, ApiObject],
        *,
        objects_at_ns: int,
        federation_at_ns: int,
        revision: int,
    ) -> Change:
        """A change that is to be compiled; the times are when the newest of each came."""
        changed = _changed(before or {}, after)
        root = self._tracer.start_span(
            spans.OBJECT_CHANGE if changed else spans.FEDERATION_CHANGE,
            kind=SpanKind.INTERNAL,
            start_time=(objects_at_ns if changed else federation_at_ns) or time.time_ns(),
        )
        named = changed[:NAMED_MAX]
        root.set_attributes(
            {
                spans.CLUSTER: self._cluster,
                spans.REVISION: revision,
                spans.OBJECT_COUNT: len(changed),
                spans.OBJECTS: [str(key) for key in named],
                spans.GENERATIONS: [
                    after[key].metadata.generation if key in after else 0 for key in named
                ],
            }
        )
        return Change(self._tracer, root)

    def published(self, change: Change, generation: int) -> None:
        """The change is in force as ``generation``: what is left are the gateways' answers."""
        change.end_part(**{spans.SNAPSHOT: generation})
        change.root.set_attribute(spans.SNAPSHOT, generation)
        nodes = (self._acks.value or AckView()).nodes
        waiting = {
            node.node: self._tracer.start_span(
                spans.ACKNOWLEDGE,
                change.context,
                kind=SpanKind.CLIENT,
                attributes={spans.NODE: node.node, spans.NODE_KIND: node.kind},
            )
            for node in nodes
        }
        while len(self._open) >= OPEN_MAX:
            self._cut(self._open.pop(0))
        self._open.append(_Open(generation, change.root, waiting))
        self._look(self._acks.value or AckView())

    def unchanged(self, change: Change) -> None:
        """Nothing follows from the change for gateways."""
        change.end_part()
        change.root.end()

    async def run(self) -> None:
        """Note the gateways' answers, for ever."""
        async with aclosing(self._acks.changes()) as answers:
            async for acks in answers:
                self._look(acks)

    def _look(self, acks: AckView) -> None:
        nodes = {node.node: node for node in acks.nodes}
        for waiting in self._open:
            for name, span in list(waiting.waiting.items()):
                node = nodes.get(name)
                if node is None:
                    span.set_status(Status(StatusCode.ERROR, "the gateway has left"))
                elif node.generation >= waiting.generation:
                    _answered(span, node)
                else:
                    continue
                span.end()
                del waiting.waiting[name]
            if not waiting.waiting:
                waiting.root.end()
        self._open = [waiting for waiting in self._open if waiting.waiting]

    def _cut(self, waiting: _Open) -> None:
        for span in waiting.waiting.values():
            span.set_status(Status(StatusCode.ERROR, "no answer while many later changes came"))
            span.end()
        waiting.root.end()


def _answered(span: Span, node: NodeAcks) -> None:
    span.set_attribute(spans.SNAPSHOT, node.generation)
    if node.refused:
        refused = [f"{entry.kind} {entry.name}" for entry in node.refused[:NAMED_MAX]]
        span.set_attribute(spans.REFUSED, refused)
        span.set_status(Status(StatusCode.ERROR, node.refused[0].message))


def _changed(
    before: Mapping[ObjectKey, ApiObject], after: Mapping[ObjectKey, ApiObject]
) -> list[ObjectKey]:
    """Keys of what is new, different or gone, sorted."""
    different = {key for key, value in after.items() if before.get(key) is not value}
    return sorted(
        {key for key in different if before.get(key) != after[key]} | (before.keys() - after.keys())
    )
