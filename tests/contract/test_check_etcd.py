"""``fedctl check --only etcd`` on real etcds: lost members, alarms, history, rights."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aetcd import rpc
from typer.testing import CliRunner

from federation.adapters.etcd import EtcdSettings, EtcdStore, health
from federation.adapters.etcd.connection import Connection
from federation.cli.main import app
from federation.ports import Put
from tests.testkit.etcd import etcd_binary, running_etcd
from tests.testkit.federation import until
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(120)


def findings(*options: str) -> dict[str, dict[str, Any]]:
    """What ``check`` finds about etcd, by what it is."""
    done = CliRunner().invoke(app, [*options, "check", "--only", "etcd", "-o", "json"])
    return {it["what"]: it for it in json.loads(done.stdout)["findings"]}


@contextlib.contextmanager
def running_members(directory: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Three members of one etcd, by their client addresses."""
    clients = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    peers = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    cluster = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
    started: dict[str, subprocess.Popen[bytes]] = {}
    with contextlib.ExitStack() as stack:
        for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            log = stack.enter_context((directory / f"m{number}.log").open("wb"))
            client_url = f"http://{client}"
            command = [
                *(str(etcd_binary()), "--name", f"m{number}", "--unsafe-no-fsync"),
                *("--data-dir", str(directory / f"m{number}"), "--initial-cluster", cluster),
                *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            ]
            started[client] = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(started[client].wait, timeout=20)
            stack.callback(started[client].kill)
        yield started


def test_one_member_of_three_is_lost(tmp_path: Path) -> None:
    with running_members(tmp_path) as members:
        first, _, last = members
        whole = {"everybody who reaches etcd may write every key"}
        until(lambda: set(findings("--etcd", first)) == whole, lambda: findings("--etcd", first))
        members[last].kill()
        # It may have led: the others answer nothing until one of them does.
        away = "etcd does not answer"
        until(lambda: away not in findings("--etcd", first), lambda: findings("--etcd", first))
        found = findings("--etcd", first)
        assert found["a member cannot be reached from here"]["subject"].endswith(last)
        quorum = found["one more lost member loses the quorum"]
        assert quorum["why"] == "2 of 3 voting members are well and 2 are needed"
        assert quorum["next"]


def test_an_alarm_that_is_raised() -> None:
    with running_etcd() as etcd:
        settings = EtcdSettings((etcd.endpoint,))
        assert asyncio.run(health(settings)).alarms == ()

        async def raise_alarm() -> None:
            connection = Connection(settings)
            request = rpc.AlarmRequest(
                action=rpc.AlarmRequest.ACTIVATE,
                alarm=rpc.AlarmType.NOSPACE,
                memberID=(await health(settings)).members[0].member,
            )
            await rpc.MaintenanceStub(connection.link().channel).Alarm(request)
            await connection.close()

        asyncio.run(raise_alarm())
        found = findings("--etcd", etcd.endpoint)["the alarm NOSPACE is raised"]
        assert found["severity"] == "error"
        assert "etcdctl alarm disarm" in found["next"]


def test_history_that_nobody_compacts(monkeypatch: pytest.MonkeyPatch) -> None:
    # A hundred thousand writes take minutes, so fewer are many here.
    monkeypatch.setattr(sys.modules[health.__module__], "HISTORY_KEPT", 20)
    with running_etcd() as etcd:
        settings = EtcdSettings((etcd.endpoint,))

        async def write() -> None:
            store = EtcdStore(settings)
            for number in range(30):
                await store.commit([Put("/test/key", str(number).encode())])
            await store.close()

        assert asyncio.run(health(settings)).long_history is False
        asyncio.run(write())
        found = findings("--etcd", etcd.endpoint)["history is not compacted"]
        assert "--auto-compaction-mode" in found["next"]
