"""All objects of one kind, kept current by list and watch.

Decides: when to list and when to go on watching, how long to wait after a failure, what a kind that
is not served (any more) means, what becomes of an object that cannot be read.
Leaves to others: requests (``connection``), putting kinds together (``source``).
Invariants: what is known stays until the server says otherwise: a server that is away, slow or
refuses takes nothing; a watch goes on from the last version seen and is never trusted to be alive
without a sign (the server is asked to end it every ``watch_s`` seconds, and silence beyond that is
a failure); an object that cannot be read keeps its last good version.

    absent ──served──▶ listing ──listed──▶ watching ──ended──▶ watching
       ▲                  ▲                   │
       └──── not found ───┴──── 410, failed ──┘
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from federation.adapters.kubernetes.connection import (
    Connection,
    Json,
    ResourceAbsent,
    ResourceExpired,
)
from federation.adapters.kubernetes.resources import (
    Resource,
    find_resource,
    key_of,
    pages,
)
from federation.model.objects import ApiObject, ObjectKey, RejectedObject
from federation.ports import PortError
from federation.wire.manifests import Rejected, Skipped, decode_value

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReflectorSettings:
    """Times of one kind's list and watch, in seconds, and the size of a page.

    ``watch_s``: the server ends a watch after so long, and it is taken up again where it ended;
    ``silence_s``: more than ``watch_s``, a watch that has said nothing for so long is dead;
    ``absent_s``: how often a kind that is not served is looked for; ``backoff_s_max``: the longest
    wait after a failure, ``backoff_s_first`` the shortest between two tries.
    """

    page_size: int = 500
    watch_s: int = 30
    silence_s: float = 40.0
    absent_s: float = 3.0
    backoff_s_first: float = 0.2
    backoff_s_max: float = 10.0


@dataclass(slots=True)
class _Stored:
    """One object: its last good version, and why the newest one is not good."""

    version: str
    good: ApiObject | None = None
    rejected: RejectedObject | None = None


@dataclass(slots=True)
class Reflection:
    """What is known of one kind. ``problem`` is why it may be out of date; empty: it is current."""

    objects: dict[ObjectKey, _Stored] = field(default_factory=dict)
    synced: bool = False
    served: bool = False
    problem: str = ""


class Reflector:
    """Keeps ``state`` current; ``changed`` is called after each change of it."""

    def __init__(
        self,
        connection: Connection,
        kind: type[ApiObject],
        settings: ReflectorSettings,
        changed: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._settings = settings
        self._changed = changed
        self.state = Reflection()

    def __repr__(self) -> str:
        state = self.state
        how = state.problem or ("current" if state.served else "not served")
        return f"Reflector({self._kind.KIND}, objects={len(state.objects)}, {how})"

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
                version = await self._list(resource)
                failures = 0
                while True:
                    version = await self._watch(resource, version)
                    await self._pause()
            except ResourceExpired as error:
                log.info("listing anew", extra={"kind": self._kind.KIND, "reason": str(error)})
                await self._pause()
            except ResourceAbsent:
                await self._pause()
            except PortError as error:
                self._failed(error)
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
        state = self.state
        if state.served or not state.synced:
            log.info("kind is not served", extra={"kind": self._kind.KIND})
            self.state = Reflection(synced=True)
            self._changed()

    def _failed(self, error: PortError) -> None:
        if not self.state.problem:
            log.warning(
                "objects may be out of date",
                extra={"kind": self._kind.KIND, "reason": str(error)},
            )
        if self.state.problem != str(error):
            self.state.problem = str(error)
            self._changed()

    async def _list(self, resource: Resource) -> str:
        """List everything; returns the version to watch from."""
        known, version = self.state.objects, ""
        found: dict[ObjectKey, _Stored] = {}
        listed = pages(
            self._connection, resource, resource.query, page_size=self._settings.page_size
        )
        async with aclosing(listed):
            async for page in listed:
                version = page.version
                for raw in page.items:
                    key = resource.key_of(raw)
                    found[key] = self._read(raw, known.get(key))
        self.state = Reflection(found, synced=True, served=True)
        self._changed()
        return version

    async def _watch(self, resource: Resource, version: str) -> str:
        """Follow changes after ``version`` until the server ends it; returns where to go on."""
        settings = self._settings
        query = [
            *resource.query,
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(settings.watch_s)),
        ]
        events = self._connection.watch(resource.path, query, silence_s=settings.silence_s)
        async with aclosing(events):
            async for event in events:
                version = self._take(event) or version
        if self.state.problem:
            self.state.problem = ""
            self._changed()
        return version

    def _take(self, event: Json) -> str:
        """Act on one event; returns the version that it brings us to."""
        raw = event.get("object", {})
        version = str(raw.get("metadata", {}).get("resourceVersion", ""))
        kind = event.get("type")
        if kind == "BOOKMARK":
            return version
        key = key_of(self._kind, raw)
        before = self.state.objects.get(key)
        if kind == "DELETED":
            self.state.objects.pop(key, None)
            after = None
        else:
            after = self.state.objects[key] = self._read(raw, before)
        if self.state.problem or not _alike(before, after):
            self.state.problem = ""
            self._changed()
        return version

    def _read(self, raw: Json, known: _Stored | None) -> _Stored:
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
            return _Stored(version, good if placed == good else placed)
        if isinstance(decoded, Skipped):
            return _Stored(version)
        return _Stored(version, good, _rejected(decoded, origin, kept=good is not None))


def _alike(before: _Stored | None, after: _Stored | None) -> bool:
    if before is None or after is None:
        return before is after
    return before.good is after.good and before.rejected == after.rejected


def _rejected(decoded: Rejected, origin: str, *, kept: bool) -> RejectedObject:
    stays = "; its last good version stays" if kept else ""
    return RejectedObject(origin, f"{decoded.message}{stays}")


def _created_s(timestamp: str | None) -> int:
    """Age as the Gateway API counts it: whole seconds; equal ones go by namespace and name."""
    if not timestamp:
        return 0
    return int(datetime.fromisoformat(timestamp).timestamp())
