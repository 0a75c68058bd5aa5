"""A cell that holds the newest value of something, for one writer and any number of readers.

Decides: how readers wait for news. A reader that is slow skips to the newest value; nothing queues,
so the memory is one value whatever the rates are.
Leaves to others: what the value means; values must be immutable, since readers share them.
Invariants: an equal value is not news; a reader never sees the same version twice; after ``close``
readers get the last value they had not seen and then end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """The newest value and a way to wait for the next one."""

    def __init__(self, initial: T | None = None) -> None:
        self._value = initial
        self._version = 0 if initial is None else 1
        self._closed = False
        self._changed_at_ns = time.time_ns()
        self._news = asyncio.Event()
        self._listeners: set[asyncio.Event] = set()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"Latest(version={self._version}, {state})"

    @property
    def value(self) -> T | None:
        """The newest value; ``None`` before the first."""
        return self._value

    @property
    def version(self) -> int:
        """How many different values there were."""
        return self._version

    @property
    def changed_at_ns(self) -> int:
        """When the newest value came, in Unix nanoseconds; for display alone."""
        return self._changed_at_ns

    def set(self, value: T) -> bool:
        """Publish ``value``; says whether it was news (it differs from the last one)."""
        if self._closed:
            return False
        if self._version and (value is self._value or value == self._value):
            return False
        self._value = value
        self._version += 1
        self._changed_at_ns = time.time_ns()
        self._announce()
        return True

    def close(self) -> None:
        """End all readers once they have seen the newest value."""
        self._closed = True
        self._announce()

    async def changes(self) -> AsyncGenerator[T, None]:
        """The newest value, and again after every change; ends when the cell is closed."""
        seen = 0
        while True:
            if self._version > seen:
                seen = self._version
                assert self._value is not None
                yield self._value
                continue
            if self._closed:
                return
            news = self._news
            await news.wait()

    def subscribe(self, event: asyncio.Event) -> None:
        """Set ``event`` at every change, until ``unsubscribe``."""
        self._listeners.add(event)

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Leave ``event`` alone from now on."""
        self._listeners.discard(event)

    def _announce(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
        for listener in self._listeners:
            listener.set()


async def any_change(*cells: Latest[Any], settle_s: float = 0.0) -> AsyncGenerator[None, None]:
    """Yield once now, and once after changes of any of ``cells``; never ends.

    ``settle_s`` is how long to wait after a change for others that belong to it.
    """
    changed = asyncio.Event()
    for cell in cells:
        cell.subscribe(changed)
    try:
        while True:
            changed.clear()
            yield
            await changed.wait()
            if settle_s:
                await asyncio.sleep(settle_s)
    finally:
        for cell in cells:
            cell.unsubscribe(changed)
