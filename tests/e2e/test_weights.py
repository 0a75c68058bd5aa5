"""One name over two clusters: the split is what the manifests say, also when they change."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.e2e.conftest import EAST, WEST
from tests.testkit import load
from tests.testkit.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


async def test_ten_thousand_calls_split_60_to_40_within_two_percent(lab: Lab) -> None:
    done = await load.calls(lab.gateway(WEST), lab.ca(), count=10_000)
    assert done.failed == []
    share = done.by_cluster()
    assert share[WEST] == pytest.approx(6_000, abs=200)
    assert share[EAST] == pytest.approx(4_000, abs=200)


async def test_the_split_holds_at_every_gateway(lab: Lab) -> None:
    """Weights of a MultiClusterService are global: they do not depend on where the caller is."""
    done = await load.calls(lab.gateway(EAST, 1), lab.ca(), count=3_000)
    assert done.failed == []
    assert done.by_cluster()[WEST] == pytest.approx(1_800, abs=120)


async def test_patched_weights_hold_within_a_second_and_lose_no_call(lab: Lab) -> None:
    async with load.steady(lab.gateway(WEST), lab.ca(), rate=300) as running:
        await asyncio.sleep(1.0)
        patch = [
            {"op": "replace", "path": "/spec/clusterBackends/0/weight", "value": 0},
            {"op": "replace", "path": "/spec/clusterBackends/1/weight", "value": 100},
        ]
        await asyncio.to_thread(
            lab.fedctl,
            *("patch", "multiclusterservice", "user-service-global", "-n", "app"),
            *("--type=json", "-p", json.dumps(patch)),
        )
        patched = time.monotonic()
        await asyncio.sleep(3.0)
    assert running.failed == []
    after = running.since(patched + 1.0)
    assert len(after) > 300
    assert running.by_cluster(after) == {EAST: len(after)}
