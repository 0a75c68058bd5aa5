"""What an agent's process asks of Python's garbage collector.

Decides: when what was loaded is put out of the collector's sight. An agent of a large cluster holds
millions of objects that live as long as the cluster's do; looking through them for cycles stops
everything for 0.3 s and more, again and again, and finds none: values are trees.
Leaves to others: everything else.
Invariants: memory without cycles is freed as ever, at once; what the collector no longer looks at
is what was there at the two moments below, so cycles lost among it are bounded by it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from federation.agent import Routing
from federation.aio import Latest, cancel_and_wait

THRESHOLDS = (50_000, 20, 100)
"""Of the collector's generations, instead of Python's (700, 10, 10), which are for small heaps."""

SETTLED_AFTER_S = 60.0
"""After its first publication an agent writes statuses and derived objects for a while."""


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
