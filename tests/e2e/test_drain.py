"""Draining a region under load: the share falls along the ramp, streams are asked to leave."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.e2e.conftest import EAST, WEST
from tests.testkit import load
from tests.testkit.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


async def test_drain_and_undrain_lose_no_call(lab: Lab) -> None:
    target, ca = lab.gateway(WEST), lab.ca()
    async with (
        load.steady(target, ca, rate=500) as running,
        load.open_streams(target, ca, count=20) as streams,
    ):
        await asyncio.sleep(3.0)
        assert any(EAST in record.legs for record in streams)
        await asyncio.to_thread(lab.fedctl, "drain", EAST, "--over", "6s", "--grace", "3s")
        started = time.monotonic()
        await asyncio.sleep(6.0 + 3.0 + 3.0)
        drained = time.monotonic()
        # The ramp: each part of it sees a smaller share than the one before, and its end none.
        shares = [_east_share(running, started + at, started + at + 2.0) for at in (0.0, 2.0, 4.0)]
        assert shares[0] > shares[1] > shares[2], shares
        assert _east_share(running, started + 8.0, drained) == 0.0
        assert all(record.legs[-1] == WEST for record in streams)
        moved = [record for record in streams if EAST in record.legs]
        assert moved
        for record in moved:
            assert all(ending.startswith("UNAVAILABLE") for ending in record.endings), record
        await asyncio.to_thread(lab.fedctl, "undrain", EAST)
        await load.until(
            lambda: _east_share(running, time.monotonic() - 1.0, time.monotonic()) > 0.3,
            timeout_s=20,
            what="the share comes back",
        )
    assert running.failed == []


def _east_share(running: load.Load, start: float, end: float) -> float:
    chosen = [call for call in running.calls if start <= call.started < end]
    return running.by_cluster(chosen)[EAST] / max(len(chosen), 1)


def test_draining_the_last_region_is_refused(lab: Lab) -> None:
    lab.fedctl("drain", EAST, "--over", "0s", "--grace", "0s")
    refused = lab.fedctl("drain", WEST, check=False)
    assert refused.code == 5
    assert "app/user-service" in refused.err
    assert "--force" in refused.err
    previewed = lab.fedctl("drain", WEST, "--dry-run", check=False)
    assert previewed.code == 5
