"""The timeline: decisions from etcd's past and live, as many as are kept.

Decides: which stored values are looked at, when each decision was made as far as that is known, how
many are kept, which are folded into one entry.
Leaves to others: what a change means (``derive.timeline``), reading the past (the store).
Invariants: at most ``entries`` are kept, the oldest go first; an entry's id never changes; a time
that is not known is never made up: it is seen, stated by the value, estimated by the traffic
reports around it, or "before" we looked.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from federation.aio import Latest
from federation.derive.timeline import Kind, Line, folded, of_object, of_status, of_value
from federation.model.base import ClusterId, Value
from federation.model.drain import Drain, DrainState
from federation.model.objects import ObjectKey
from federation.model.resolved import ResolvedManifest
from federation.model.status import ObjectStatus
from federation.model.traffic_report import TrafficReport
from federation.ports import Changed, Changes, Clock, StoreHistory
from federation.wire.etcd import from_bytes, value_at
from federation.wire.etcd_keys import Keys

Json = dict[str, Any]

TOGETHER = 10
"""Services whose weights change in one revision are told one by one up to this many."""
STORY_REVISIONS = 2_000
"""An entry is gone on with only while this few revisions lie between."""
NOT_TOLD = frozenset({"EndpointSlice", "Event"})
"""Kinds of objects that change by themselves all the time."""


class TimeFrom(StrEnum):
    """How an entry's time is known."""

    SEEN = "seen"
    STATED = "stated"
    ESTIMATED = "estimated"
    BEFORE = "before"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line with its place in time. ``last_revision`` is that of what was folded in last."""

    id: str
    revision: int
    last_revision: int
    at: float
    time_from: TimeFrom
    line: Line

    def json(self) -> Json:
        """For the page."""
        line = self.line
        return {
            "id": self.id,
            "revision": self.revision,
            "lastRevision": self.last_revision,
            "at": self.at,
            "timeFrom": self.time_from.value,
            "kind": line.kind.value,
            "severity": "warning" if line.warning else "info",
            "actor": line.actor,
            "object": line.object,
            "cluster": line.cluster,
            "service": line.service,
            "what": line.what,
            "reason": line.reason,
            "detail": line.detail,
            "changes": [
                {"what": it.what, "before": it.before, "after": it.after} for it in line.changes
            ],
            "count": line.count,
        }


class Place(NamedTuple):
    """Where an entry stands: its revision, and its number in it. An id is both."""

    revision: int
    number: int

    @classmethod
    def of(cls, text: str) -> Place:
        """The place that an id tells. Raises ``ValueError``."""
        revision, _, number = text.partition(".")
        return cls(int(revision), int(number))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are asked for; empty fields ask for all. ``before`` need not be kept."""

    text: str = ""
    kind: Kind | None = None
    cluster: str = ""
    service: str = ""
    before: Place | None = None
    limit: int = 100


class Timeline:
    """Follows the store's changes; ``version`` grows with every entry."""

    def __init__(
        self, store: StoreHistory, keys: Keys, clock: Clock, *, revisions: int, entries: int
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._revisions = revisions
        self._entries_max = entries
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._stories: OrderedDict[str, str] = OrderedDict()
        self._resolver: str | None = None
        self._reported_at: float | None = None
        self._drained = 0
        self._since = 0
        self._taken = 0
        self._complete = True
        self.version: Latest[int] = Latest(0)

    def __repr__(self) -> str:
        return f"Timeline(entries={len(self._entries)})"

    async def run(self) -> None:
        """Follow for ever."""
        history = self._store.history(self._keys.prefix, revisions_max=self._revisions)
        async with aclosing(history) as batches:
            async for batch in batches:
                self._take(batch)

    def page(self, wanted: Wanted) -> Json:
        """The newest entries that are ``wanted``."""
        found: list[Json] = []
        next_id = None
        for entry in reversed(self._entries.values()):
            if _fits(entry, wanted):
                if len(found) == wanted.limit:
                    next_id = found[-1]["id"]
                    break
                found.append(entry.json())
        oldest = next(iter(self._entries.values()), None)
        return {
            "complete": self._complete,
            "sinceRevision": self._since,
            "sinceAt": oldest.at if oldest else None,
            "entries": found,
            "next": next_id,
        }

    def _take(self, batch: Changes) -> None:
        if batch.gap:
            self._complete = False
        if not self._since:
            self._since = batch.since
        by_revision: dict[int, list[Changed]] = {}
        for changed in batch.entries:
            if changed.revision > self._taken:  # after a failure the past is told again
                by_revision.setdefault(changed.revision, []).append(changed)
        news = False
        for revision, changes in by_revision.items():
            self._taken = revision  # before its values are read: none stops what follows
            lines = [line for changed in changes if (line := self._line(changed)) is not None]
            for number, line in enumerate(_together(lines)):
                self._add(revision, number, self._of_its_drain(line), past=batch.past)
                news = True
        if news:
            self.version.set((self.version.value or 0) + 1)

    def _line(self, changed: Changed) -> Line | None:
        keys = self._keys
        if changed.key.startswith(keys.traffic):
            self._note_time(changed)
            return None
        if changed.key.startswith(keys.state):
            before, after = self._values(changed)
            if isinstance(after, ResolvedManifest):
                self._resolver = after.resolver
            if _begins_or_ends(before, after):
                self._drained = changed.revision
            if not changed.known and not isinstance(after, Drain):
                return None  # what it was before is not known, so neither what was decided
            return of_value(before, after, resolver=self._resolver)
        for prefix in (keys.all_objects, keys.all_statuses):
            if changed.key.startswith(prefix):
                cluster = ClusterId(changed.key.removeprefix(prefix).partition("/")[0])
                key = keys.object_key(cluster, changed.key)
                if key is None or key.kind in NOT_TOLD or not changed.known:
                    return None
                told = _object_line if prefix == keys.all_objects else _status_line
                return told(key, cluster, changed)
        return None

    def _of_its_drain(self, line: Line) -> Line:
        """Weights that moved go on with each other only while the same drains are asked for.

        Their reason alone does not tell one drain from the next. Asked once all of a revision is
        read, as a drain and the weights that it moves may be written in one.
        """
        if line.kind is not Kind.RESOLUTION or not line.story:
            return line
        return replace(line, story=f"{line.story} since {self._drained}")

    def _values(self, changed: Changed) -> tuple[Value | None, Value | None]:
        before, after = (
            value_at(self._keys, changed.key, raw) if raw is not None else None
            for raw in (changed.before, changed.after)
        )
        return before, after

    def _note_time(self, changed: Changed) -> None:
        """Reports are written every few seconds and say when: a clock for the past."""
        if changed.after is None:
            return
        try:
            self._reported_at = from_bytes(TrafficReport, changed.after).at
        except ValueError:
            return  # somebody else's slip; times stay less exact

    def _add(self, revision: int, number: int, line: Line, *, past: bool) -> None:
        known = self._entries.get(self._stories.get(line.story, "")) if line.story else None
        if known is not None and revision - known.last_revision <= STORY_REVISIONS:
            line = folded(known.line, line)
            self._entries[known.id] = replace(known, last_revision=revision, line=line)
            return
        at, time_from = self._time(line, past=past)
        entry = Entry(f"{revision}.{number}", revision, revision, at, time_from, line)
        self._entries[entry.id] = entry
        if line.story:
            self._stories[line.story] = entry.id
            self._stories.move_to_end(line.story)
        while len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)
            self._complete = False
        while len(self._stories) > self._entries_max:
            self._stories.popitem(last=False)

    def _time(self, line: Line, *, past: bool) -> tuple[float, TimeFrom]:
        if not past:
            return self._clock.now(), TimeFrom.SEEN
        if line.stated_ms is not None:
            return line.stated_ms / 1000, TimeFrom.STATED
        if self._reported_at is not None:
            return self._reported_at, TimeFrom.ESTIMATED
        return self._clock.now(), TimeFrom.BEFORE


def _fits(entry: Entry, wanted: Wanted) -> bool:
    line = entry.line
    text = f"{line.object} {line.what} {line.actor or ''} {line.reason or ''} {line.detail}"
    return (
        (wanted.before is None or Place.of(entry.id) < wanted.before)
        and (wanted.kind is None or line.kind is wanted.kind)
        and (not wanted.cluster or line.cluster == wanted.cluster)
        and (not wanted.service or line.service == wanted.service)
        and (not wanted.text or wanted.text.lower() in text.lower())
    )


def _begins_or_ends(before: Value | None, after: Value | None) -> bool:
    """Whether a drain was asked for, changed, taken back, or started (perhaps anew) by this."""
    if isinstance(before, Drain) or isinstance(after, Drain):
        return True
    if not isinstance(after, DrainState):
        return False
    return not isinstance(before, DrainState) or before.started_at_ms != after.started_at_ms


def _together(lines: list[Line]) -> list[Line]:
    """One line for many services that the resolver moved at once."""
    moved = [line for line in lines if line.kind is Kind.RESOLUTION]
    if len(moved) <= TOGETHER:
        return lines
    first = moved[0]
    one = replace(
        first,
        object=f"{len(moved)} services",
        service=None,
        detail=f"first {first.service}: {first.detail}",
        count=len(moved),
        changes=(),
        story=f"resolution of many {first.reason or ''}",
    )
    return [*(line for line in lines if line.kind is not Kind.RESOLUTION), one]


def _object_line(key: ObjectKey, cluster: ClusterId, changed: Changed) -> Line | None:
    generation = (_generation(changed.before), _generation(changed.after))
    if changed.before is not None and changed.after is not None and generation[0] == generation[1]:
        return None  # metadata alone
    return of_object(key, cluster, generation=generation)


def _generation(raw: bytes | None) -> int | None:
    """An object's generation; 0 where it cannot be read, ``None`` where there is no object."""
    if raw is None:
        return None
    try:
        found = json.loads(raw)["metadata"]["generation"]
    except (ValueError, KeyError, TypeError):
        return 0
    return found if isinstance(found, int) else 0


def _status_line(key: ObjectKey, cluster: ClusterId, changed: Changed) -> Line | None:
    if changed.after is None:
        return None  # its object went, which has a line
    try:
        after = from_bytes(ObjectStatus, changed.after)
        before = from_bytes(ObjectStatus, changed.before) if changed.before else None
    except ValueError:
        return None
    return of_status(key, cluster, before, after)
