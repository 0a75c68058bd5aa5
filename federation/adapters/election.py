"""Elections on top of any ``Store``: the oldest living candidacy leads.

Decides: the recipe (etcd's own). A candidate writes its key under its lease; the one whose key has
the lowest create_revision leads; the others wait for the keys before theirs to go.
Leaves to others: leases, guards and watches (the store), and what a leader does.
Invariants: the term is the create_revision of the leader's key, so it grows with every leader; a
write guarded by ``CreatedAt(key, term)`` fails once that leader has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress

from federation.aio import cancel_and_wait
from federation.ports import (
    Absent,
    CreatedAt,
    Delete,
    Lease,
    LeaseLost,
    Put,
    Store,
    StoreUnavailable,
    TemporaryError,
)


class HeldLeadership:
    """Leadership of one election, as ``ports.Leadership`` promises it."""

    def __init__(self, store: Store, lease: Lease, *, key: str, term: int) -> None:
        self._store = store
        self._lease = lease
        self._key = key
        self._term = term

    def __repr__(self) -> str:
        return f"Leadership({self._key}, term={self._term})"

    @property
    def key(self) -> str:
        """The election key held."""
        return self._key

    @property
    def term(self) -> int:
        """The fencing number: create_revision of ``key``."""
        return self._term

    async def lost(self) -> None:
        """Return when the lease ended or somebody removed the key."""
        watches = [
            asyncio.create_task(self._lease.lost(), name=f"lease of {self._key}"),
            asyncio.create_task(self._key_gone(), name=f"watch of {self._key}"),
        ]
        try:
            await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for watch in watches:
                await cancel_and_wait(watch)

    async def _key_gone(self) -> None:
        async with aclosing(self._store.mirror(self._key)) as listings:
            async for listing in listings:
                if not any(entry.create_revision == self._term for entry in listing.entries):
                    return


@asynccontextmanager
async def campaign(
    store: Store, election: str, *, identity: str, ttl_s: float
) -> AsyncGenerator[HeldLeadership, None]:
    """Wait until we lead ``election``; leaving resigns. ``identity`` is for people who look."""
    async with store.lease(ttl_s=ttl_s) as lease:
        key = f"{election}/{lease.id:016x}"
        try:
            put = Put(key, identity.encode(), lease.id)
            term = await store.commit([put], guards=[Absent(key)])
        except LeaseLost as error:
            raise StoreUnavailable(f"candidacy for {election} ended: {error}") from error
        if term is None:
            raise StoreUnavailable(f"candidacy for {election}: {key} is taken")
        try:
            await _until_first(store, lease, election, term)
            yield HeldLeadership(store, lease, key=key, term=term)
        finally:
            with suppress(TemporaryError):
                await store.commit([Delete(key)], guards=[CreatedAt(key, term)])


async def _until_first(store: Store, lease: Lease, election: str, term: int) -> None:
    """Return when no candidacy is older than ``term``; raise when our own has gone."""
    turn = asyncio.create_task(_our_turn(store, election, term), name=f"turn in {election}")
    lost = asyncio.create_task(lease.lost(), name=f"lease in {election}")
    try:
        await asyncio.wait([turn, lost], return_when=asyncio.FIRST_COMPLETED)
        if not turn.done() or not turn.result():
            raise StoreUnavailable(f"candidacy for {election} ended before it was our turn")
    finally:
        await cancel_and_wait(turn)
        await cancel_and_wait(lost)


async def _our_turn(store: Store, election: str, term: int) -> bool:
    async with aclosing(store.mirror(f"{election}/")) as listings:
        async for listing in listings:
            if listing.revision < term:
                continue
            terms = [entry.create_revision for entry in listing.entries]
            if term not in terms:
                return False
            if term == min(terms):
                return True
    return False
