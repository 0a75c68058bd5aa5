"""Looking at a real lab: live calls, why they go where, logs by time, and a bundle of it all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import EAST, WEST
from tests.testkit.lab import Caller, Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

METHOD = "com.example.api.UserService/GetUser"


def test_live_calls_and_why_they_go_where(lab: Lab) -> None:
    command = [sys.executable, "-m", "federation.cli", "tap", "-o", "json", "--method", METHOD]
    caller = Caller(lab.gateway(WEST), lab.ca())
    shown = lab.directory / "tapped.jsonl"  # a pipe that nobody reads would hold the tap up
    with shown.open("w") as out:
        tap = subprocess.Popen(
            [*command, "--for", "8s"],
            env=os.environ | {"FEDERATION_LAB_DIR": str(lab.directory)},
            stdout=out,
        )
    deadline = time.monotonic() + 90
    while tap.poll() is None:
        assert time.monotonic() < deadline
        caller()
    caller.close()
    told = [json.loads(line) for line in shown.read_text().splitlines()]
    assert len(told) >= 30
    first = next(call for call in told if call["listener"] == "infra/grpc-gateway/443")
    assert first["gateway"].startswith(f"gateway-{WEST}")
    # The other cluster's gateways tell what they were passed.
    assert {call["destination_cluster"] for call in told} == {WEST, EAST}

    log = lab.directory / "recorded.jsonl"
    log.write_text(json.dumps({**first, "trace_id": "0af7651916cd43dd8448eb211c80319c"}))
    found = lab.fedctl("trace", "0af7651916cd43dd8448eb211c80319c", "--log", str(log), "-o", "json")
    said = json.loads(found.out)
    assert said["rule"] == first["rule"]
    assert said["recorded"]["endpoint"] == first["endpoint"]
    assert [part["percent"] for part in said["destinations"]] == [40, 60]
    assert all(part["why"] for part in said["destinations"])

    typed = ("--from", WEST, "--host", "nobody.example.com", "--method", METHOD)
    assert "nothing takes it" in lab.fedctl("trace", *typed).out


def test_logs_of_all_parts_come_by_time(lab: Lab) -> None:
    lines = lab.fedctl("logs", "-o", "json", "--tail", "200").out.splitlines()
    told = [json.loads(line) for line in lines]
    assert {"agent", "gateway", "resolver"} <= {line["component"] for line in told}
    assert [line["time"] for line in told] == sorted(line["time"] for line in told)
    agents = lab.fedctl("logs", "-o", "json", "--component", "agent", "--cluster", WEST).out
    assert {json.loads(line)["source"] for line in agents.splitlines()} == {f"agent-{WEST}"}


def test_logs_are_followed_over_a_restart(lab: Lab) -> None:
    agent = f"agent-{EAST}"
    command = [sys.executable, "-m", "federation.cli", "logs", "-o", "json", "--follow"]
    following = subprocess.Popen(
        [*command, "--component", "agent", "--cluster", EAST, "--tail", "1"],
        env=os.environ | {"FEDERATION_LAB_DIR": str(lab.directory), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    with following:
        try:
            first = json.loads(following.stdout.readline())
            assert first["source"] == agent
            lab.fedctl("lab", "kill", agent)
            lab.fedctl("lab", "restore", agent)
            later = json.loads(following.stdout.readline())
            following.send_signal(signal.SIGINT)
            assert following.wait(timeout=20) == 130
        finally:
            following.kill()
    assert (later["source"], later["component"], later["cluster"]) == (agent, "agent", EAST)
    assert later["time"] > first["time"]


def test_a_bundle_has_the_lab_in_it_and_no_key_of_it(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    lab.fedctl("support-bundle", "--out", str(path))
    with tarfile.open(path) as archive:
        files = {
            member.name.removeprefix("fedctl-bundle/"): archive.extractfile(member)
            for member in archive.getmembers()
        }
        texts = {name: file.read().decode() for name, file in files.items() if file}
    gateway = f"gateways/gateway-{WEST}-1"
    wanted = {"manifest.json", "status.json", "check.json", "objects.json", "logs.jsonl"}
    wanted |= {f"{gateway}/{name}.json" for name in ("ready", "stats", "config_dump", "peers")}
    assert wanted <= set(texts)
    assert json.loads(texts["manifest.json"])["missing"] == {}
    keys = [key.read_text() for key in (lab.directory / "pki").glob("*.key")]
    assert keys
    whole = "".join(texts.values())
    for key in keys:
        assert not [line for line in key.splitlines()[1:-1] if line in whole]
    assert "-----BEGIN" not in whole
