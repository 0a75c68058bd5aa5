"""The live traffic of all clusters, for those who show it: ``fedctl top`` and the console.

Decides: how old a report is (by this process's clock, from when it was seen to change), that the
last one of a cluster that has gone silent is kept for a while and says so, and when etcd is away.
Leaves to others: reading values (``wire.etcd_traffic``), showing them.
Invariants: what was read stays readable while etcd is away; what cannot be read hides no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from federation.aio import Latest
from federation.model.base import ClusterId
from federation.model.traffic_report import TrafficReport
from federation.ports import Clock, PortError, Store
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import TrafficReader, TrafficReading

log = logging.getLogger(__name__)

PROBE_EVERY_S = 2.0
"""How often etcd is asked whether it is there: a watch of it is silent when nothing changes."""

KEPT_S = 60.0
"""How long the last report of a cluster is shown after its agent took it back."""


@dataclass(frozen=True, slots=True)
class SeenReport:
    """A report and when it came, in seconds of the reader's monotonic clock.

    ``changed_at`` is when it was seen to change last; ``gone_at`` when its key went with its
    agent's lease, ``None`` while it is there. A report of idle gateways stays as it is, so age
    alone says nothing.
    """

    report: TrafficReport
    changed_at: float
    gone_at: float | None = None

    @property
    def stale(self) -> bool:
        """Whether nobody stands by it any more."""
        return self.gone_at is not None

    def age_s(self, now: float) -> float:
        """How long it has been like this at ``now``, by the reader's monotonic clock."""
        return max(0.0, now - self.changed_at)


@dataclass(frozen=True, slots=True)
class LiveTraffic:
    """What is known now. ``away`` says why etcd cannot be read, empty while it can."""

    clusters: Mapping[ClusterId, SeenReport] = field(default_factory=dict)
    away: str = ""
    problems: tuple[str, ...] = ()


class FederationTraffic:
    """Keeps ``latest`` at the newest reports while ``run`` runs."""

    def __init__(self, store: Store, keys: Keys, *, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._reader = TrafficReader(keys)
        self.latest: Latest[LiveTraffic] = Latest()

    def __repr__(self) -> str:
        known = self.latest.value or LiveTraffic()
        return f"FederationTraffic(clusters={len(known.clusters)}, away={known.away!r})"

    async def run(self) -> None:
        """Follow the reports for ever; no failure of etcd ends it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._probe())

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._store.mirror(self._keys.traffic)) as listings:
                    async for listing in listings:
                        self._take(self._reader.read(listing.entries))
            except PortError as failure:
                self._set_away(str(failure))
            await asyncio.sleep(PROBE_EVERY_S)

    async def _probe(self) -> None:
        while True:
            try:
                await self._store.get(self._keys.traffic)
            except PortError as failure:
                self._set_away(str(failure))
            else:
                self._set_away("")
            await asyncio.sleep(PROBE_EVERY_S)

    def _take(self, reading: TrafficReading) -> None:
        now, known = self._clock.monotonic(), self.latest.value or LiveTraffic()
        reports = reading.reports
        clusters = {
            cluster: seen if seen.stale else replace(seen, gone_at=now)
            for cluster, seen in known.clusters.items()
            if cluster not in reports and (seen.gone_at is None or now - seen.gone_at < KEPT_S)
        }
        for cluster, report in reports.items():
            before = known.clusters.get(cluster)
            same = before is not None and not before.stale and before.report == report
            clusters[cluster] = before if same and before else SeenReport(report, now)
        problems = tuple(map(str, reading.problems))
        self.latest.set(LiveTraffic(dict(sorted(clusters.items())), "", problems))

    def _set_away(self, why: str) -> None:
        known = self.latest.value
        if known is None and not why:
            return  # nothing was read yet: the first listing says what there is
        known = known or LiveTraffic()
        if why and not known.away:
            log.warning("live traffic cannot be read", extra={"why": why})
        self.latest.set(replace(known, away=why))
