"""A prefix of etcd kept as one immutable listing: list, watch, resume, and distrust.

Decides: when the copy is right. ``_Mirror`` goes round one loop:

    list ──▶ watch ──▶ lost connection ──▶ look at the revision ──▶ resume the watch
      ▲        │                                     │ went back: keep waiting
      └────────┴── compacted, another etcd, or the comparison found lost events

Leaves to others: the calls (``connection``) and what the entries mean.
Invariants: nothing is yielded while etcd is away, and nothing older than what was yielded before; a
change reaches the reader with the first answer that carries it; a watch that gives no sign of life
within ``deaf_after_s`` is dropped; every ``relist_every_s`` the copy is compared with a list of the
same revision, since etcd has lost watch events before (etcd #17529, #18089, #19179).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

from aetcd import rpc

from federation.adapters.etcd.connection import Connection, Link, Message
from federation.adapters.etcd.listing import newest, read_listing
from federation.adapters.etcd.messages import entry_of, probe_request, watch_request
from federation.aio import Backoff, Latest, cancel_and_wait, retrying
from federation.ports import Entry, Listing, PortError, StoreUnavailable

log = logging.getLogger(__name__)

_NEED_LEADER = (("hasleader", "true"),)
"""Lets etcd end the watch when its member has lost the quorum, instead of going quiet."""

_STREAM_ENDED = (rpc.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError)
"""What gRPC raises when a stream is over; the last one when it was already, as we wrote to it."""


class _RelistNeededError(PortError):
    """The copy cannot be continued by a watch; the message says why."""


class _WentBackError(StoreUnavailable):
    """The store's revision is lower than what we have seen."""


async def mirror(connection: Connection, prefix: str) -> AsyncGenerator[Listing, None]:
    """Listings of ``prefix``, newest first to a slow reader, for ever."""
    copy = _Mirror(connection, prefix)
    task = asyncio.create_task(copy.run(), name=f"mirror {prefix}")
    task.add_done_callback(lambda _: copy.listings.close())
    try:
        async with aclosing(copy.listings.changes()) as listings:
            async for listing in listings:
                yield listing
        await task  # ended by itself: raises what ended it
    finally:
        await cancel_and_wait(task)


class _Mirror:
    """The copy and the task that keeps it."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._settings = connection.settings
        self._prefix = prefix
        self._entries: dict[str, Entry] = {}
        self._revision = 0
        self._cluster_id = 0
        self._trouble = ""
        self.listings: Latest[Listing] = Latest()

    def __repr__(self) -> str:
        return f"Mirror({self._prefix}, revision={self._revision}, keys={len(self._entries)})"

    async def run(self) -> None:
        """Keep the copy right for ever; ends only by cancellation or a refusal."""
        backoff = Backoff(first_s=0.05, max_s=self._settings.retry_wait_s_max)
        while True:
            await retrying(self._list, on=StoreUnavailable, backoff=backoff, before_wait=self._note)
            try:
                while True:
                    await retrying(
                        self._watch, on=StoreUnavailable, backoff=backoff, before_wait=self._note
                    )
            except _RelistNeededError as reason:
                log.info("listing anew", extra={"prefix": self._prefix, "reason": str(reason)})

    def _note(self, failure: Exception, _attempt: int, _wait_s: float) -> None:
        """One line when the trouble begins or changes, none for each try."""
        if type(failure).__name__ != self._trouble:
            self._trouble = type(failure).__name__
            log.warning(
                "store is away; keeping the last view",
                extra={"prefix": self._prefix, "revision": self._revision, "reason": str(failure)},
            )

    def _recovered(self) -> None:
        if self._trouble:
            self._trouble = ""
            log.info("store is back", extra={"prefix": self._prefix, "revision": self._revision})

    async def _list(self) -> None:
        found = await read_listing(self._connection, self._prefix)
        self._refuse_older(found.listing.revision)
        self._cluster_id = found.cluster_id
        self._entries = {entry.key: entry for entry in found.listing.entries}
        self._revision = found.listing.revision
        self._publish()
        self._recovered()

    def _refuse_older(self, revision: int) -> None:
        if revision < self._revision:
            raise _WentBackError(
                f"{self._connection.name} is at revision {revision}, older than {self._revision} "
                "seen before (restored from a backup?); restart this process to accept it"
            )

    def _publish(self) -> None:
        old = self.listings.value
        entries = tuple(self._entries[key] for key in sorted(self._entries))
        if old is None or old.entries != entries:
            self.listings.set(Listing(self._revision, entries))

    async def _watch(self) -> None:
        """Follow changes from our revision on until the stream ends."""
        revision, cluster_id = await newest(self._connection, self._prefix)
        self._refuse_older(revision)
        if cluster_id != self._cluster_id:
            raise _RelistNeededError("another etcd cluster answered")
        link = self._connection.link()
        call = link.watch(metadata=_NEED_LEADER)
        try:
            # From the revision that we have, not the next one: etcd 3.6 answers no probe of a watch
            # that begins in the future, so a store that nobody writes would look deaf. What comes
            # twice changes nothing.
            await self._timely(
                call.write(watch_request(self._prefix, start_revision=self._revision))
            )
            await self._follow(call, link)
        except _STREAM_ENDED as error:
            raise await self._connection.failure(link, error, f"watching {self._prefix}") from error
        finally:
            call.cancel()

    async def _follow(self, call: Message, link: Link) -> None:
        clock = asyncio.get_running_loop().time
        heard = compared = clock()
        reading = asyncio.ensure_future(call.read())
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=self._settings.probe_every_s)
                now = clock()
                if done:
                    heard = now
                    self._take(reading.result())
                    reading = asyncio.ensure_future(call.read())
                elif now - heard > self._settings.deaf_after_s:
                    await self._connection.distrust(link)
                    raise StoreUnavailable(
                        f"watching {self._prefix}: {self._connection.name} gave no sign of life "
                        f"for {self._settings.deaf_after_s:g} s"
                    )
                else:
                    await self._timely(call.write(probe_request()))
                if now - compared > self._settings.relist_every_s:
                    compared = now
                    await self._compare()
        finally:
            await cancel_and_wait(reading)

    def _take(self, answer: Message) -> None:
        """Apply one answer of the watch."""
        if not isinstance(answer, rpc.WatchResponse):
            raise StoreUnavailable(f"watching {self._prefix}: {self._connection.name} ended it")
        if answer.compact_revision:
            raise _RelistNeededError(f"revisions up to {answer.compact_revision} were compacted")
        if answer.canceled:
            raise StoreUnavailable(f"watching {self._prefix}: {answer.cancel_reason}")
        if answer.created:
            self._recovered()
        for event in answer.events:
            entry = entry_of(event.kv)
            if event.type == rpc.Event.DELETE:
                self._entries.pop(entry.key, None)
            else:
                self._entries[entry.key] = entry
            self._revision = max(self._revision, entry.mod_revision)
        if answer.events:
            self._publish()

    async def _compare(self) -> None:
        """Hold the copy against a list of the same revision; lost events show here."""
        revision = self._revision
        try:
            found = await read_listing(self._connection, self._prefix, revision=revision)
        except StoreUnavailable as error:
            if "compacted" in str(error):
                raise _RelistNeededError("the copy's revision was compacted") from error
            raise
        if self._entries != {entry.key: entry for entry in found.listing.entries}:
            log.error(
                "events were lost; listing anew",
                extra={"prefix": self._prefix, "revision": revision},
            )
            raise _RelistNeededError("the comparison found lost events")

    async def _timely(self, step: Awaitable[None]) -> None:
        # Not wait_for: before Python 3.12 it drops a cancellation that meets the step's end.
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await step
        except TimeoutError as error:
            raise StoreUnavailable(
                f"watching {self._prefix}: {self._connection.name} takes no requests"
            ) from error
