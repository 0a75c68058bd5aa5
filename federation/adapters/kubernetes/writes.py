"""Many writes at once, bounded, of which one that fails stops no other.

Decides: how many are under way, and what their failures are together.
Leaves to others: what is written (``statuses``, ``derived``).
Invariants: every write is tried once; what was refused is told and not raised, since it fails the
same way next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from federation.adapters.kubernetes.connection import ApiServerRefused
from federation.ports import PortError, TemporaryError
from federation.telemetry import catalogue, count

log = logging.getLogger(__name__)

WRITES_MAX = 8
"""Requests under way at once: an API server's share for one client is bounded too."""


Write = Callable[[], Awaitable[None]]
"""Begins a write; what was never begun leaves nothing behind."""


async def all_written(writes: Sequence[Write], *, what: str, noun: str, plural: str) -> bool:
    """Do all ``writes``; false when some were refused, which are of no use again as they are.

    They are counted as ``what``, and named ``noun`` and ``plural`` to people.

    Raises ``TemporaryError`` when some may succeed later.
    """
    room = asyncio.Semaphore(WRITES_MAX)
    failures: list[PortError] = []

    async def one(write: Write) -> None:
        async with room:
            try:
                await write()
            except PortError as error:
                failures.append(error)
                refused = isinstance(error, ApiServerRefused)
                count(catalogue.WRITES, what, "refused" if refused else "failed")
            else:
                count(catalogue.WRITES, what, "ok")

    async with asyncio.TaskGroup() as group:
        for write in writes:
            group.create_task(one(write))
    for error in failures:
        if isinstance(error, ApiServerRefused):
            log.warning("%s was refused", noun, extra={"reason": str(error)})
    temporary = [error for error in failures if isinstance(error, TemporaryError)]
    if temporary:
        raise TemporaryError(
            f"{len(temporary)} of {len(writes)} {plural} were not written: {temporary[0]}"
        ) from temporary[0]
    return not failures
