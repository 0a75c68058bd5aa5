"""Whether the API server answers at all, asked apart from lists and watches.

Decides: how often it is asked, when it counts as away, and what difference of clocks is told.
Leaves to others: what is known meanwhile (``reflector``), who is told (``source``).
Invariants: changes nothing but what is shown: a server that does not answer takes nothing, and
nothing is ordered by a clock.

A watch may be silent for ``ReflectorSettings.silence_s`` and be well; this tells of a server that
froze, or of a network that swallows everything, within seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from federation.adapters.kubernetes.connection import Connection
from federation.ports import PortError
from federation.telemetry import catalogue, gauge

log = logging.getLogger(__name__)

SKEW_S = 5.0
"""A smaller difference of clocks is not told: the server tells whole seconds, and a slow answer
looks like a difference."""


@dataclass(frozen=True, slots=True)
class PulseSettings:
    """``every_s`` the server is asked; it is away when it does not answer in ``timeout_s``."""

    every_s: float = 3.0
    timeout_s: float = 5.0


class Pulse:
    """The loop, and what it found."""

    def __init__(
        self,
        connection: Connection,
        settings: PulseSettings,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._now = now
        self.away = ""
        self.skew_s = 0

    def __repr__(self) -> str:
        return f"Pulse({self.away or 'answers'}, skew={self.skew_s} s)"

    def problems(self) -> tuple[str, ...]:
        """What people should know; empty: the server answers, and tells our time."""
        found = (f"the API server does not answer: {self.away}",) if self.away else ()
        if not self.skew_s:
            return found
        way = "ahead of" if self.skew_s > 0 else "behind"
        skew = f"its clock is about {abs(self.skew_s)} s {way} ours; nothing is ordered by clocks"
        return (*found, skew)

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            began_s = self._now()
            try:
                told_s = await self._connection.server_time_s(timeout_s=self._settings.timeout_s)
            except PortError as error:
                if not self.away:
                    log.warning("the API server does not answer", extra={"reason": str(error)})
                self.away = str(error)
            else:
                if self.away:
                    log.info("the API server answers again")
                self.away = ""
                if told_s is not None:
                    self._compare(told_s, (began_s + self._now()) / 2)
            await asyncio.sleep(self._settings.every_s)

    def _compare(self, told_s: float, ours_s: float) -> None:
        # It tells the second that has begun: on average half a second less than it is.
        skew_s = round(told_s + 0.5 - ours_s)
        if abs(skew_s) < SKEW_S:
            skew_s = 0
        if (skew_s == 0) != (self.skew_s == 0):
            log.warning("the API server's clock and ours differ", extra={"skew_s": skew_s})
        self.skew_s = skew_s
        gauge(catalogue.CLOCK_SKEW, skew_s)
