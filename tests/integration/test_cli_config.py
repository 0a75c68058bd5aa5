"""``fedctl config`` against real admin endpoints: two gateways, one of which is cut off."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.agent_feed import AgentFeed
from gateway.settings import GatewaySettings
from gateway.shell import Shell, ShellSettings
from gateway.status import State
from tests.integration.discovery_support import PaperCore, eventually, snapshot
from tests.integration.test_discovery_and_shell import serving

FEDCTL = [sys.executable, "-m", "federation.cli"]


@asynccontextmanager
async def gateway(name: str, agent: str, folder: Path, offset: int) -> AsyncIterator[Shell]:
    settings = GatewaySettings(
        name=name, cluster="us-west-1", agent=agent, state_dir=folder, port_offset=offset
    )
    shell = Shell(ShellSettings(name, "us-west-1", "127.0.0.1:0", None, 1.0), core=PaperCore())
    feed = AgentFeed(settings, shell.runtime, admin=lambda: shell.admin.address)
    task = asyncio.create_task(shell.run(feed))
    try:
        await eventually(lambda: not shell.admin.address.endswith(":0") or task.done())
        yield shell
    finally:
        shell.stop()
        await task


async def fedctl(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *FEDCTL, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def named(*shells: Shell) -> list[str]:
    pairs = ((shell.status().name, shell.admin.address) for shell in shells)
    return [word for name, address in pairs for word in ("--gateway", f"{name}={address}")]


async def synced(shell: Shell, version: int) -> None:
    await eventually(lambda: shell.status().state is State.IN_SYNC)
    await eventually(lambda: shell.runtime.version >= version)


async def test_a_gateway_that_is_cut_off_differs(tmp_path: Path) -> None:
    async with (
        serving() as one,
        serving() as two,
        gateway("gw-1", one.address, tmp_path / "1", 20_000) as first,
        gateway("gw-2", two.address, tmp_path / "2", 21_000) as second,
    ):
        for server in (one, two):
            server.publish(snapshot("127.0.0.1:9090"))
        for shell in (first, second):
            await synced(shell, 1)
        at = named(first, second)
        code, out, err = await fedctl("config", "diff", "gw-1", "gw-2", *at)
        assert (code, err) == (0, ""), out
        assert "the same" in out

        await two.stop()
        one.publish(snapshot("127.0.0.1:9091"))
        await eventually(lambda: "127.0.0.1:9091" in json.dumps(endpoints(first)))
        code, out, err = await fedctl("config", "diff", "gw-1", "gw-2", *at, "-o", "json")
        assert (code, err) == (1, "")
        (found,) = json.loads(out)["differences"]
        assert (found["kind"], found["path"].endswith("address")) == ("endpoints", True)
        assert (found["left"], found["right"]) == ('"127.0.0.1:9091"', '"127.0.0.1:9090"')

        # What was sent to each is in force there.
        for name in ("gw-1", "gw-2"):
            code, out, _ = await fedctl("config", "diff", name, *at)
            assert code == 0, out


def endpoints(shell: Shell) -> list[Any]:
    return [piece.body for i, piece in shell.runtime.in_force.items() if i.kind == "endpoints"]


async def test_a_dump_is_readable_and_a_gateway_that_is_away_is_named(tmp_path: Path) -> None:
    async with (
        serving() as server,
        gateway("gw-1", server.address, tmp_path / "1", 20_000) as shell,
    ):
        server.publish(snapshot("127.0.0.1:9090"))
        await synced(shell, 1)
        code, out, _ = await fedctl("config", "dump", "gw-1", *named(shell), "--kind", "listeners")
        assert code == 0
        assert "infra/gw/8080" in out
        assert "port: 28080" in out
        code, _, err = await fedctl("config", "dump", "nobody", *named(shell))
        assert code == 4
        assert "known gateways: gw-1" in err
        gone = named(shell)
    code, _, err = await fedctl("config", "dump", *gone)
    assert code == 1
    assert err.startswith("error: reading the configuration of gw-1: GET http://127.0.0.1:")
