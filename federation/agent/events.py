"""Tells people at the objects what happened to them.

Decides: when to look (statuses, shares or doubts have changed) and how much is told: at most
``PENDING_MAX`` events wait, and each object has a budget, so that one that flaps neither floods the
API server nor hides the others.
Leaves to others: what is an event (``derive.events``), keeping them (an ``EventSink``).
Invariants: events follow from live state only; what is dropped is logged once and costs nothing but
the telling; an API server that is away holds up nothing else.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import aclosing

from federation.agent.settings import AgentSettings
from federation.agent.state import ClusterObjects, FederationState
from federation.aio import Backoff, Latest, any_change, retrying
from federation.derive.events import Seen, derive_events
from federation.model.events import ObjectEvent
from federation.model.objects import ObjectKey
from federation.model.status import ObjectStatus
from federation.ports import Clock, EventSink, TemporaryError

log = logging.getLogger(__name__)

PENDING_MAX = 256
"""Events that wait for an API server; further ones are dropped."""

BURST = 10
"""Events that one object may have at once."""

REFILL_S = 30.0
"""Time in which an object may have one more."""

OBJECTS_MAX = 4096
"""Objects whose budgets are remembered; the one that was quiet longest is forgotten first."""

SETTLE_S = 0.2
"""Changes that come together are one look."""


class EventWriter:
    """The loop, and what it saw last."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        objects: Latest[ClusterObjects],
        federation: Latest[FederationState],
        statuses: Latest[Mapping[ObjectKey, ObjectStatus]],
        sink: EventSink,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._objects = objects
        self._federation = federation
        self._statuses = statuses
        self._sink = sink
        self._clock = clock
        self._seen: Seen | None = None
        self._pending: deque[ObjectEvent] = deque()
        self._budgets: OrderedDict[ObjectKey, tuple[float, float]] = OrderedDict()
        self._dropped = 0

    def __repr__(self) -> str:
        return f"EventWriter(pending={len(self._pending)}, dropped={self._dropped})"

    async def run(self) -> None:
        """Tell after every change, for ever."""
        cells = (self._statuses, self._federation)
        async with aclosing(any_change(*cells, settle_s=SETTLE_S)) as changes:
            async for _ in changes:
                self._look()
                await retrying(
                    self._tell,
                    on=TemporaryError,
                    backoff=Backoff(max_s=5.0),
                    before_wait=self._note,
                )

    def _look(self) -> None:
        objects, federation = self._objects.value, self._federation.value
        statuses = self._statuses.value
        if objects is None or federation is None or statuses is None:
            return
        if not (objects.live and federation.live):
            return
        cluster, region = self._settings.cluster, self._settings.region
        manifest = federation.view.manifests.get(cluster)
        now = Seen(
            objects=objects.shown,
            statuses=statuses,
            sources={
                service: source
                for service, entry in federation.view.resolved.items()
                if (source := entry.source(region)) is not None
            },
            exports=federation.view.exports,
            quarantine=manifest.quarantine if manifest is not None else None,
        )
        for event in derive_events(self._seen, now, cluster=cluster):
            if self._affordable(event.regarding.key) and len(self._pending) < PENDING_MAX:
                self._pending.append(event)
            else:
                self._drop(event)
        self._seen = now

    def _affordable(self, key: ObjectKey) -> bool:
        now = self._clock.monotonic()
        left, since = self._budgets.pop(key, (float(BURST), now))
        left = min(float(BURST), left + (now - since) / REFILL_S)
        self._budgets[key] = (left - 1 if left >= 1 else left, now)
        if len(self._budgets) > OBJECTS_MAX:
            self._budgets.popitem(last=False)
        return left >= 1

    async def _tell(self) -> None:
        while self._pending:
            await self._sink.write(self._pending[0])
            self._pending.popleft()

    def _drop(self, event: ObjectEvent) -> None:
        self._dropped += 1
        log.info(
            "an event is not told: too many",
            extra={"regarding": str(event.regarding.key), "note": event.note},
        )

    def _note(self, failure: Exception, attempt: int, _wait_s: float) -> None:
        if attempt == 1:
            log.warning("events are not written", extra={"reason": str(failure)})
