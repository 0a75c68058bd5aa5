"""A lease kept alive, and the news that it has ended.

Decides: when a lease counts as lost: when etcd says so, or when no refresh has succeeded for its
whole time (counted from before the last successful one was sent), whatever the clock of etcd says.
Leaves to others: what was under the lease.
Invariants: ``lost`` returns no later than the lease can end at etcd, so a holder never acts on a
lease that somebody else may hold already.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from aetcd import rpc

from federation.adapters.etcd.connection import Connection
from federation.aio import cancel_and_wait
from federation.ports import PortError, StoreUnavailable, TemporaryError


class EtcdLease:
    """A granted lease; ``ports.Lease``."""

    def __init__(self, connection: Connection, lease_id: int, ttl_s: float) -> None:
        self._connection = connection
        self._id = lease_id
        self._ttl_s = ttl_s
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"EtcdLease({self._id:016x}, {'ended' if self._ended.is_set() else 'alive'})"

    @property
    def id(self) -> int:
        """Identifier for ``Put.lease``."""
        return self._id

    async def lost(self) -> None:
        """Return when the lease has ended."""
        await self._ended.wait()

    async def keep(self, granted_at: float) -> None:
        """Refresh until the lease ends. ``granted_at`` is when its grant was sent (loop time)."""
        try:
            await self._refresh_until_over(granted_at + self._ttl_s)
        finally:  # a lease that nobody refreshes any more is lost, for whatever reason
            self._ended.set()

    async def _refresh_until_over(self, good_until: float) -> None:
        clock = asyncio.get_running_loop().time
        wait_s = self._ttl_s / 3
        while True:
            await asyncio.sleep(max(0.0, min(wait_s, good_until - clock())))
            sent = clock()
            if sent >= good_until:
                return
            try:
                alive = await self._refresh(timeout_s=good_until - sent)
            except StoreUnavailable:
                wait_s = self._connection.settings.retry_wait_s_max
                continue
            if not alive:
                return
            good_until = sent + self._ttl_s
            wait_s = self._ttl_s / 3

    async def _refresh(self, *, timeout_s: float) -> bool:
        """Whether the lease was still there; one message on a stream of its own."""
        link = self._connection.link()
        call = link.keep_alive(
            iter([rpc.LeaseKeepAliveRequest(ID=self._id)]),
            timeout=min(timeout_s, self._connection.settings.call_timeout_s),
        )
        try:
            async for answer in call:
                return bool(answer.TTL > 0)
        except (rpc.AioRpcError, asyncio.CancelledError) as error:
            failure = await self._connection.failure(link, error, "refreshing a lease")
            if isinstance(failure, TemporaryError):
                raise failure from error
        return False


@asynccontextmanager
async def hold(
    connection: Connection, ttl_s: float, *, lasting: bool = False
) -> AsyncGenerator[EtcdLease, None]:
    """Grant a lease, keep it alive, revoke it on leaving unless it is ``lasting``."""
    granted_at = asyncio.get_running_loop().time()
    request = rpc.LeaseGrantRequest(TTL=math.ceil(ttl_s))
    answer = await connection.call(request, "granting a lease")
    lease = EtcdLease(connection, answer.ID, ttl_s)
    keeper = asyncio.create_task(lease.keep(granted_at), name=f"keep {lease!r}")
    try:
        yield lease
    finally:
        await cancel_and_wait(keeper)
        if not lasting:
            with suppress(PortError):  # it ends by itself
                await connection.call(rpc.LeaseRevokeRequest(ID=lease.id), "revoking a lease")
