"""Statuses of ours that somebody else has changed: which, and when they may be written again.

Decides: what counts as damage (something that we wrote is not there as we wrote it; what others add
beside it is not), and the pace of repairs: at once the first time, then after waits that double for
an object that is damaged again and again, so that two writers who disagree make no storm.
Leaves to others: writing (``statuses``), seeing (``reflector``).
Invariants: bounded by the objects that we have written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from federation.model.objects import ObjectKey

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
CALM_S = 300.0
"""An object that was left alone for so long is repaired at once again."""


@dataclass(frozen=True, slots=True)
class _Repaired:
    at_s: float
    wait_s: float


class Repairs:
    """The damaged objects, and when each may be written."""

    def __init__(self) -> None:
        self._damaged: set[ObjectKey] = set()
        self._repaired: dict[ObjectKey, _Repaired] = {}

    def __repr__(self) -> str:
        return f"Repairs(damaged={len(self._damaged)})"

    def damaged(self, key: ObjectKey) -> bool:
        """Note it; whether it is news."""
        news = key not in self._damaged
        self._damaged.add(key)
        return news

    def mended(self, key: ObjectKey) -> None:
        """It is as it should be."""
        self._damaged.discard(key)

    def due(self, now_s: float) -> list[ObjectKey]:
        """The objects that may be written now."""
        return sorted(key for key in self._damaged if self._due_at_s(key) <= now_s)

    def next_s(self) -> float | None:
        """When the next object may be written; ``None``: none is damaged."""
        return min((self._due_at_s(key) for key in self._damaged), default=None)

    def repaired(self, key: ObjectKey, now_s: float) -> None:
        """It was written again."""
        self._damaged.discard(key)
        before = self._repaired.get(key)
        calm = before is None or now_s - before.at_s > CALM_S
        wait_s = FIRST_WAIT_S if before is None or calm else before.wait_s * 2
        self._repaired[key] = _Repaired(now_s, min(wait_s, LONGEST_WAIT_S))

    def forget(self, known: Iterable[ObjectKey] = ()) -> None:
        """Keep only what is about ``known``."""
        kept = set(known)
        self._damaged &= kept
        self._repaired = {key: was for key, was in self._repaired.items() if key in kept}

    def _due_at_s(self, key: ObjectKey) -> float:
        before = self._repaired.get(key)
        return before.at_s + before.wait_s if before is not None else 0.0


def holds(stored: Any, wanted: Any) -> bool:
    """Whether all of ``wanted`` is in ``stored``, whatever else is there beside it."""
    if isinstance(wanted, Mapping):
        return isinstance(stored, Mapping) and all(
            name in stored and holds(stored[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(stored, list) and all(
            any(holds(entry, value) for entry in stored) for value in wanted
        )
    return bool(stored == wanted)
