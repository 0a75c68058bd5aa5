"""The objects of all clusters, and which clusters a command acts on.

Decides: all known clusters (members, and those with objects), or those named with ``--cluster``;
what happens to names that are not known.
Leaves to others: the objects of one cluster (``adapters.universal``).
Invariants: reading of an unknown cluster is an error; writing to one is allowed, since objects may
be prepared before the cluster joins, and warned about, since it may be a slip.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from federation.adapters.clock import SystemClock
from federation.adapters.universal import UniversalObjects
from federation.cli.context import CommandError, Context, complain
from federation.cli.exit_codes import ExitCode
from federation.model.base import ClusterId
from federation.ports import Clock, Store
from federation.wire.etcd_keys import Keys


class ClusterObjects:
    """The objects of every cluster in the store."""

    def __init__(self, store: Store, keys: Keys, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    def of(self, cluster: ClusterId) -> UniversalObjects:
        """The objects of one cluster."""
        return UniversalObjects(self._store, self._keys, cluster, self._clock)

    async def known(self) -> tuple[ClusterId, ...]:
        """Clusters that joined, and clusters with objects, by name."""
        names: set[str] = set()
        for prefix in (f"{self._keys.state}members/", self._keys.all_objects):
            listing = await self._store.list(prefix)
            names.update(entry.key.removeprefix(prefix).split("/")[0] for entry in listing.entries)
        return tuple(ClusterId(name) for name in sorted(names))

    async def to_read(self, named: Sequence[str]) -> tuple[ClusterId, ...]:
        """The clusters named, or all."""
        known = await self.known()
        unknown = [name for name in named if name not in known]
        if unknown:
            raise CommandError(_unknown(unknown[0], known), ExitCode.NOT_FOUND)
        return tuple(ClusterId(name) for name in dict.fromkeys(named)) or known

    async def to_write(self, named: Sequence[str]) -> tuple[ClusterId, ...]:
        """The clusters named, or all; an error when there is none."""
        known = await self.known()
        for name in named:
            if name not in known:
                complain(f"warning: {_unknown(name, known)}")
        chosen = tuple(ClusterId(name) for name in dict.fromkeys(named)) or known
        if not chosen:
            raise CommandError(
                "no cluster has joined yet; start an agent (`fedctl agent`, or `fedctl lab up`), "
                "or name a cluster with --cluster",
                ExitCode.NOT_FOUND,
            )
        return chosen


@asynccontextmanager
async def open_objects(context: Context) -> AsyncIterator[ClusterObjects]:
    """The objects in the context's store."""
    async with context.open_store() as store:
        yield ClusterObjects(store, Keys(context.prefix), SystemClock())


def _unknown(name: str, known: Sequence[str]) -> str:
    return f'no cluster "{name}" has joined; known clusters: {", ".join(known) or "none"}'
