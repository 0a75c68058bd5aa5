"""A store in memory with etcd's semantics, and with its failures on command.

Decides: nothing that etcd does not; ``tests/contract`` runs the same suite against both.
``MemoryCluster`` stands for the servers, ``MemoryStore`` for one client's connection, so that a
test can cut one client off and leave the others.
Leaves to others: elections (``adapters.election``).
Invariants: revisions only grow, except by ``restore``; all time is the event loop's, so simulated
time moves leases too; everything happens on one loop, so nothing is locked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from federation.adapters.election import HeldLeadership, campaign
from federation.adapters.limits import check_writes
from federation.aio import Latest
from federation.ports import (
    Absent,
    CreatedAt,
    Delete,
    Entry,
    Guard,
    LeaseLost,
    Listing,
    Put,
    StoreUnavailable,
    Unchanged,
    Write,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backup:
    """The contents of a cluster at one revision."""

    revision: int
    entries: tuple[Entry, ...]


class MemoryLease:
    """A lease; ended by its holder's leaving, by expiry while cut off, or by ``MemoryCluster``."""

    def __init__(self, lease_id: int, ttl_s: float) -> None:
        self._id = lease_id
        self.ttl_s = ttl_s
        self.expiry: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()

    @property
    def id(self) -> int:
        """Identifier for ``Put.lease``."""
        return self._id

    async def lost(self) -> None:
        """Return when the lease has ended."""
        await self.ended.wait()


class MemoryCluster:
    """The shared contents behind any number of ``MemoryStore`` connections."""

    def __init__(self) -> None:
        self._revision = 1
        self._entries: dict[str, Entry] = {}
        self._lease_of: dict[str, int] = {}
        self._leases: dict[int, MemoryLease] = {}
        self._next_lease = 1
        self.moves: Latest[int] = Latest(0)

    def __repr__(self) -> str:
        return f"MemoryCluster(revision={self._revision}, keys={len(self._entries)})"

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self._revision

    def listing(self, prefix: str) -> Listing:
        """All entries under ``prefix`` now."""
        found = sorted(key for key in self._entries if key.startswith(prefix))
        return Listing(self._revision, tuple(self._entries[key] for key in found))

    def entry(self, key: str) -> Entry | None:
        """The entry at ``key``."""
        return self._entries.get(key)

    def commit(self, writes: Sequence[Write], guards: Iterable[Guard]) -> int | None:
        """Apply all writes if all guards hold."""
        if not all(self._holds(guard) for guard in guards):
            return None
        for write in writes:
            if isinstance(write, Put) and write.lease and write.lease not in self._leases:
                raise LeaseLost(f"writing {write.key}: the lease has ended")
        if any(isinstance(write, Put) or write.key in self._entries for write in writes):
            self._revision += 1
        for write in writes:
            self._apply(write)
        self.announce()
        return self._revision

    def grant(self, ttl_s: float) -> MemoryLease:
        """A new lease; it lives until it is ended."""
        lease = MemoryLease(self._next_lease, ttl_s)
        self._next_lease += 1
        self._leases[lease.id] = lease
        return lease

    def end(self, lease: MemoryLease) -> None:
        """Expire or revoke ``lease``: its keys go in one revision."""
        if lease.expiry is not None:
            lease.expiry.cancel()
        if self._leases.pop(lease.id, None) is None:
            return
        keys = [key for key, holder in self._lease_of.items() if holder == lease.id]
        lease.ended.set()
        self.commit([Delete(key) for key in sorted(keys)], ())

    def backup(self) -> Backup:
        """The contents, for ``restore``."""
        return Backup(self._revision, tuple(self._entries.values()))

    def restore(self, backup: Backup) -> None:
        """Go back to ``backup``, as an operator does with an old snapshot; leases are lost."""
        for lease in list(self._leases.values()):
            self.end(lease)
        self._revision = backup.revision
        self._entries = {entry.key: replace(entry, leased=False) for entry in backup.entries}
        self.announce()

    def announce(self) -> None:
        """Tell all mirrors to look again."""
        self.moves.set(self.moves.version)

    def _holds(self, guard: Guard) -> bool:
        entry = self._entries.get(guard.key)
        match guard:
            case Absent():
                return entry is None
            case Unchanged():
                return entry is not None and entry.mod_revision == guard.mod_revision
            case CreatedAt():
                return entry is not None and entry.create_revision == guard.create_revision

    def _apply(self, write: Write) -> None:
        old = self._entries.get(write.key)
        self._lease_of.pop(write.key, None)
        match write:
            case Delete():
                self._entries.pop(write.key, None)
            case Put():
                created = old.create_revision if old else self._revision
                self._entries[write.key] = Entry(
                    key=write.key,
                    value=write.value,
                    create_revision=created,
                    mod_revision=self._revision,
                    leased=write.lease is not None,
                )
                if write.lease is not None:
                    self._lease_of[write.key] = write.lease


class MemoryStore:
    """One client's connection to a ``MemoryCluster``; implements ``ports.Store``.

    ``cut`` and ``deafen`` are the failures on command: while cut, calls raise ``StoreUnavailable``,
    mirrors yield nothing, and leases run out; a deaf connection loses the changes alone.
    """

    def __init__(self, cluster: MemoryCluster | None = None, *, name: str = "memory") -> None:
        self.cluster = cluster or MemoryCluster()
        self._name = name
        self._cut = False
        self._deaf = False
        self._held: set[MemoryLease] = set()

    def __repr__(self) -> str:
        return f"MemoryStore({self._name}, {'cut' if self._cut else 'connected'})"

    def cut(self) -> None:
        """Lose the connection; leases held over it expire after their time."""
        self._cut = True
        loop = asyncio.get_running_loop()
        for lease in self._held:
            lease.expiry = loop.call_later(lease.ttl_s, self.cluster.end, lease)

    def mend(self) -> None:
        """Get the connection back; leases that have not expired live on."""
        self._cut = False
        for lease in self._held:
            if lease.expiry is not None:
                lease.expiry.cancel()
                lease.expiry = None
        self.cluster.announce()

    def deafen(self) -> None:
        """Let mirrors yield nothing any more, while calls are answered and leases live on."""
        self._deaf = True

    def undeafen(self) -> None:
        """Let mirrors hear again."""
        self._deaf = False
        self.cluster.announce()

    async def get(self, key: str) -> Entry | None:
        """The entry at ``key``."""
        await self._reach("reading", key)
        return self.cluster.entry(key)

    async def list(self, prefix: str) -> Listing:
        """All entries under ``prefix``."""
        await self._reach("listing", prefix)
        return self.cluster.listing(prefix)

    async def commit(self, writes: Sequence[Write], *, guards: Sequence[Guard] = ()) -> int | None:
        """Apply all writes if all guards hold."""
        check_writes(writes)
        await self._reach("writing", writes[0].key if writes else "nothing")
        return self.cluster.commit(writes, guards)

    async def mirror(self, prefix: str) -> AsyncGenerator[Listing, None]:
        """The prefix now and after every change."""
        last: Listing | None = None
        async for _ in self.cluster.moves.changes():
            if self._cut or self._deaf:
                continue
            if last is not None and self.cluster.revision < last.revision:
                log.warning(
                    "store went backwards; keeping the last view",
                    extra={"prefix": prefix, "revision": last.revision},
                )
                continue
            listing = self.cluster.listing(prefix)
            if last is None or listing.entries != last.entries:
                last = listing
                yield listing

    @asynccontextmanager
    async def lease(
        self, *, ttl_s: float, lasting: bool = False
    ) -> AsyncGenerator[MemoryLease, None]:
        """Hold a lease; leaving revokes it, or lets a ``lasting`` one run out."""
        await self._reach("granting", "a lease")
        lease = self.cluster.grant(ttl_s)
        self._held.add(lease)
        try:
            yield lease
        finally:
            self._held.discard(lease)
            if lasting and not self._cut:
                loop = asyncio.get_running_loop()
                lease.expiry = loop.call_later(lease.ttl_s, self.cluster.end, lease)
            elif not self._cut:
                self.cluster.end(lease)

    def campaign(
        self, election: str, *, identity: str, ttl_s: float
    ) -> AbstractAsyncContextManager[HeldLeadership]:
        """Wait until we lead ``election``."""
        return campaign(self, election, identity=identity, ttl_s=ttl_s)

    async def close(self) -> None:
        """Nothing is held that the garbage collector does not take."""

    async def _reach(self, verb: str, what: str) -> None:
        await asyncio.sleep(0)
        if self._cut:
            raise StoreUnavailable(f"{verb} {what}: {self._name} is away")
