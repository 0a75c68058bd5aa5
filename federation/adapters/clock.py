"""The clock of this machine."""

from __future__ import annotations

import time


class SystemClock:
    """Implements ``ports.Clock``."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()
