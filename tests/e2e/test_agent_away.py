"""An agent that is gone, or that comes back with nothing: exports stay and no traffic moves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import EAST, WEST
from tests.testkit import load
from tests.testkit.lab import Lab, ask

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SERVICE = {"namespace": "app", "name": "user-service"}


def member(lab: Lab, cluster: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = lab.federation()["members"]
    return next(each for each in found if each["cluster"] == cluster)


def kill(lab: Lab, role: str, name: str) -> None:
    """SIGKILL one process and wait until it is gone."""
    os.kill(lab.pids(role)[name], signal.SIGKILL)
    lab.wait(lambda: name not in lab.pids(role), timeout_s=5, what=f"{name} is gone")


def set_ready(lab: Lab, cluster: str, *, ready: bool) -> None:
    """Mark the first endpoint of user-service in ``cluster``."""
    patch = [{"op": "replace", "path": "/endpoints/0/conditions/ready", "value": ready}]
    lab.fedctl(
        *("patch", "endpointslice", "user-service-0", "-n", "app", "--cluster", cluster),
        *("--type=json", "-p", json.dumps(patch)),
    )


@contextlib.contextmanager
def agent_from_folder(lab: Lab, cluster: str, folder: Path) -> Iterator[None]:
    """The agent of ``cluster`` by its own command line, but with its objects from ``folder``."""
    planned = json.loads((lab.directory / "lab.json").read_text())["processes"]
    command = next(p["command"] for p in planned if p["name"] == f"agent-{cluster}")
    assert "--source=universal" in command
    folder.mkdir()
    mistaken = [
        f"--source=folder:{folder}" if part == "--source=universal" else part for part in command
    ]
    with (folder.parent / "agent.log").open("wb") as log:
        process = subprocess.Popen(mistaken, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
        assert process.poll() is None, "the agent ended by itself"
    finally:
        process.terminate()
        process.wait(timeout=15)


async def test_an_agent_that_comes_back_empty_is_quarantined(lab: Lab, tmp_path: Path) -> None:
    ca = lab.ca()
    exports = member(lab, EAST)["exports"]
    kill(lab, "agent", f"agent-{EAST}")
    with agent_from_folder(lab, EAST, tmp_path / "empty"):
        await asyncio.to_thread(
            lab.wait,
            lambda: member(lab, EAST)["quarantine"] is not None,
            timeout_s=20,
            what="the shrink is quarantined",
        )
        shown = member(lab, EAST)
        assert not shown["stale"]
        assert shown["exports"] == exports
        assert shown["quarantine"]["missing"] == [SERVICE]
        table = lab.fedctl("status").out
        assert f"Quarantined: {EAST} since " in table
        assert "published exports are missing from the source" in table
        # Both regions' gateways go on as before, those of the mistaken agent too.
        for region in (WEST, EAST):
            done = await load.calls(lab.gateway(region), ca, count=1_000)
            assert done.failed == []
            assert done.by_cluster()[EAST] == pytest.approx(400, abs=70)
    lab.fedctl("lab", "restore", f"agent-{EAST}")
    lab.wait(
        lambda: member(lab, EAST)["quarantine"] is None,
        timeout_s=20,
        what="the quarantine is lifted",
    )
    assert member(lab, EAST)["exports"] == exports


async def test_endpoints_change_elsewhere_while_an_agent_is_dead(lab: Lab) -> None:
    """Endpoints do not travel: the region that they are in follows, no other needs to know."""
    target, ca = lab.gateway(WEST), lab.ca()
    kill(lab, "agent", f"agent-{WEST}")
    gone = next(
        endpoint["address"]
        for endpoint in lab.cluster(EAST)["endpoints"]
        if endpoint["service"] == "user-service"
    )
    set_ready(lab, EAST, ready=False)
    try:
        async with load.steady(target, ca, rate=200) as running:
            await load.until(
                lambda: (
                    len(running.calls) > 300
                    and not any(call.served_by.endswith(gone) for call in running.calls[-300:])
                ),
                timeout_s=15,
                what=f"{gone} gets no more calls",
            )
    finally:
        set_ready(lab, EAST, ready=True)
    assert running.failed == []
    assert running.by_cluster()[EAST] / len(running.calls) == pytest.approx(0.4, abs=0.1)


async def test_a_gateway_restarted_without_its_agent_serves_from_disk(lab: Lab) -> None:
    name = lab.cluster(WEST)["gateways"][1]["name"]
    target, ca, admin = lab.gateway(WEST, 1), lab.ca(), lab.admin(WEST, 1)
    before = ask(admin, "/ready")
    assert before["state"] == "InSync"
    kill(lab, "agent", f"agent-{WEST}")
    kill(lab, "gateway", name)
    lab.fedctl("lab", "restore", name)
    now = ask(admin, "/ready")
    assert (now["state"], now["ready"]) == ("ServingFromSnapshot", True)
    assert set(now["listeners"]) == set(before["listeners"])
    done = await load.calls(target, ca, count=1_000)
    assert done.failed == []
    assert done.by_cluster()[EAST] == pytest.approx(400, abs=70)
    lab.fedctl("lab", "restore", f"agent-{WEST}")
    lab.wait(
        lambda: ask(admin, "/ready")["state"] == "InSync",
        timeout_s=20,
        what="the gateway is in sync with its agent again",
    )
