"""The status sink on the store.

Decides: which statuses are written: those that differ from what is stored, and none besides; those
of objects that went are removed.
Leaves to others: conditions (``derive``), times of transitions (``adapters.transitions``).
Invariants: a status equal to the stored one costs no write; after a failed write the store is read
again before the next, since its outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from federation.adapters.transitions import with_times
from federation.adapters.universal.objects import read_statuses
from federation.model.base import ClusterId
from federation.model.objects import ObjectKey
from federation.model.status import ObjectStatus
from federation.ports import MAX_WRITES, Clock, Delete, Put, Store, Write
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys
from federation.wire.timestamps import timestamp


class UniversalStatusSink:
    """Statuses of ``cluster`` in the store; implements ``ports.StatusSink``. One writer."""

    def __init__(self, store: Store, keys: Keys, cluster: ClusterId, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._cluster = cluster
        self._clock = clock
        self._stored: dict[ObjectKey, ObjectStatus] | None = None

    def __repr__(self) -> str:
        known = "unknown" if self._stored is None else len(self._stored)
        return f"UniversalStatusSink({self._cluster}, stored={known})"

    def forget(self) -> None:
        """Read what is stored before writing again."""
        self._stored = None

    async def write(self, statuses: Mapping[ObjectKey, ObjectStatus]) -> None:
        """Bring the stored statuses to ``statuses``."""
        stored, self._stored = self._stored, None
        unreadable: set[str] = set()
        if stored is None:
            listing = await self._store.list(self._keys.statuses(self._cluster))
            stored = read_statuses(self._keys, self._cluster, listing.entries)
            readable = {self._keys.status(self._cluster, key) for key in stored}
            unreadable = {entry.key for entry in listing.entries} - readable
        now = timestamp(self._clock.now())
        wanted = {key: with_times(status, stored.get(key), now) for key, status in statuses.items()}
        writes = _changes(self._keys, self._cluster, stored, wanted)
        rewritten = {write.key for write in writes}
        writes += [Delete(key) for key in sorted(unreadable - rewritten)]
        await self._commit(writes)
        self._stored = wanted

    async def _commit(self, writes: Sequence[Write]) -> None:
        for start in range(0, len(writes), MAX_WRITES):
            await self._store.commit(writes[start : start + MAX_WRITES])


def _changes(
    keys: Keys,
    cluster: ClusterId,
    stored: Mapping[ObjectKey, ObjectStatus],
    wanted: Mapping[ObjectKey, ObjectStatus],
) -> list[Write]:
    writes: list[Write] = [
        Put(keys.status(cluster, key), to_bytes(wanted[key]))
        for key in sorted(wanted)
        if stored.get(key) != wanted[key]
    ]
    writes += [Delete(keys.status(cluster, key)) for key in sorted(set(stored) - set(wanted))]
    return writes
