"""The objects of one Kubernetes cluster as an ``ObjectSource``.

Decides: which kinds are read, that the first snapshot waits until each kind was listed or found not
to be served, how long changes are gathered; that a kind which only some clusters need is read from
when something asks for it, without anything waiting for it.
Leaves to others: single kinds (``reflector``), acting on objects.
Invariants: a snapshot holds each kind as of its own last event; kinds are not of one moment, as an
API server offers none; memory is one decoded object for each stored one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from federation.adapters.kubernetes.connection import Connection, Json
from federation.adapters.kubernetes.pulse import Pulse, PulseSettings
from federation.adapters.kubernetes.reflector import Reflector, ReflectorSettings
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot, RejectedObject
from federation.model.objects.registry import KINDS

PROBLEM_MAX = 240
"""Characters of a problem that go into a heartbeat."""


@dataclass(frozen=True, slots=True)
class KubernetesSourceSettings:
    """``kinds`` are read; changes that come within ``settle_s`` of each other go together.

    ``on_demand`` are read besides, from the first snapshot on that each one's predicate holds for.
    """

    kinds: tuple[type[ApiObject], ...] = KINDS
    on_demand: Mapping[type[ApiObject], Callable[[ObjectSnapshot], bool]] = field(
        default_factory=dict
    )
    reflector: ReflectorSettings = field(default_factory=ReflectorSettings)
    pulse: PulseSettings = field(default_factory=PulseSettings)
    settle_s: float = 0.02


class KubernetesSource:
    """Implements ``ports.ObjectSource`` on an API server."""

    def __init__(
        self,
        connection: Connection,
        settings: KubernetesSourceSettings | None = None,
        *,
        saw: Callable[[ObjectKey, Json], None] = lambda _key, _raw: None,
    ) -> None:
        """``saw`` is called with each object as the server shows it."""
        self._settings = settings or KubernetesSourceSettings()
        self._saw = saw
        self._connection = connection
        self._changed = asyncio.Event()
        self._changed_at_ns = 0
        self._reflectors = [self._reflector(kind) for kind in self._settings.kinds]
        self._asked: dict[type[ApiObject], Reflector] = {}
        self._pulse = Pulse(connection, self._settings.pulse)

    def __repr__(self) -> str:
        behind = len(self.problems())
        return f"KubernetesSource(kinds={len(self._reflectors)}, behind={behind})"

    def problems(self) -> dict[str, str]:
        """The kinds that may be out of date, with the reason; empty: all are current."""
        return {
            repr(reflector): reflector.state.problem
            for reflector in (*self._reflectors, *self._asked.values())
            if reflector.state.problem
        }

    def degraded(self) -> tuple[str, ...]:
        """``problems`` in few lines, kinds with the same trouble together; empty: all are current.

        Bounded by the number of kinds; each line is cut, since it travels in heartbeats.
        """
        by_reason: dict[str, list[str]] = {}
        for reflector in (*self._reflectors, *self._asked.values()):
            if problem := reflector.state.problem:
                by_reason.setdefault(_reason(problem), []).append(reflector.resource)
        lines = [
            f"{kinds[0]}{f' and {len(kinds) - 1} more kinds' if kinds[1:] else ''}: {reason}"
            for reason, kinds in by_reason.items()
        ]
        return tuple(
            f"kubernetes: {line[:PROBLEM_MAX]}" for line in (*self._pulse.problems(), *lines)
        )

    def accept_loss(self) -> None:
        """Believe the server where it was doubted."""
        for reflector in (*self._reflectors, *self._asked.values()):
            reflector.accept()

    async def snapshots(self) -> AsyncGenerator[ObjectSnapshot, None]:
        """Complete snapshots, the first once every kind is known."""
        tasks = [
            asyncio.create_task(reflector.run())
            for reflector in (*self._reflectors, *self._asked.values())
        ]
        tasks.append(asyncio.create_task(self._pulse.run()))
        try:
            last = ObjectSnapshot()
            while True:
                await self._change_or_end(tasks)
                self._changed.clear()
                changed_at_ns, self._changed_at_ns = self._changed_at_ns, 0
                if not all(reflector.state.synced for reflector in self._reflectors):
                    continue
                last = _snapshot((*self._reflectors, *self._asked.values()), last, changed_at_ns)
                yield last
                tasks.extend(asyncio.create_task(new.run()) for new in self._newly_asked(last))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _newly_asked(self, objects: ObjectSnapshot) -> Iterable[Reflector]:
        for kind, asked_for in self._settings.on_demand.items():
            if kind not in self._asked and asked_for(objects):
                self._asked[kind] = self._reflector(kind)
                yield self._asked[kind]

    def _reflector(self, kind: type[ApiObject]) -> Reflector:
        settings = self._settings.reflector
        return Reflector(self._connection, kind, settings, self._note_change, self._saw)

    def _note_change(self) -> None:
        self._changed_at_ns = self._changed_at_ns or time.time_ns()
        self._changed.set()

    async def _change_or_end(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Wait for a change and what comes with it; a reflector that ends is a bug and raises."""
        change = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait([change, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(self._settings.settle_s)
        finally:
            change.cancel()


def _snapshot(
    reflectors: Iterable[Reflector], last: ObjectSnapshot, changed_at_ns: int
) -> ObjectSnapshot:
    """What the reflectors know: ``last`` itself where nothing differs from it."""
    objects: dict[ObjectKey, ApiObject] = {}
    rejected: dict[ObjectKey | str, RejectedObject] = {}
    for reflector in reflectors:
        for key, stored in reflector.state.objects.items():
            if stored.good is not None:
                objects[key] = stored.good
            if stored.rejected is not None:
                rejected[key] = stored.rejected
    if last.synced and objects == last.objects and rejected == last.rejected:
        return last
    return ObjectSnapshot(
        objects, rejected, last.revision + 1, synced=True, changed_at_ns=changed_at_ns
    )


def _reason(problem: str) -> str:
    """A problem without what it was met at, which differs from kind to kind."""
    return problem.partition(": ")[2] if problem.startswith(("GET ", "watching ")) else problem
