"""``last_transition_time``: when a condition's status really changed.

Decides: which stored condition a new one continues: the same type at the same place (object,
listener, parent and controller, ancestor and controller).
Leaves to others: the time (given), where statuses are stored (the sinks).
Invariants: a condition whose status is as before keeps its time, whatever else about it changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from federation.model.conditions import Condition
from federation.model.status import AncestorStatus, ListenerStatus, ObjectStatus, ParentStatus

Times = Mapping[tuple[str, str], tuple[str, str | None]]
"""By place and type: the status and since when."""


def with_times(status: ObjectStatus, old: ObjectStatus | None, now: str) -> ObjectStatus:
    """``status`` with the times of ``old`` where nothing changed, else ``now``."""
    known = _known(old) if old is not None else {}

    def timed(place: str, conditions: Sequence[Condition]) -> tuple[Condition, ...]:
        return tuple(_timed(entry, known.get((place, entry.type)), now) for entry in conditions)

    groups = {
        name: tuple(
            entry.model_copy(update={"conditions": timed(_place(entry), entry.conditions)})
            for entry in getattr(status, name)
        )
        for name in ("parents", "listeners", "ancestors")
    }
    own = {"conditions": timed("", status.conditions)}
    return status.model_copy(update={**groups, **own})


def _known(old: ObjectStatus) -> Times:
    places: list[tuple[str, Sequence[Condition]]] = [("", old.conditions)]
    places += [(_place(entry), entry.conditions) for entry in old.parents]
    places += [(_place(entry), entry.conditions) for entry in old.listeners]
    places += [(_place(entry), entry.conditions) for entry in old.ancestors]
    return {
        (place, entry.type): (entry.status, entry.last_transition_time)
        for place, conditions in places
        for entry in conditions
    }


def _place(entry: ParentStatus | ListenerStatus | AncestorStatus) -> str:
    match entry:
        case ListenerStatus():
            return f"listener {entry.name}"
        case ParentStatus():
            return f"parent {entry.parent_ref!r} {entry.controller_name}"
        case AncestorStatus():
            return f"ancestor {entry.ancestor_ref!r} {entry.controller_name}"


def _timed(entry: Condition, before: tuple[str, str | None] | None, now: str) -> Condition:
    since = before[1] if before is not None and before[0] == entry.status else None
    return entry.model_copy(update={"last_transition_time": since or now})
