"""What an agent's process asks of Python's garbage collector and of the C library's allocator.

Decides: when what was loaded is put out of the collector's sight. An agent of a large cluster holds
millions of objects that live as long as the cluster's do; looking through them for cycles stops
everything for 0.3 s and more, again and again, and finds none: values are trees.
And where memory comes from: one arena, since compiling runs in whichever thread of a pool is free
and leaves its large tables in that thread's arena otherwise; and large pieces from the system, to
which they go back at once.
Leaves to others: everything else.
Invariants: memory without cycles is freed as ever, at once; what the collector no longer looks at
is what was there at the two moments below, so cycles lost among it are bounded by it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress

from federation.agent import Routing
from federation.aio import Latest, cancel_and_wait

THRESHOLDS = (50_000, 20, 100)
"""Of the collector's generations, instead of Python's (700, 10, 10), which are for small heaps."""

_ARENA_MAX, _MMAP_THRESHOLD = -8, -3
"""Parameters of mallopt(3)."""

LARGE_BYTES = 128 * 1024
"""What is taken from the system by itself: the C library's first choice, which setting it keeps it
from raising after each large piece that is freed."""

SETTLED_AFTER_S = 60.0
"""After its first publication an agent writes statuses and derived objects for a while."""


def keep_memory_together() -> None:
    """Call it before any thread has an arena of its own.

    Where the C library is none that takes these parameters, nothing is asked of it.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)


@asynccontextmanager
async def long_lived(routing: Latest[Routing]) -> AsyncGenerator[None, None]:
    """Keep what serves ``routing`` out of the collector's sight once it is there."""
    gc.set_threshold(*THRESHOLDS)
    task = asyncio.create_task(_settle(routing), name="garbage")
    try:
        yield
    finally:
        await cancel_and_wait(task)
        gc.unfreeze()


async def _settle(routing: Latest[Routing]) -> None:
    async with aclosing(routing.changes()) as routings:
        await anext(routings)
    gc.freeze()
    await asyncio.sleep(SETTLED_AFTER_S)
    gc.collect()
    gc.freeze()
