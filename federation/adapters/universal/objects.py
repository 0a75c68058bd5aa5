"""Objects of one cluster in the store: list, get, apply, delete, and read their statuses.

Decides: what an API server would: the generation rises when something other than metadata changes;
an apply that changes nothing writes nothing; age is the store's create_revision, so deleting and
creating again loses seniority.
Leaves to others: validity of objects (``wire.manifests``), conditions (the agent).
Invariants: a write is guarded by what was read, so two writers never lose each other's change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from federation.adapters.universal.reading import object_bytes, object_of
from federation.model.base import ClusterId
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot, RejectedObject
from federation.model.status import ObjectStatus
from federation.ports import (
    Absent,
    Clock,
    Delete,
    Entry,
    Guard,
    PortError,
    Put,
    Store,
    TemporaryError,
    Unchanged,
)
from federation.wire.etcd import from_bytes
from federation.wire.etcd_keys import Keys
from federation.wire.manifests import Rejected, Skipped
from federation.wire.timestamps import timestamp

ATTEMPTS_MAX = 8
"""Tries of one apply against other writers before it gives up; each try reads anew."""


class ApplyOutcome(StrEnum):
    """What an apply did, in kubectl's words."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Applied:
    """The object as stored now, and what was done."""

    outcome: ApplyOutcome
    object: ApiObject


class ConflictError(TemporaryError):
    """Others kept changing the same object."""


class UniversalObjects:
    """The objects of ``cluster``. Calls raise ``StoreUnavailable`` while the store is away."""

    def __init__(self, store: Store, keys: Keys, cluster: ClusterId, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._cluster = cluster
        self._clock = clock

    def __repr__(self) -> str:
        return f"UniversalObjects({self._cluster})"

    async def list(self) -> tuple[ApiObject, ...]:
        """All readable objects, oldest first."""
        objects = (await self.contents()).objects.values()
        return tuple(sorted(objects, key=lambda value: value.age))

    async def contents(self) -> ObjectSnapshot:
        """All objects, and those that cannot be read with the reason."""
        listing = await self._store.list(self._keys.objects(self._cluster))
        objects: dict[ObjectKey, ApiObject] = {}
        rejected: dict[ObjectKey | str, RejectedObject] = {}
        for entry in listing.entries:
            value = stored_object(self._keys, self._cluster, entry)
            if isinstance(value, ApiObject):
                objects[value.key] = value
            elif value is not None:
                rejected[self._keys.object_key(self._cluster, entry.key) or entry.key] = value
        return ObjectSnapshot(objects, rejected, listing.revision, synced=True)

    async def get(self, key: ObjectKey) -> ApiObject | None:
        """The object, or ``None`` if there is none. Raises ``PortError`` if it is unreadable."""
        entry = await self._store.get(self._keys.object(self._cluster, key))
        return _readable(entry) if entry is not None else None

    async def apply(self, wanted: ApiObject, *, resource_version: str | None = None) -> Applied:
        """Create the object or bring it to ``wanted``.

        With ``resource_version`` only if it is still at that one (``ConflictError`` otherwise):
        for patches, which rest on what was read.
        """
        stored_at = self._keys.object(self._cluster, wanted.key)
        for _ in range(ATTEMPTS_MAX):
            entry = await self._store.get(stored_at)
            old = object_of(entry) if entry is not None else None
            if resource_version is not None and (
                entry is None or str(entry.mod_revision) != resource_version
            ):
                break
            new = self._next(wanted, old, entry)
            if entry is not None and object_bytes(new) == entry.value:
                return Applied(ApplyOutcome.UNCHANGED, _readable(entry))
            guard: Guard = Unchanged(stored_at, entry.mod_revision) if entry else Absent(stored_at)
            revision = await self._store.commit([Put(stored_at, object_bytes(new))], guards=[guard])
            if revision is not None:
                created = entry.create_revision if entry else revision
                now = Entry(stored_at, object_bytes(new), created, revision)
                outcome = ApplyOutcome.CONFIGURED if entry else ApplyOutcome.CREATED
                return Applied(outcome, _readable(now))
        raise ConflictError(f"applying {wanted.key}: it was changed by others meanwhile; try again")

    async def delete(self, key: ObjectKey) -> bool:
        """Delete the object; says whether it was there. The agent removes its status."""
        stored_at = self._keys.object(self._cluster, key)
        if await self._store.get(stored_at) is None:
            return False
        await self._store.commit([Delete(stored_at)])
        return True

    async def statuses(self) -> Mapping[ObjectKey, ObjectStatus]:
        """All stored statuses; unreadable ones are left out and rewritten by the agent."""
        listing = await self._store.list(self._keys.statuses(self._cluster))
        return read_statuses(self._keys, self._cluster, listing.entries)

    def _next(
        self,
        wanted: ApiObject,
        old: ApiObject | Skipped | Rejected | str | None,
        entry: Entry | None,
    ) -> ApiObject:
        """``wanted`` with the metadata that the store keeps."""
        if isinstance(old, ApiObject):
            changed = _spec(wanted) != _spec(old)
            generation = old.metadata.generation + (1 if changed else 0)
            created = old.metadata.creation_timestamp
        else:  # new, or what is stored cannot be read and is replaced
            generation = 1 if entry is None else entry.mod_revision
            created = timestamp(self._clock.now())
        return wanted.with_metadata(
            generation=generation, creation_timestamp=created, uid=None, resource_version=None
        )


def read_statuses(
    keys: Keys, cluster: ClusterId, entries: tuple[Entry, ...]
) -> dict[ObjectKey, ObjectStatus]:
    """The readable statuses among ``entries``."""
    found: dict[ObjectKey, ObjectStatus] = {}
    for entry in entries:
        key = keys.object_key(cluster, entry.key)
        if key is not None:
            try:
                found[key] = from_bytes(ObjectStatus, entry.value)
            except ValueError:
                continue  # as if there were none: the next write replaces it
    return found


def stored_object(
    keys: Keys, cluster: ClusterId, entry: Entry
) -> ApiObject | RejectedObject | None:
    """What ``entry`` holds: an object, why it is none, or ``None`` if it is without effect here."""
    value = object_of(entry)
    if isinstance(value, Skipped):
        return None
    if not isinstance(value, ApiObject):
        return RejectedObject(entry.key, value if isinstance(value, str) else value.message)
    if value.key != keys.object_key(cluster, entry.key):
        return RejectedObject(entry.key, f"the object stored here is {value.key}")
    return value


def _readable(entry: Entry) -> ApiObject:
    value = object_of(entry)
    if isinstance(value, ApiObject):
        return value
    reason = value if isinstance(value, str) else getattr(value, "message", "without effect here")
    raise PortError(f"reading {entry.key}: {reason}")


def _spec(value: ApiObject) -> dict[str, Any]:
    """Everything but metadata and version, which a generation does not count."""
    document = value.to_document()
    return {
        name: json.loads(json.dumps(part))
        for name, part in document.items()
        if name not in ("metadata", "apiVersion", "status")
    }
