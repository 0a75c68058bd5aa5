"""The object source on the store: snapshots of one cluster's objects.

Decides: what happens to an object that has become unreadable: its last good version stays in force
and the snapshot says so.
Leaves to others: reading values (``reading``), watching (the store's mirror).
Invariants: a snapshot is of one store revision; an object is decoded once for each version of it;
memory is one decoded object for each stored one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from federation.adapters.universal.objects import stored_object
from federation.model.base import ClusterId
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot, RejectedObject
from federation.ports import Entry, Listing, Store
from federation.wire.etcd_keys import Keys


class UniversalSource:
    """Snapshots of the objects of ``cluster``; implements ``ports.ObjectSource``."""

    def __init__(self, store: Store, keys: Keys, cluster: ClusterId) -> None:
        self._store = store
        self._keys = keys
        self._cluster = cluster
        self._good: dict[str, ApiObject] = {}
        self._decoded: dict[str, tuple[int, ApiObject | RejectedObject | None]] = {}

    def __repr__(self) -> str:
        return f"UniversalSource({self._cluster}, objects={len(self._good)})"

    def accept_loss(self) -> None:
        """Nothing is doubted here: the store's revisions tell what was deleted."""

    async def snapshots(self) -> AsyncGenerator[ObjectSnapshot, None]:
        """Complete snapshots, the first once the store has been listed."""
        async with aclosing(self._store.mirror(self._keys.objects(self._cluster))) as listings:
            async for listing in listings:
                yield self._snapshot(listing)

    def _snapshot(self, listing: Listing) -> ObjectSnapshot:
        self._decoded = {entry.key: self._decode(entry) for entry in listing.entries}
        self._good = {key: good for key, good in self._good.items() if key in self._decoded}
        rejected: dict[ObjectKey | str, RejectedObject] = {}
        for stored_at, (_, value) in self._decoded.items():
            match value:
                case ApiObject():
                    self._good[stored_at] = value
                case RejectedObject():
                    key = self._keys.object_key(self._cluster, stored_at)
                    rejected[key or stored_at] = value
                case None:
                    self._good.pop(stored_at, None)
        objects = {value.key: value for value in self._good.values()}
        return ObjectSnapshot(objects, rejected, listing.revision, synced=True)

    def _decode(self, entry: Entry) -> tuple[int, ApiObject | RejectedObject | None]:
        known = self._decoded.get(entry.key)
        if known is not None and known[0] == entry.mod_revision:
            return known
        return entry.mod_revision, stored_object(self._keys, self._cluster, entry)
