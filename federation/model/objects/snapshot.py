"""All objects of one cluster at one moment, as a source hands them over.

Decides: what a complete set of objects is and how it is asked.
Leaves to others: where objects come from (``adapters``), what follows from them (``derive``).
Invariants: immutable; a snapshot that is not ``synced`` is never acted on; a rejected object stands
in ``rejected`` and, if its source still has the last good version, also in ``objects``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from federation.model.objects.metadata import ApiObject, ObjectKey
from federation.model.objects.route import ParentReference

ObjectT = TypeVar("ObjectT", bound=ApiObject)


@dataclass(frozen=True, slots=True)
class RejectedObject:
    """An object that could not be read: where it stands (file and line, or key) and why.

    Where the source can take a status for it all the same, the rest says what the status is about:
    ``generation`` and ``uid`` of what was refused, the ``parents`` that a route names, and ``why``
    without the place.
    """

    origin: str
    message: str
    generation: int = 0
    uid: str | None = None
    parents: tuple[ParentReference, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class ObjectSnapshot:
    """Objects by key. What has no readable key is rejected under its origin.

    ``revision`` grows with every snapshot of one source. ``changed_at_ns`` is when the source heard
    of the first change that led to it, in Unix nanoseconds, for display; 0 where it does not tell.
    """

    objects: Mapping[ObjectKey, ApiObject] = field(default_factory=dict)
    rejected: Mapping[ObjectKey | str, RejectedObject] = field(default_factory=dict)
    revision: int = 0
    synced: bool = False
    changed_at_ns: int = field(default=0, compare=False)

    def of(self, kind: type[ObjectT]) -> tuple[ObjectT, ...]:
        """All objects of a class, oldest first."""
        found = [entry for entry in self.objects.values() if isinstance(entry, kind)]
        return tuple(sorted(found, key=lambda entry: entry.age))

    def get(self, kind: type[ObjectT], namespace: str, name: str) -> ObjectT | None:
        """The object of that class and name, or ``None``."""
        found = self.objects.get(ObjectKey(kind.GROUP, kind.KIND, namespace, name))
        return found if isinstance(found, kind) else None
