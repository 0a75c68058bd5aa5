"""A region dies or falls silent under load: no call fails, traffic moves at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.e2e.conftest import EAST, WEST
from tests.testkit import load
from tests.testkit.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


async def test_killed_region_costs_no_call_and_one_second_at_most(lab: Lab) -> None:
    async with load.steady(lab.gateway(WEST), lab.ca(), rate=500) as running:
        await asyncio.sleep(3.0)
        before = running.by_cluster()
        killed = time.monotonic()
        await asyncio.to_thread(lab.fedctl, "lab", "kill", EAST)
        await asyncio.sleep(4.0)
    assert before[EAST] > 0
    assert running.failed == []
    late = [call for call in running.calls if call.cluster == EAST and call.ended > killed + 3.0]
    assert late == []
    last = max(call.ended for call in running.calls if call.cluster == EAST)
    settled = [call for call in running.since(last + 1.0) if call.took_s > 1.0]
    assert settled == [], "a second after the region's last answer every call is quick again"


async def test_partitioned_region_costs_no_call_and_two_seconds_at_most(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    async with load.steady(lab.gateway(WEST), lab.ca(), rate=500) as running:
        await asyncio.sleep(3.0)
        await asyncio.to_thread(lab.fedctl, "lab", "partition", EAST)
        cut = time.monotonic()
        await asyncio.sleep(5.0)
    assert running.failed == []
    waited = [call for call in running.calls if call.took_s > 1.0]
    with capsys.disabled():
        print(f"\npartition: {len(waited)} of {len(running.calls)} calls waited over 1 s")
    recovered = running.since(cut + 2.0)
    assert len(recovered) > 500
    assert running.by_cluster(recovered) == {WEST: len(recovered)}
    assert max(call.took_s for call in recovered) < 1.0


async def test_a_healed_region_gets_its_share_back(lab: Lab) -> None:
    lab.fedctl("lab", "partition", EAST)
    await load.calls(lab.gateway(WEST), lab.ca(), count=500)
    lab.fedctl("lab", "heal")
    ca, target = lab.ca(), lab.gateway(WEST)
    async with load.steady(target, ca, rate=200) as running:
        await load.until(
            lambda: running.by_cluster(running.calls[-200:])[EAST] > 50,
            timeout_s=30,
            what="calls reach the healed region",
        )
    assert running.failed == []
