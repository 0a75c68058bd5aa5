"""The system's clock."""

from __future__ import annotations

import time


class SystemClock:
    """``ports.Clock`` on the operating system."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()
