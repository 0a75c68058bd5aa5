"""Which loops of an agent run when: those that write, only while it leads.

Decides: that loops are started anew when they fail; that the loops that write begin with each term,
knowing nothing of earlier ones, and have ended before the lead is given back.
Leaves to others: who leads (a ``Seat``), what the loops do (siblings).
Invariants: without a seat the agent is alone and leads for ever; losing the lead ends the writing
loops and nothing else; a name that is another cluster's ends the agent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from federation.agent.claim import NameTakenError, OvertakenError
from federation.aio import Latest, cancel_and_wait, supervised
from federation.ports import Seat, Term
from federation.telemetry import catalogue, gauge

log = logging.getLogger(__name__)

Loop = Callable[[], Awaitable[None]]

ALONE = ""
"""Name of the term of an agent that has no colleagues."""


class Leader:
    """Runs the loops that write while this agent leads; ``leading`` says whether it does."""

    def __init__(self, seat: Seat | None, *, loops: Callable[[str], Mapping[str, Loop]]) -> None:
        """``loops`` makes the writing loops of a term, by its name (``ALONE`` without a seat)."""
        self._seat = seat
        self._make = loops
        self.leading: Latest[bool] = Latest(initial=False)

    def __repr__(self) -> str:
        return f"Leader({'leading' if self.leading.value else 'standing by'})"

    async def run(self) -> None:
        """Lead whenever it is our turn, for ever. Raises ``NameTakenError``."""
        if self._seat is None:
            self._lead(leading=True)
            await run_loops(self._make(ALONE))
            return
        while True:
            async with self._seat.campaign() as term:
                log.info("this agent leads", extra={"term": term.name})
                self._lead(leading=True)
                try:
                    await self._until_over(term)
                finally:
                    self._lead(leading=False)
            log.info("this agent stands by")

    def _lead(self, *, leading: bool) -> None:
        self.leading.set(leading)
        gauge(catalogue.AGENT_LEADING, float(leading))

    async def _until_over(self, term: Term) -> None:
        lost = asyncio.create_task(term.lost(), name="term")
        work = asyncio.create_task(run_loops(self._make(term.name)), name="leader's loops")
        try:
            await asyncio.wait({lost, work}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        except OvertakenError as error:
            log.warning("another agent leads", extra={"reason": str(error)})
        finally:
            await cancel_and_wait(work)
            await cancel_and_wait(lost)


async def run_loops(loops: Mapping[str, Loop]) -> None:
    """Run ``loops`` for ever, each started anew when it fails.

    Raises ``NameTakenError`` or ``OvertakenError`` when one of them does.
    """
    fatal = (NameTakenError, OvertakenError)
    try:
        async with asyncio.TaskGroup() as group:
            for name, loop in loops.items():
                work = supervised(name, loop, on_failure=_report, fatal=fatal)
                group.create_task(work, name=name)
    except ExceptionGroup as group:
        for kind in (NameTakenError, OvertakenError):
            if (refused := group.subgroup(kind)) is not None:
                raise _first(refused) from None
        raise


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """A single one of what several loops found at the same time."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found


def _report(name: str, failure: Exception, wait_s: float) -> None:
    log.error(
        "a loop of the agent failed and starts again",
        extra={"loop": name, "wait_s": wait_s},
        exc_info=failure,
    )
