"""When the last snapshots were published, so that one can say how far behind a gateway is.

Decides: how many are remembered.
Leaves to others: who answered what (``acks``), showing it (``observe``).
Invariants: memory is bounded.
"""

from __future__ import annotations

import time
from collections import deque

PUBLICATIONS_KEPT = 1024
"""Publications whose time is remembered; who is further behind is behind by the oldest."""


class Publications:
    """When the last generations were published."""

    def __init__(self) -> None:
        self._times: deque[tuple[int, float]] = deque(maxlen=PUBLICATIONS_KEPT)

    def note(self, generation: int) -> None:
        """A generation is served from now on; the same one again is no news."""
        if not self._times or self._times[-1][0] != generation:
            self._times.append((generation, time.time()))

    def behind_s(self, generation: int) -> float:
        """Since when one who answered ``generation`` owes an answer; 0: it owes none."""
        owed = next((at for number, at in self._times if number > generation), None)
        return max(time.time() - owed, 0.0) if owed is not None else 0.0
