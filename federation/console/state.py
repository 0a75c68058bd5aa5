"""The federation as the console knows it now: followed, never polled, served on when etcd is away.

Decides: what is followed (the view, who leads, traffic reports, stored statuses), how often it is
read anew, and how it is noticed that etcd is away.
Leaves to others: what people are shown of it (``document``, ``lists``), decisions in time
(``history``).
Invariants: one task writes ``now``; what is shown while etcd is away is the last that was read,
with its time; the same view object is kept as long as nothing in it changes.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from federation.aio import Latest, any_change
from federation.derive.explain_status import LeaderStatus
from federation.model.base import ClusterId
from federation.model.traffic_report import TrafficReport
from federation.model.view import FederationView
from federation.operations.view import leader_of
from federation.ports import Clock, Entry, Listing, PortError, Store
from federation.wire.etcd import ViewReader
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import TrafficReader

PROBE_S = 1.0
"""Time between two questions whether etcd is there."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether etcd answers, since when (Unix seconds), and if not, why."""

    reachable: bool
    since: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Now:
    """Everything known. ``at`` is when the view was read (Unix seconds), 0 before the first time.

    ``traffic_seen`` is when each cluster's report came in, by our clock. ``statuses`` are stored
    entries by key, read when somebody looks at them.
    """

    reach: Reach
    at: float = 0.0
    view: FederationView = field(default_factory=FederationView)
    leader: LeaderStatus | None = None
    traffic: dict[ClusterId, TrafficReport] = field(default_factory=dict)
    traffic_seen: dict[ClusterId, float] = field(default_factory=dict)
    statuses: dict[str, Entry] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Followed:
    """Follows the store; ``now`` has the newest ``Now``."""

    def __init__(self, store: Store, keys: Keys, clock: Clock, *, settle_s: float) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._settle_s = settle_s
        self._state: Latest[Listing] = Latest()
        self._elections: Latest[Listing] = Latest()
        self._traffic: Latest[Listing] = Latest()
        self._statuses: Latest[Listing] = Latest()
        self._reach: Latest[Reach] = Latest(Reach(reachable=True, since=clock.now()))
        self._views = ViewReader(keys, now=clock.now)
        self._reports = TrafficReader(keys)
        self.now: Latest[Now] = Latest()

    def __repr__(self) -> str:
        now = self.now.value
        return f"Followed(revision={now.view.revision if now else None})"

    @property
    def ready(self) -> bool:
        """Whether the federation was read once."""
        now = self.now.value
        return now is not None and now.at > 0

    async def run(self) -> None:
        """Follow for ever. Raises ``StoreRefused`` when we have no right to read."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mirror(self._keys.state, self._state))
            tasks.create_task(self._mirror(f"{self._keys.resolver_election}/", self._elections))
            tasks.create_task(self._mirror(self._keys.traffic, self._traffic))
            tasks.create_task(self._mirror(self._keys.all_statuses, self._statuses))
            tasks.create_task(self._probe())
            tasks.create_task(self._gather())

    async def _mirror(self, prefix: str, into: Latest[Listing]) -> None:
        async with aclosing(self._store.mirror(prefix)) as listings:
            async for listing in listings:
                into.set(listing)

    async def _probe(self) -> None:
        """A mirror is silent while the store is away, and also while nothing happens."""
        while True:
            reason = ""
            try:
                await self._store.get(self._keys.resolved_manifest)
            except PortError as error:
                reason = str(error)
            before = self._reach.value
            if before is None or before.reachable is bool(reason):
                self._reach.set(Reach(not reason, self._clock.now(), reason))
            await asyncio.sleep(PROBE_S)

    async def _gather(self) -> None:
        cells = (self._state, self._elections, self._traffic, self._statuses, self._reach)
        async with aclosing(any_change(*cells, settle_s=self._settle_s)) as changes:
            async for _ in changes:
                self.now.set(self._read())

    def _read(self) -> Now:
        reach = self._reach.value
        assert reach is not None  # set from the start
        before = self.now.value or Now(reach)
        now = replace(before, reach=reach)
        if (state := self._state.value) is not None and (
            now.at == 0.0 or state.revision != before.view.revision
        ):
            reading = self._views.read(state.revision, state.entries)
            problems = tuple(map(str, reading.problems))
            now = replace(now, view=reading.view, problems=problems, at=self._clock.now())
        if (elections := self._elections.value) is not None:
            now = replace(now, leader=leader_of(elections.entries))
        if (statuses := self._statuses.value) is not None:
            now = replace(now, statuses={entry.key: entry for entry in statuses.entries})
        if (traffic := self._traffic.value) is not None:
            reports = dict(self._reports.read(traffic.entries).reports)
            at = self._clock.now()
            seen = {
                cluster: before.traffic_seen.get(cluster, at)
                if before.traffic.get(cluster) == report
                else at
                for cluster, report in reports.items()
            }
            now = replace(now, traffic=reports, traffic_seen=seen)
        return now
