"""Tasks that are somebody's: restarted when they fail, ended when their owner ends.

Decides: what happens to a long-running loop that raises although it should not: it is reported and
started anew after a bounded wait. This is the one place where a broad ``except`` is right.
Leaves to others: expected failures (the loop handles those itself) and logging (a callback).
Invariants: cancellation always passes; a loop that returns is finished and not restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

LONGEST_WAIT_S = 5.0
"""Bound of the wait between two starts of a failing loop: a person may be watching."""

QUIET_AFTER_S = 30.0
"""A loop that ran this long before failing starts again with the shortest wait."""


async def supervised(
    name: str,
    loop: Callable[[], Awaitable[None]],
    *,
    on_failure: Callable[[str, Exception, float], None],
    fatal: tuple[type[Exception], ...] = (),
    first_wait_s: float = 0.1,
) -> None:
    """Run ``loop`` and start it again whenever it raises; returns when the loop returns.

    ``on_failure`` is told the name, the exception and the wait until the next start. Exceptions of
    the types ``fatal`` are not survived: they are raised.
    """
    clock = asyncio.get_running_loop().time
    wait_s = first_wait_s
    while True:
        started = clock()
        try:
            await loop()
        except fatal:
            raise
        except Exception as failure:  # noqa: BLE001 - a supervisor's purpose
            if clock() - started > QUIET_AFTER_S:
                wait_s = first_wait_s
            on_failure(name, failure, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        else:
            return


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` and wait until it has ended; its own outcome is dropped.

    Our own cancellation while waiting passes through.
    """
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
