"""Whether objects that are missing at start are believed to be gone; pure.

Decides: what gateways go on with when the source shows far less than the last good state did. What
was seen in this process and is gone was deleted. What only the last good state on disk knows is
missing: a few objects may have been deleted while the agent was down, but a source that lost most
of them is likelier the wrong one (an empty folder, a wrong prefix). Routing then keeps the missing
objects until enough of them come back.
Leaves to others: published facts, which have their own guard (``derive.shrink``) and show the
quarantine to all.
Invariants: an object that the source shows is always used as shown; a deletion that was seen is
always believed, and so is an operator's word; holding the same again gives the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot

BELIEVED_LOSS_PERCENT = 50
"""Part of the last good objects that may be missing at start and is believed. Higher than for
exports, since endpoints come and go by themselves while an agent is down."""


@dataclass(frozen=True, slots=True)
class Shielded:
    """The objects to route by, and which of them the source does not show."""

    snapshot: ObjectSnapshot
    held: tuple[ObjectKey, ...] = ()


class Shield:
    """Remembers the last good objects and what was seen in this process."""

    def __init__(self, last_good: Mapping[ObjectKey, ApiObject]) -> None:
        self._unseen = dict(last_good)
        self._known = len(last_good)

    def __repr__(self) -> str:
        return f"Shield(unseen={len(self._unseen)}, known={self._known})"

    def accept(self) -> None:
        """An operator says that what is missing is meant to be gone."""
        self._unseen.clear()

    def cover(self, snapshot: ObjectSnapshot) -> Shielded:
        """``snapshot`` of the source with what is not believed to be gone."""
        for key in snapshot.objects:
            self._unseen.pop(key, None)
        missing = len(self._unseen)
        if not missing or (
            snapshot.objects and missing * 100 <= BELIEVED_LOSS_PERCENT * self._known
        ):
            self._unseen.clear()
            return Shielded(snapshot)
        objects = {**snapshot.objects, **self._unseen}
        return Shielded(replace(snapshot, objects=objects), tuple(sorted(self._unseen)))
