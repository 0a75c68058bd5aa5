"""What all see of live traffic: ``fedctl top`` by counting calls, streams left of a drain."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.e2e.conftest import EAST, WEST
from tests.testkit import load
from tests.testkit.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

USERS = "app/user-service"


def flows(lab: Lab, *options: str) -> list[dict[str, Any]]:
    found = json.loads(lab.fedctl("top", "-o", "json", "--service", USERS, *options).out)
    return [flow for flow in found["flows"] if flow["imported"]]


def rate(found: list[dict[str, Any]], source: str, to: str) -> float:
    return sum(
        float(flow["callsPerS"])
        for flow in found
        if (flow["fromRegion"], flow["toCluster"]) == (source, to)
    )


async def test_top_shows_the_split_that_calls_have(lab: Lab) -> None:
    async with load.steady(lab.gateway(WEST), lab.ca(), rate=200) as running:
        seen: list[tuple[float, float]] = []

        async def watch() -> None:
            until = time.monotonic() + 30
            while time.monotonic() < until and len(seen) < 8:
                found = await asyncio.to_thread(flows, lab)
                rates = (rate(found, WEST, WEST), rate(found, WEST, EAST))
                if sum(rates) > 100 and rates not in seen:
                    seen.append(rates)
                await asyncio.sleep(1.0)

        await watch()
        (west,) = (
            flow
            for flow in await asyncio.to_thread(flows, lab)
            if (flow["fromRegion"], flow["toCluster"], flow["tier"]) == (WEST, WEST, 0)
        )
        table = (await asyncio.to_thread(lab.fedctl, "top", "--once")).out
    assert running.failed == []
    counted = running.by_cluster()
    assert len(seen) >= 4, seen
    # Windows of two seconds vary; their mean is what the calls have.
    shown = sum(one for one, _ in seen) / sum(one + other for one, other in seen)
    assert shown == pytest.approx(0.6, abs=0.05)
    assert shown == pytest.approx(counted[WEST] / sum(counted.values()), abs=0.05)
    assert sum(map(sum, seen)) / len(seen) == pytest.approx(200, rel=0.2)
    assert (west["weightAskedBp"], west["weightBp"]) == (6_000, 6_000)
    assert 0 < west["p50Ms"] <= west["p99Ms"]
    assert "60 %" in table
    assert "errors/s" in table


def streams_left(lab: Lab) -> int | None:
    (drain,) = lab.federation()["drains"]
    left = drain["streamsLeft"]
    assert left is None or isinstance(left, int)
    return left


async def test_a_drain_shows_its_streams_going_to_none(lab: Lab) -> None:
    async with load.open_streams(lab.gateway(WEST), lab.ca(), count=20) as streams:
        await load.until(
            lambda: all(record.legs for record in streams), timeout_s=30, what="all are answered"
        )
        there = sum(EAST in record.legs for record in streams)
        assert there
        await asyncio.to_thread(lab.fedctl, "drain", EAST, "--over", "0s", "--grace", "15s")
        counts: list[int] = []

        def look() -> bool:
            left = streams_left(lab)
            if left is not None and (not counts or counts[-1] != left):
                counts.append(left)
            return counts[-1:] == [0]

        status = ""
        until = time.monotonic() + 60
        while time.monotonic() < until and not await asyncio.to_thread(look):
            status = status or (await asyncio.to_thread(lab.fedctl, "status")).out
            await asyncio.sleep(0.5)
        assert counts[-1] == 0, counts
        assert counts[0] == there, counts  # they are open until the grace is over
        assert "STREAMS" in status
        await asyncio.to_thread(lab.fedctl, "undrain", EAST)


def test_top_says_who_is_silent_and_that_etcd_is_away(lab: Lab) -> None:
    unknown = lab.fedctl("top", "--service", "app/nobody", check=False)
    assert unknown.code == 4
    assert USERS in unknown.err
    lab.fedctl("lab", "kill-etcd")
    away = lab.fedctl("top", "--once", check=False)
    assert away.code == 3
    assert "etcd is away" in away.err
    assert "traffic goes on" in away.err
