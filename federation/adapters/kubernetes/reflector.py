"""All objects of one kind, kept current by list and watch.

Decides: when to list and when to go on watching, how long to wait after a failure, what a kind
that is not served (any more) means, what becomes of an object that cannot be read.
Leaves to others: requests (``connection``), putting kinds together (``source``), what is believed
of a server that went back (``doubts``).
Invariants: what is known stays until the server says otherwise: a server that is away, slow or
refuses takes nothing, nor does a kind that is served no more (objects whose deletion was seen have
gone before); a watch goes on from the last version seen and is never trusted to be alive without a
sign (the server is asked to end it every ``watch_s`` seconds, silence beyond that is a failure, and
one that ends without an event or a bookmark may be of a server that has never been at that
version: it is asked which one it is at, and the kind is listed anew if that is older); an object
that cannot be read keeps its last good version.

    absent ──served──▶ listing ──listed──▶ watching ──ended──▶ watching
       ▲                  ▲                   │
       └──── not found ───┴── 410, failed, ───┘
                              went back
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import ValidationError

from federation.adapters.kubernetes.connection import (
    Connection,
    Json,
    ResourceAbsent,
    ResourceExpired,
)
from federation.adapters.kubernetes.doubts import Doubts, is_older
from federation.adapters.kubernetes.resources import (
    Resource,
    find_resource,
    key_of,
    pages,
)
from federation.model.base import slimmed
from federation.model.objects import ApiObject, ObjectKey, ParentReference, RejectedObject
from federation.model.objects.registry import plural
from federation.ports import PortError
from federation.telemetry import catalogue, count, gauge, stamp
from federation.wire.manifests import Rejected, Skipped, decode_value

log = logging.getLogger(__name__)


READ_AT_ONCE = 50
"""Objects of a list that are read before others have a turn: some 20 ms."""


@dataclass(frozen=True, slots=True)
class ReflectorSettings:
    """Times of one kind's list and watch, in seconds, and the size of a page.

    ``watch_s``: the server ends a watch after so long, and it is taken up again where it ended;
    ``silence_s``: more than ``watch_s``, a watch that has said nothing for so long is dead;
    ``absent_s``: how often a kind that is not served is looked for; ``backoff_s_max``: the longest
    wait after a failure, ``backoff_s_first`` the shortest between two tries.
    """

    page_size: int = 500
    watch_s: int = 15
    silence_s: float = 20.0
    absent_s: float = 3.0
    backoff_s_first: float = 0.2
    backoff_s_max: float = 10.0


@dataclass(frozen=True, slots=True)
class Stored:
    """One object: its last good version, and why the newest one is not good."""

    version: str
    good: ApiObject | None = None
    rejected: RejectedObject | None = None


@dataclass(slots=True)
class Reflection:
    """What is known of one kind. ``failure`` is why it may be out of date; empty: it is current."""

    objects: dict[ObjectKey, Stored] = field(default_factory=dict)
    synced: bool = False
    served: bool = False
    failure: str = ""
    doubts: Doubts = field(default_factory=Doubts)

    @property
    def problem(self) -> str:
        """Why what is known may not be what is there; empty: it is."""
        return self.failure or self.doubts.reason


class Reflector:
    """Keeps ``state`` current; ``changed`` is called after each change of it, ``saw`` with each
    object as the server shows it."""

    def __init__(
        self,
        connection: Connection,
        kind: type[ApiObject],
        settings: ReflectorSettings,
        changed: Callable[[], None],
        saw: Callable[[ObjectKey, Json], None] = lambda _key, _raw: None,
    ) -> None:
        self._connection = connection
        self._saw = saw
        self._kind = kind
        self._settings = settings
        self._changed = changed
        self._version = ""
        self.state = Reflection()
        self._tell_current()

    def __repr__(self) -> str:
        state = self.state
        how = state.problem or ("current" if state.served else "not served")
        return f"Reflector({self._kind.KIND}, objects={len(state.objects)}, {how})"

    @property
    def resource(self) -> str:
        """The kind's name for people, as kubectl takes it."""
        return f"{plural(self._kind)}.{self._kind.GROUP}".rstrip(".")

    def _tell_current(self, *, heard: bool = False) -> None:
        kind = self._kind.KIND
        current = self.state.synced and not self.state.problem
        gauge(catalogue.WATCH_CURRENT, float(current), kind)
        if heard:
            stamp(catalogue.WATCH_HEARD, kind)

    def accept(self) -> None:
        """Believe the server: an operator says that what is missing is meant to be gone."""
        state = self.state
        if not state.served and state.objects:
            self.state = Reflection(synced=True)
            self._changed()
        elif state.doubts.reason:
            objects = state.doubts.settled(state.objects)
            self.state = replace(state, objects=objects, doubts=Doubts())
            self._changed()

    async def run(self) -> None:
        """List and watch for ever."""
        failures = 0
        while True:
            try:
                resource = await find_resource(self._connection, self._kind)
                if resource is None:
                    self._absent()
                    failures = 0
                    await asyncio.sleep(self._settings.absent_s)
                    continue
                await self._list(resource)
                failures = 0
                heard = True
                while heard or await self._is_continued(resource):
                    heard = await self._watch(resource)
                    await self._pause()
                    # A kind that gains a version that we like better is read in that one.
                    if resource.version != self._kind.VERSIONS[0]:
                        break
            except ResourceExpired as error:
                log.info("listing anew", extra={"kind": self._kind.KIND, "reason": str(error)})
                await self._pause()
            except ResourceAbsent:
                await self._pause()
            except PortError as error:
                self._failed(error)
                count(catalogue.WATCH_FAILURES, self._kind.KIND)
                failures += 1
                await asyncio.sleep(self._wait_s(failures))

    async def _pause(self) -> None:
        """Between two tries that are no failure, so that a server which ends watches at once, or
        still names a kind that it serves no more, is not asked without end."""
        await asyncio.sleep(self._settings.backoff_s_first)

    def _wait_s(self, failures: int) -> float:
        settings = self._settings
        longest = min(settings.backoff_s_first * 2.0 ** min(failures, 16), settings.backoff_s_max)
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing

    def _absent(self) -> None:
        """Note that the kind is not served (now); what is known of it stays."""
        state, kind = self.state, self._kind.KIND
        why = ""
        if state.objects:
            why = f"the kind is served no more; its {len(state.objects)} objects stay as they were"
        if state.synced and not state.served and state.failure == why:
            return
        if why:
            log.warning("objects may be out of date", extra={"kind": kind, "reason": why})
        elif not state.synced or state.served:
            log.info("kind is not served", extra={"kind": kind})
        self.state = replace(state, synced=True, served=False, failure=why)
        self._tell_current()
        self._changed()

    def _failed(self, error: PortError) -> None:
        if not self.state.failure:
            log.warning(
                "objects may be out of date",
                extra={"kind": self._kind.KIND, "reason": str(error)},
            )
        if self.state.failure != str(error):
            self.state.failure = str(error)
            self._tell_current()
            self._changed()

    def _succeeded(self) -> None:
        if self.state.failure:
            log.info("objects are current again", extra={"kind": self._kind.KIND})
            self.state.failure = ""
            self._changed()
        self._tell_current(heard=True)

    async def _list(self, resource: Resource) -> None:
        """List everything; what is watched next comes after it."""
        known, version = self.state.objects, ""
        found: dict[ObjectKey, Stored] = {}
        listed = pages(
            self._connection, resource, resource.query, page_size=self._settings.page_size
        )
        async with aclosing(listed):
            async for page in listed:
                version = page.version
                for place, raw in enumerate(page.items, start=1):
                    key = resource.key_of(raw)
                    found[key] = self._read(raw, known.get(key))
                    self._saw(key, raw)
                    if place % READ_AT_ONCE == 0:
                        await asyncio.sleep(0)  # others' heartbeats come before our thousands
        before = self.state.doubts
        doubts = before.after_list(known, found, before=self._version, now=version)
        if doubts.reason and doubts.reason != before.reason:
            log.error(
                "the API server is not believed",
                extra={"kind": self._kind.KIND, "reason": doubts.reason},
            )
        if self.state.failure:
            log.info("objects are current again", extra={"kind": self._kind.KIND})
        objects = found | {key: known[key] for key in doubts.said}
        self.state = Reflection(objects, synced=True, served=True, doubts=doubts)
        self._version = version
        count(catalogue.LISTS, self._kind.KIND)
        self._tell_current(heard=True)
        self._changed()

    async def _watch(self, resource: Resource) -> bool:
        """Follow changes until the server ends the watch; whether it has said anything."""
        settings = self._settings
        query = [
            *resource.query,
            ("resourceVersion", self._version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(settings.watch_s)),
        ]
        events = self._connection.watch(resource.path, query, silence_s=settings.silence_s)
        heard = False
        async with aclosing(events):
            async for event in events:
                self._version = self._take(event) or self._version
                heard = True
        self._succeeded()
        return heard

    async def _is_continued(self, resource: Resource) -> bool:
        """Whether the server, which has said nothing, is at our version or a later one.

        A kind in which nothing happens gets no bookmark in a watch this short, and may have
        thousands of objects: they are listed anew only if the server has gone back.
        """
        page = await self._connection.get(resource.path, [*resource.query, ("limit", "1")])
        return not is_older(str(page.get("metadata", {}).get("resourceVersion", "")), self._version)

    def _take(self, event: Json) -> str:
        """Act on one event; returns the version that it brings us to."""
        raw = event.get("object", {})
        version = str(raw.get("metadata", {}).get("resourceVersion", ""))
        kind = event.get("type")
        self._succeeded()
        if kind == "BOOKMARK":
            return version
        state = self.state
        key = key_of(self._kind, raw)
        before = state.objects.get(key)
        if kind == "DELETED":
            state.objects.pop(key, None)
            after = None
        else:
            after = state.objects[key] = self._read(raw, before)
            self._saw(key, raw)
        if state.doubts.reason:
            state.doubts = state.doubts.without(key)
        if not _alike(before, after):
            self._changed()
        return version

    def _read(self, raw: Json, known: Stored | None) -> Stored:
        version = str(raw.get("metadata", {}).get("resourceVersion", ""))
        if known is not None and known.version == version:
            return known
        origin = self._connection.server
        decoded = decode_value(raw, origin=origin, unknown_fields="ignore")
        good = known.good if known is not None else None
        if isinstance(decoded, ApiObject):
            # Nothing rests on the version, and much is written that we do not read (statuses, a
            # node's heartbeats): what says the same stays the same, so that nothing follows.
            told = decoded.with_metadata(resource_version=None)
            placed = told.with_creation_order(_created_s(told.metadata.creation_timestamp))
            return Stored(version, good if placed == good else slimmed(placed))
        if isinstance(decoded, Skipped):
            return Stored(version)
        return Stored(version, good, _rejected(decoded, raw, origin, kept=good is not None))


def _alike(before: Stored | None, after: Stored | None) -> bool:
    if before is None or after is None:
        return before is after
    return before.good is after.good and before.rejected == after.rejected


def _rejected(decoded: Rejected, raw: Json, origin: str, *, kept: bool) -> RejectedObject:
    stays = "; its last good version stays" if kept else ""
    metadata = raw.get("metadata", {})
    return RejectedObject(
        origin,
        f"{decoded.message}{stays}",
        generation=int(metadata.get("generation", 0)),
        uid=metadata.get("uid"),
        parents=tuple(_parents(raw)),
        why="; ".join(
            str(replace(problem, origin="", line=0, column=0, object=""))
            for problem in decoded.problems
        ),
    )


def _parents(raw: Json) -> Iterator[ParentReference]:
    """The parents that a route names, as far as they can be read."""
    spec = raw.get("spec")
    named = spec.get("parentRefs") if isinstance(spec, dict) else None
    for entry in named if isinstance(named, list) else ():
        with suppress(ValidationError):
            yield ParentReference.model_validate(entry)


def _created_s(timestamp: str | None) -> int:
    """Age as the Gateway API counts it: whole seconds; equal ones go by namespace and name."""
    if not timestamp:
        return 0
    return int(datetime.fromisoformat(timestamp).timestamp())
