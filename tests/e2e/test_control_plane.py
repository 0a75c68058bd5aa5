"""The control plane away, in parts and whole: traffic goes on, nothing is lost, all say so."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.e2e.conftest import EAST, WEST
from tests.testkit import load
from tests.testkit.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


async def test_without_etcd_traffic_failover_and_gateway_restarts_go_on(lab: Lab) -> None:
    target, ca = lab.gateway(WEST), lab.ca()
    lab.fedctl("lab", "kill-etcd")
    away = lab.fedctl("get", "grpcroute", "-A", check=False)
    assert away.code == 3
    assert "etcd is away" in away.err
    async with load.steady(target, ca, rate=200) as running:
        await asyncio.sleep(1.0)
        await asyncio.to_thread(lab.fedctl, "lab", "kill", EAST)
        await asyncio.sleep(3.0)
    assert running.failed == []
    assert running.by_cluster(running.calls[-100:]) == {WEST: 100}
    # A gateway that restarts with etcd away serves from what it kept on disk.
    second = lab.cluster(WEST)["gateways"][1]
    os.kill(second["pid"], signal.SIGKILL)
    lab.fedctl("lab", "restore", WEST)
    again = await load.calls(second["listeners"]["grpc"], ca, count=100)
    assert again.failed == []
    lab.fedctl("lab", "start-etcd")
    lab.fedctl("lab", "restore", EAST)
    async with load.steady(target, ca, rate=200) as running:
        await load.until(
            lambda: running.by_cluster(running.calls[-200:])[EAST] > 50,
            timeout_s=30,
            what="both regions share the load again",
        )
    assert running.failed == []


def test_a_killed_leader_is_replaced_within_five_seconds(lab: Lab) -> None:
    before = lab.federation()["leader"]
    os.kill(lab.pids("resolver")[before["resolver"]], signal.SIGKILL)

    def replaced() -> bool:
        now = lab.federation()["leader"]
        return now is not None and now["term"] > before["term"]

    took_s = lab.wait(replaced, timeout_s=10, what="another resolver leads")
    assert took_s < 5.5
    lab.fedctl("lab", "restore", before["resolver"])


async def test_a_killed_agent_is_stale_and_moves_no_traffic(lab: Lab) -> None:
    target, ca = lab.gateway(WEST), lab.ca()
    os.kill(lab.pids("agent")[f"agent-{EAST}"], signal.SIGKILL)

    def stale() -> bool:
        member = next(m for m in lab.federation()["members"] if m["cluster"] == EAST)
        return bool(member["stale"])

    await asyncio.to_thread(lab.wait, stale, timeout_s=15, what=f"{EAST} is shown as stale")
    done = await load.calls(target, ca, count=2_000)
    assert done.failed == []
    assert done.by_cluster()[EAST] == pytest.approx(800, abs=100)
