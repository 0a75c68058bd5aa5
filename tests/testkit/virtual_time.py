"""An event loop whose time jumps to the next timer instead of passing.

Whole seconds of heartbeats, leases and back-off cost microseconds, and the order of events depends
on nothing outside. Work given to threads runs at once on the loop: time stands still for it.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Never waits: what would have been waited is added to the loop's time."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if not events and timeout is None:
            raise RuntimeError("deadlock: nothing is scheduled and nothing can happen")
        if not events and timeout is not None and timeout > 0:
            self.loop.advance(timeout)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at time 0."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._virtual_now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual_now

    def advance(self, seconds: float) -> None:
        self._virtual_now += seconds

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        outcome = self.create_future()
        try:
            outcome.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to who awaits it
            outcome.set_exception(error)
        return outcome


class LoopClock:
    """``ports.Clock`` on the running loop's time."""

    def now(self) -> float:
        return 1_000_000_000 + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()
