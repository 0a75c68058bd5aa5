"""How many streams drains have still to wait for, from what all clusters report of their traffic.

Decides: how often a count changes (every ``EVERY_S`` at most, since each change is written and
every agent reads it), that a drain has no count before reports can tell of it, and that the last
count holds while reports cannot be read.
Leaves to others: counting (``derive.traffic``), writing (``resolver.step``).
Invariants: counts are shown and nothing else: no drain waits for them, and no failure here keeps
the resolver from its work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing

from federation.derive.traffic import streams_left
from federation.model.drain import DrainState
from federation.model.traffic_report import TrafficReport
from federation.ports import PortError, Store
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import TrafficReader

log = logging.getLogger(__name__)

EVERY_S = 2.0
SETTLED_S = 6.0
"""A drain that is new has no count for so long: gateways report every 2 s, agents write every 2 s,
and what was open before the last reports but one must not read as "none left"."""

REFUSED_WAIT_S = 30.0
"""Wait before reports are asked for again after a refusal (the right may be missing)."""


class DrainStreams:
    """Counts streams for one leader; ``run`` keeps the reports."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._reports: tuple[TrafficReport, ...] | None = None
        self._counts: dict[str, int | None] = {}
        self._counted_at: float | None = None
        self._seen_at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"DrainStreams(clusters={len(self._reports or ())}, drains={len(self._counts)})"

    async def run(self) -> None:
        """Follow the reports for ever; returns when the store is closed."""
        reader = TrafficReader(self._keys)
        while True:
            try:
                async with aclosing(self._store.mirror(self._keys.traffic)) as listings:
                    async for listing in listings:
                        self._reports = tuple(reader.read(listing.entries).reports.values())
            except PortError as failure:
                log.warning("streams of drains are not counted", extra={"reason": str(failure)})
                await asyncio.sleep(REFUSED_WAIT_S)
            else:
                return

    def counted(self, states: Mapping[str, DrainState]) -> dict[str, DrainState]:
        """``states`` with their counts: those in force, or new ones when it is time."""
        if self._reports is not None and self._is_time(states):
            self._counts = self._count(states, self._reports)
            self._seen_at = {name: at for name, at in self._seen_at.items() if name in self._counts}
            self._counted_at = asyncio.get_running_loop().time()
        return {name: self._with_count(name, state) for name, state in states.items()}

    def moved(self, states: Mapping[str, DrainState]) -> bool:
        """Whether a count is other than in ``states`` by now, and it is time to say so."""
        if self._reports is None or not self._is_time(states):
            return False
        counts = self._count(states, self._reports)
        return any(counts.get(name) != state.streams_left for name, state in states.items())

    def _is_time(self, states: Mapping[str, DrainState]) -> bool:
        if self._counted_at is None or any(
            _holds(states[n]) for n in states if n not in self._counts
        ):
            return True
        return asyncio.get_running_loop().time() - self._counted_at >= EVERY_S

    def _count(
        self, states: Mapping[str, DrainState], reports: tuple[TrafficReport, ...]
    ) -> dict[str, int | None]:
        return {
            name: streams_left(state.spec, reports) if self._is_told_of(name, state) else None
            for name, state in states.items()
            if _holds(state)
        }

    def _is_told_of(self, name: str, state: DrainState) -> bool:
        """Whether reports were made since the drain is known; a count of an earlier resolver says
        that they were."""
        now = asyncio.get_running_loop().time()
        since = now - self._seen_at.setdefault(name, now)
        return state.streams_left is not None or since >= SETTLED_S

    def _with_count(self, name: str, state: DrainState) -> DrainState:
        left = self._counts.get(name) if self._reports is not None else state.streams_left
        if not _holds(state):
            left = None
        return (
            state if left == state.streams_left else state.model_copy(update={"streams_left": left})
        )


def _holds(state: DrainState) -> bool:
    return not (state.idle or state.returning)
