"""The store port on etcd.

Decides: how each promise of ``ports.Store`` is kept with etcd's calls.
Leaves to others: the connection and its failures (``connection``), watching (``mirror``), leases
(``lease``), elections (``adapters.election``), and what keys and values mean (``wire.etcd``).
Invariants: reads are linearizable; a listing is of one revision however many pages it took.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager

from aetcd import rpc

from federation.adapters.election import HeldLeadership, campaign
from federation.adapters.etcd.connection import Connection, EtcdSettings
from federation.adapters.etcd.history import history
from federation.adapters.etcd.lease import EtcdLease, hold
from federation.adapters.etcd.listing import read_listing
from federation.adapters.etcd.messages import entry_of, transaction
from federation.adapters.etcd.mirror import mirror
from federation.adapters.limits import check_writes
from federation.ports import Changes, Entry, Guard, LeaseLost, Listing, Put, StoreRefused, Write


class EtcdStore:
    """One client of an etcd cluster; implements ``ports.Store``. Dials on first use."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._connection = Connection(settings)

    def __repr__(self) -> str:
        return f"EtcdStore({self._connection!r})"

    async def get(self, key: str) -> Entry | None:
        """The entry at ``key``."""
        request = rpc.RangeRequest(key=key.encode())
        answer = await self._connection.call(request, f"reading {key}")
        return entry_of(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> Listing:
        """All entries under ``prefix``."""
        return (await read_listing(self._connection, prefix)).listing

    async def commit(self, writes: Sequence[Write], *, guards: Sequence[Guard] = ()) -> int | None:
        """Apply all writes if all guards hold."""
        check_writes(writes)
        attempt = f"writing {writes[0].key}" if writes else "checking guards"
        if len(writes) > 1:
            attempt += f" and {len(writes) - 1} more"
        try:
            answer = await self._connection.call(transaction(writes, guards), attempt)
        except StoreRefused as error:
            leased = any(isinstance(write, Put) and write.lease for write in writes)
            if leased and "lease not found" in str(error):
                raise LeaseLost(f"{attempt}: the lease has ended") from error
            raise
        return int(answer.header.revision) if answer.succeeded else None

    def mirror(self, prefix: str) -> AsyncGenerator[Listing, None]:
        """The prefix now and after every change."""
        return mirror(self._connection, prefix)

    def history(self, prefix: str, *, revisions_max: int) -> AsyncGenerator[Changes, None]:
        """Changes below ``prefix``; implements ``ports.StoreHistory``."""
        return history(self._connection, prefix, revisions_max=revisions_max)

    def lease(
        self, *, ttl_s: float, lasting: bool = False
    ) -> AbstractAsyncContextManager[EtcdLease]:
        """Hold a lease; leaving revokes it, or lets a ``lasting`` one run out."""
        return hold(self._connection, ttl_s, lasting=lasting)

    def campaign(
        self, election: str, *, identity: str, ttl_s: float
    ) -> AbstractAsyncContextManager[HeldLeadership]:
        """Wait until we lead ``election``."""
        return campaign(self, election, identity=identity, ttl_s=ttl_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()
