"""The live document in motion: made anew at most once a tick, sent to all streams as patches.

Decides: when a document is made, the numbering of documents, what one stream is sent, when a stream
is told to reload.
Leaves to others: the document (``document``), HTTP (``events``).
Invariants: every stream sees the same documents in the same order; a document is compared once,
however many streams there are; a stream that reads too slowly costs ``queue`` events and no more.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from federation.aio import Latest, any_change
from federation.console.document import Json, live_document, merge_patch
from federation.console.services import ServiceIndex, Services
from federation.console.settings import Limits
from federation.console.state import Now

TOO_SLOW = "this page read too slowly and missed changes; it reloads"


@dataclass(frozen=True, slots=True)
class Made:
    """A document with its number, and what it was made of."""

    number: int
    document: Json
    now: Now
    services: Services


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream; ``last`` ends it."""

    name: str
    data: str
    id: str = ""
    last: bool = False

    def encode(self) -> bytes:
        """As ``text/event-stream`` has it; data is JSON on one line."""
        head = f"id: {self.id}\n" if self.id else ""
        return f"{head}event: {self.name}\ndata: {self.data}\n\n".encode()


class Stream:
    """What waits for one client."""

    def __init__(self, size: int) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue(size)
        self._ending: Event | None = None

    def put(self, event: Event) -> None:
        """Let ``event`` wait; a full queue gives way to the word that it was too slow."""
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self.end(TOO_SLOW)

    def end(self, reason: str) -> None:
        """Tell the client to reload; what still waits is dropped."""
        while not self._events.empty():
            self._events.get_nowait()
        self._ending = Event("reload", encoded({"reason": reason}), last=True)
        self._events.put_nowait(self._ending)

    async def next(self) -> Event:
        """The next event."""
        return await self._events.get()


class Live:
    """Makes documents from ``now`` and hands them to streams."""

    def __init__(
        self,
        now: Latest[Now],
        limits: Limits,
        *,
        others: tuple[tuple[str, Latest[int]], ...] = (),
    ) -> None:
        """``others`` are numbers of lists that are not made of ``now``, by name."""
        self._now = now
        self._limits = limits
        self._others = others
        self._index = ServiceIndex()
        self._epoch = secrets.token_hex(4)
        self._kept: OrderedDict[int, Json] = OrderedDict()
        self._streams: dict[Stream, str] = {}
        self._versions: dict[str, int] = {"services": 0, "exports": 0, "gateways": 0}
        self.made: Latest[Made] = Latest()

    def __repr__(self) -> str:
        return f"Live(documents={self.made.version}, streams={len(self._streams)})"

    @property
    def streams(self) -> int:
        """How many clients follow."""
        return len(self._streams)

    async def run(self) -> None:
        """Make documents for ever, at most one a tick."""
        cells: list[Latest[Any]] = [self._now, *(cell for _, cell in self._others)]
        async with aclosing(any_change(*cells, settle_s=self._limits.tick_s)) as changes:
            async for _ in changes:
                if (now := self._now.value) is not None:
                    self._make(now)

    def join(self, last_id: str, who: str = "") -> Stream | None:
        """A stream that goes on after event ``last_id``; ``None``: there are too many, of all or of
        ``who`` (empty: not counted)."""
        if len(self._streams) >= self._limits.clients:
            return None
        if who and list(self._streams.values()).count(who) >= self._limits.clients_each:
            return None
        stream = Stream(self._limits.queue)
        self._streams[stream] = who
        made = self.made.value
        if made is not None:
            stream.put(self._first(made, last_id))
        return stream

    def leave(self, stream: Stream) -> None:
        """Forget ``stream``."""
        self._streams.pop(stream, None)

    def end(self, reason: str) -> None:
        """Tell all streams to reload."""
        for stream in self._streams:
            stream.end(reason)

    def _first(self, made: Made, last_id: str) -> Event:
        epoch, _, number = last_id.partition("-")
        known = self._kept.get(int(number)) if number.isdecimal() else None
        if epoch == self._epoch and known is not None:
            return self._event("patch", made.number, merge_patch(known, made.document))
        return self._event("snapshot", made.number, made.document)

    def _make(self, now: Now) -> None:
        before = self.made.value
        if before is not None and before.now.view is now.view:
            services = before.services
        else:
            services = self._index.read(now.view)
        self._count(before, now, services)
        versions = self._versions | {name: cell.value or 0 for name, cell in self._others}
        document = live_document(now, services, versions)
        if before is not None and before.document == document:
            return
        number = before.number + 1 if before is not None else 1
        made = Made(number, document, now, services)
        self.made.set(made)
        self._kept[number] = document
        while len(self._kept) > self._limits.kept_documents:
            self._kept.popitem(last=False)
        event = (
            self._event("snapshot", number, document)
            if before is None
            else self._event("patch", number, merge_patch(before.document, document))
        )
        for stream in self._streams:
            stream.put(event)

    def _count(self, before: Made | None, now: Now, services: Services) -> None:
        """Which lists look different now."""
        old = before.now if before is not None else None
        view = now.view
        changed = {
            "services": old is None
            or (
                services is not (before.services if before else None)
                and (view.resolved != old.view.resolved or view.exports != old.view.exports)
            )
            or now.traffic != old.traffic,
            "exports": old is None
            or (view.exports is not old.view.exports and view.exports != old.view.exports)
            or now.statuses != old.statuses,
            "gateways": old is None
            or now.traffic != old.traffic
            or view.gateways != old.view.gateways
            or view.heartbeats.keys() != old.view.heartbeats.keys(),
        }
        for name, news in changed.items():
            self._versions[name] += news

    def _event(self, name: str, number: int, data: Json) -> Event:
        return Event(name, encoded(data), f"{self._epoch}-{number}")


def encoded(data: Json) -> str:
    """JSON on one line."""
    return json.dumps(data, separators=(",", ":"))
