"""Live calls for people who watch: one tap in the core, shared by who watch with the same filter.

Decides: that one filter is in force at a time (the core draws calls for it; a second one would have
to be merged into it, and would change what the first is shown), how much waits for a slow watcher,
and that the tap ends when the last watcher goes.
Leaves to others: which calls are drawn and what is told of them (the core), HTTP (``admin``).
Invariants: bounded: ``WATCHERS_MAX`` watchers with ``WAITING_MAX`` lines each; what did not fit is
counted and told; with nobody watching the core taps nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

log = logging.getLogger("gateway.tap")

WATCHERS_MAX = 8
WAITING_MAX = 2048
"""Lines that wait for one watcher; the core itself holds 1,024."""

POLL_S = 0.1
TAKEN_MAX = 1024
SIGN_EVERY_S = 2.0
"""How often a watcher is told what was left out, or sent an empty line: so that one who has gone is
noticed although nothing is called."""

WRITE_S = 30.0
"""A reader who takes nothing for so long has stalled: the filter is given to others."""


class TapRefused(Exception):  # noqa: N818 - reads as a fact where it is caught
    """This filter cannot be had now; the message says why and what to do."""


class Tapped(Protocol):
    """The core as a tap needs it."""

    def set_tap(self, filter: bytes | None) -> None:  # noqa: A002
        """Show calls that fit; raises ``ValueError``."""
        ...

    def take_tap(self, max: int) -> bytes:  # noqa: A002
        """Take lines that wait."""
        ...


@dataclass(eq=False, slots=True)
class _Watcher:
    lines: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(WAITING_MAX))
    left_out: int = 0


class Taps:
    """All watchers of one gateway."""

    def __init__(self, core: Tapped, stats: Callable[[], Mapping[str, Any]]) -> None:
        self._core = core
        self._stats = stats
        self._filter: bytes | None = None
        self._watchers: set[_Watcher] = set()
        self._pump: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Taps({len(self._watchers)} watch)"

    async def watch(self, wanted: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """Lines of JSON until the caller closes this or the core fails; the first one is empty: it
        is on.

        Each is a call, ``{"left_out": N}`` for calls that were not told, or empty.
        Raises ``TapRefused``.
        """
        watcher = self._join(json.dumps(wanted, sort_keys=True).encode())
        try:
            yield b"\n"
            while True:
                line: bytes | None = b"\n"
                with suppress(TimeoutError):
                    async with asyncio.timeout(SIGN_EVERY_S):
                        line = await watcher.lines.get()
                if line is None:
                    return
                yield line
                if watcher.left_out and watcher.lines.empty():
                    yield json.dumps({"left_out": watcher.left_out}).encode() + b"\n"
                    watcher.left_out = 0
        finally:
            self._leave(watcher)

    def _join(self, wanted: bytes) -> _Watcher:
        if self._filter not in (None, wanted):
            raise TapRefused(
                f"another tap is on, with the filter {(self._filter or b'').decode()}; ask for the "
                "same, or wait until it ends"
            )
        if len(self._watchers) >= WATCHERS_MAX:
            raise TapRefused(f"{WATCHERS_MAX} watch already; wait until one ends")
        if self._filter is None:
            try:
                self._core.set_tap(wanted)
            except ValueError as error:
                raise TapRefused(str(error)) from error
            self._filter = wanted
            self._pump = asyncio.create_task(self._deliver(), name="tap")
            self._pump.add_done_callback(self._ended)
        watcher = _Watcher()
        self._watchers.add(watcher)
        return watcher

    def _leave(self, watcher: _Watcher) -> None:
        self._watchers.discard(watcher)
        if not self._watchers and self._pump is not None:
            self._pump.cancel()
            self._pump = self._filter = None
            self._core.set_tap(None)

    def _ended(self, pump: asyncio.Task[None]) -> None:
        """Nothing comes any more: end all who watch, so that the next one begins anew."""
        if pump.cancelled():
            return
        log.error("the tap ended", exc_info=pump.exception())
        if pump is not self._pump:
            return  # all have left, and others may watch already
        gone, self._watchers = self._watchers, set()
        self._pump = self._filter = None
        for watcher in gone:
            if watcher.lines.full():
                watcher.lines.get_nowait()
            watcher.lines.put_nowait(None)
        self._core.set_tap(None)

    async def _deliver(self) -> None:
        """Give each line to each watcher; a full one is told how many it missed."""
        dropped = self._dropped()
        due_s = asyncio.get_running_loop().time() + SIGN_EVERY_S
        while True:
            for line in self._core.take_tap(TAKEN_MAX).splitlines(keepends=True):
                for watcher in self._watchers:
                    try:
                        watcher.lines.put_nowait(line)
                    except asyncio.QueueFull:
                        watcher.left_out += 1
            if asyncio.get_running_loop().time() >= due_s:
                due_s += SIGN_EVERY_S  # counters of a large gateway take milliseconds to add up
                before, dropped = dropped, self._dropped()
                for watcher in self._watchers:
                    watcher.left_out += dropped - before
            await asyncio.sleep(POLL_S)

    def _dropped(self) -> int:
        """Lines that the core itself had no place for, since it started."""
        return int(self._stats().get("tap", {}).get("dropped", 0))


async def write_lines(lines: AsyncGenerator[bytes, None], write: Callable[[bytes], Any]) -> None:
    """Write lines until the reader has gone, or has stalled for ``WRITE_S``."""
    with suppress(ConnectionError, TimeoutError):
        async with aclosing(lines):
            async for line in lines:
                async with asyncio.timeout(WRITE_S):
                    await write(line)
