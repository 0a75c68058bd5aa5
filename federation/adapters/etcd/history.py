"""What has changed below a prefix, change by change, from as far back as etcd remembers.

Decides: where the past begins (after the last compaction, or ``revisions_max`` back), and how it
goes on after a lost connection.
Leaves to others: the newest state (``mirror``), what changes mean.
Invariants: every change is told once and in order, except those that were compacted away while the
connection was lost: then ``Changes.gap`` says so; memory is one answer of the watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from aetcd import rpc

from federation.adapters.etcd.connection import Connection, Message
from federation.adapters.etcd.listing import newest
from federation.adapters.etcd.messages import watch_request
from federation.aio import cancel_and_wait
from federation.ports import Changed, Changes, StoreUnavailable

SILENT_S = 3.0
"""Silence after which it is looked whether the store has moved on without us."""

_STREAM_ENDED = (rpc.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError)


async def history(
    connection: Connection, prefix: str, *, revisions_max: int
) -> AsyncGenerator[Changes, None]:
    """Changes below ``prefix``, the past first, for ever."""
    start, now, gap = 0, 0, False
    while True:
        try:
            now, _ = await newest(connection, prefix)
            if not start:
                start = max(1, now - revisions_max)
                gap = start > 1
            link = connection.link()
            call = link.watch()
            try:
                request = watch_request(prefix, start_revision=start, prev_kv=True)
                await call.write(request)
                async for answer in _answers(connection, call, prefix):
                    if answer.compact_revision:
                        start, gap = answer.compact_revision, True
                        break
                    found = tuple(
                        _changed(event) for event in answer.events if event.kv.mod_revision >= start
                    )
                    # Not the header's: that of the first answer is ahead of the past to come.
                    seen = max((it.revision for it in found), default=start - 1)
                    yield Changes(seen, found, past=seen <= now, gap=gap, since=start)
                    gap = False
                    start = seen + 1
            except _STREAM_ENDED as error:
                failure = await connection.failure(link, error, f"reading the past of {prefix}")
                raise failure from error
            finally:
                call.cancel()
        except StoreUnavailable:
            await asyncio.sleep(connection.settings.retry_wait_s_max)


async def _answers(
    connection: Connection, call: Message, prefix: str
) -> AsyncGenerator[Message, None]:
    """Answers until the store has moved on and the watch is silent."""
    seen = 0
    reading = asyncio.ensure_future(call.read())
    try:
        while True:
            done, _ = await asyncio.wait({reading}, timeout=SILENT_S)
            if not done:
                # A lost event, a dead connection, or writes elsewhere: a new watch costs little.
                revision, _ = await newest(connection, prefix)
                if revision > seen:
                    return
                continue
            answer = reading.result()
            if not isinstance(answer, rpc.WatchResponse):
                return
            seen = answer.header.revision
            if answer.compact_revision or answer.events or not answer.canceled:
                yield answer
            if answer.canceled:
                return
            reading = asyncio.ensure_future(call.read())
    finally:
        await cancel_and_wait(reading)


def _changed(event: Message) -> Changed:
    deleted = event.type == rpc.Event.DELETE
    before = event.prev_kv.value if event.prev_kv.mod_revision else None
    return Changed(
        key=event.kv.key.decode(errors="replace"),  # a stranger's slip below the prefix
        revision=event.kv.mod_revision,
        before=before,
        after=None if deleted else event.kv.value,
        known=event.prev_kv.mod_revision > 0 or event.kv.version == 1,
    )
