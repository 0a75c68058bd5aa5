"""The etcd mirror's steps that no real etcd can be made to take at will."""

from __future__ import annotations

import asyncio

import pytest

from federation.adapters.etcd.connection import Connection, EtcdSettings
from federation.adapters.etcd.mirror import _Mirror


async def test_a_cancellation_that_meets_the_end_of_a_write_is_not_lost() -> None:
    mirror = _Mirror(Connection(EtcdSettings(endpoints=("127.0.0.1:1",))), "/test/")
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(mirror._timely(written))
    await asyncio.sleep(0)
    written.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
