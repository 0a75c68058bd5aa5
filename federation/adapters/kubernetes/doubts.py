"""Whether an API server is believed that says less, or older things, than it did.

Decides: what a list means that is of an older version than one seen before: the server's data were
restored from a backup. What it lacks was not deleted, and what it has in an older version is not
news, so both stay as they were known, each until somebody writes or deletes it there, or an
operator says that the server is right.
Leaves to others: listing and watching (``reflector``), showing it (``source``), an operator's word.
Invariants: pure; a list at a newer version is always believed: what it lacks was deleted while
nobody watched.

Resource versions of one kind are compared as numbers here and nowhere else, as Kubernetes allows
since 1.35 (KEP-5504); versions that are no numbers are never older.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from federation.model.objects import ObjectKey


class Versioned(Protocol):
    """What is known of an object."""

    @property
    def version(self) -> str: ...  # noqa: D102


V = TypeVar("V", bound=Versioned)


@dataclass(frozen=True, slots=True)
class Doubts:
    """What the server ``said`` of objects that are kept otherwise (``None``: they are not there),
    and the ``reason`` for keeping them."""

    said: Mapping[ObjectKey, Versioned | None] = field(default_factory=dict)
    reason: str = ""

    def after_list(
        self, known: Mapping[ObjectKey, V], found: Mapping[ObjectKey, V], *, before: str, now: str
    ) -> Doubts:
        """The doubts after a list of ``found`` at version ``now``; ``before`` was the newest."""
        if is_older(now, before):
            said: dict[ObjectKey, Versioned | None] = {
                key: found.get(key)
                for key, stored in known.items()
                if key not in found or is_older(found[key].version, stored.version)
            }
            absent = sum(entry is None for entry in said.values())
            reason = (
                f"the API server went back from version {before} to {now}, as when restored from a "
                f"backup: {absent} objects that it lacks and {len(said) - absent} that it has in "
                "older versions stay as they were until they are written again, or "
                "`fedctl accept-shrink`"
            )
            return Doubts(said, reason) if said else Doubts()
        still = {
            key: was
            for key, was in self.said.items()
            if _version(found.get(key)) == _version(was) and key in known
        }
        return replace(self, said=still) if still else Doubts()

    def without(self, key: ObjectKey) -> Doubts:
        """The doubts after somebody wrote or deleted ``key`` there."""
        rest = {other: was for other, was in self.said.items() if other != key}
        return replace(self, said=rest) if rest else Doubts()

    def settled(self, objects: Mapping[ObjectKey, V]) -> dict[ObjectKey, V]:
        """``objects`` as the server says them."""
        said: dict[ObjectKey, V | None] = dict(self.said)  # type: ignore[arg-type]
        merged: dict[ObjectKey, V | None] = {**objects, **said}
        return {key: entry for key, entry in merged.items() if entry is not None}


def is_older(version: str, other: str) -> bool:
    """Whether ``version`` came before ``other``; false when either is no number."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)


def _version(entry: Versioned | None) -> str | None:
    return entry.version if entry is not None else None
