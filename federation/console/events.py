"""Server-sent events: one stream for each open page.

Decides: the form of a stream, its beats, when it ends.
Leaves to others: what is sent (``live``), who may read (``guard``).
Invariants: a client that takes no bytes for ``write_s`` loses its connection; a stream ends with
the word of who reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from federation.console.answers import RefusalError
from federation.console.live import Event, Live, encoded
from federation.console.settings import Limits

RETRY_MS = 1_000
SIGNED_OUT = "your sign-in has ended; sign in again"


async def stream_events(
    request: web.Request,
    live: Live,
    limits: Limits,
    *,
    now: Callable[[], float],
    who: str,
    may_read: Callable[[], bool],
) -> web.StreamResponse:
    """Serve one stream until the client goes, is too slow, or may not read any more."""
    last_id = request.headers.get("Last-Event-ID") or request.query.get("lastEventId", "")
    stream = live.join(last_id[:64], who)
    if stream is None:
        raise RefusalError(
            503,
            "busy",
            f"{limits.clients} pages follow this console already, or {limits.clients_each} of "
            "yours; close one, or try again later",
            headers={"Retry-After": "10"},
        )
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    response = web.StreamResponse(headers=headers)
    try:
        await response.prepare(request)
        await _write(request, response, f"retry: {RETRY_MS}\n\n".encode(), limits)
        while True:
            try:
                async with asyncio.timeout(limits.beat_s):
                    event = await stream.next()
            except TimeoutError:
                event = Event("beat", encoded({"at": now()}))
            if not may_read():
                event = Event("reload", encoded({"reason": SIGNED_OUT}), last=True)
            await _write(request, response, event.encode(), limits)
            if event.last:
                return response
    except (TimeoutError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()
        return response
    finally:
        live.leave(stream)


async def _write(
    request: web.Request, response: web.StreamResponse, data: bytes, limits: Limits
) -> None:
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the client has gone")
    async with asyncio.timeout(limits.write_s):
        await response.write(data)
