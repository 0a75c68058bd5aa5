"""The gateway as a process with its native core: calls, restart without its agent, drain."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from federation.discovery import DiscoveryServer, DiscoverySettings
from federation.model.snapshot import Snapshot
from federation.model.telemetry import AccessLog, Telemetry
from federation.wire.xds import to_resources
from tests.integration.discovery_support import eventually, snapshot
from tests.integration.test_discovery_envoy import echo_server, say
from tests.testkit.ports import free_port

ROOT = Path(__file__).parents[2]


@dataclass
class Process:
    """A running gateway and what it has logged."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)

    def admin(self) -> str | None:
        """The admin endpoint's address, once it is logged."""
        for line in self.lines:
            if line["event"] == "gateway started":
                return f"http://{line['admin']}"
        return None

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(json.loads(line))

    async def lives(self) -> bool:
        """Whether ``/healthz`` says so."""
        async with aiohttp.ClientSession(self.admin()) as http, http.get("/healthz") as answer:
            return answer.status == 200

    async def ready(self) -> dict[str, Any]:
        """The body of ``/ready``."""
        async with aiohttp.ClientSession(self.admin()) as http, http.get("/ready") as answer:
            body: dict[str, Any] = await answer.json()
            return body


@asynccontextmanager
async def gateway(
    agent: str, state_dir: Path, *, identity: Path | None = None
) -> AsyncIterator[Process]:
    """A gateway process, started; ``identity`` is a folder with tls.crt, tls.key and ca.crt."""
    files = (
        ("--identity-cert", "tls.crt"),
        ("--identity-key", "tls.key"),
        ("--trust-bundle", "ca.crt"),
    )
    own = [part for flag, name in files if identity for part in (flag, str(identity / name))]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "--name", "gw-1", "--cluster", "us-west-1"),
        *("--agent", agent, "--state-dir", str(state_dir), "--address", "127.0.0.1"),
        *("--drain-grace", "2", *own),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Process(process)
    reading = asyncio.create_task(running.read_log())
    try:
        await eventually(lambda: running.admin() or process.returncode is not None)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


@asynccontextmanager
async def serving() -> AsyncIterator[DiscoveryServer[Snapshot]]:
    server: DiscoveryServer[Snapshot] = DiscoveryServer(
        DiscoverySettings(cluster="us-west-1"), render=to_resources
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def client(port: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{port}",
        options=[("grpc.max_reconnect_backoff_ms", 200), ("grpc.use_local_subchannel_pool", 1)],
    )


async def test_calls_pass_and_follow_a_change_of_upstream_without_a_failure(tmp_path: Path) -> None:
    port = free_port()
    async with (
        serving() as server,
        echo_server("one") as one,
        echo_server("two") as two,
        gateway(server.address, tmp_path) as running,
        client(port) as channel,
    ):
        server.publish(snapshot(one, port=port, upstream="old"))

        async def first() -> bool:
            return await say(channel) == "one"

        await eventually(first)
        assert await running.lives()
        server.publish(snapshot(two, port=port, upstream="new"))
        names: list[str | None] = []

        async def moved() -> bool:
            names.append(await say(channel))
            return names[-1] == "two"

        await eventually(moved)
        assert None not in names


async def test_a_restart_without_the_agent_serves_the_last_good_configuration(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with echo_server("one") as one:
        async with serving() as server, gateway(server.address, tmp_path):
            address = server.address
            server.publish(snapshot(one, port=port))
            await eventually((tmp_path / "last-good.xds").exists)
        async with gateway(address, tmp_path) as again, client(port) as channel:

            async def answered() -> bool:
                return await say(channel) == "one"

            await eventually(answered)
            body = await again.ready()
            assert (body["state"], body["ready"]) == ("ServingFromSnapshot", True)


async def test_a_port_in_use_is_refused_and_stops_no_other_listener(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        async with serving() as server, gateway(server.address, tmp_path) as process:
            server.publish(snapshot("127.0.0.1:9", port=port))
            refused = await eventually(
                lambda: (
                    server.acks.value
                    and server.acks.value.nodes
                    and server.acks.value.nodes[0].refused
                )
            )
            assert refused[0].name == f"infra/gw/{port}"
            assert "in use" in refused[0].message
            assert (await process.ready())["ready"] is False


async def test_sighup_reads_files_again_and_changes_no_connection(tmp_path: Path) -> None:
    port = free_port()
    async with (
        serving() as server,
        echo_server("one") as one,
        gateway(server.address, tmp_path) as process,
        client(port) as channel,
    ):
        server.publish(snapshot(one, port=port))

        async def answered() -> bool:
            return await say(channel) == "one"

        await eventually(answered)
        before = await _accepted(process)
        process.process.send_signal(signal.SIGHUP)
        await eventually(lambda: any(line["event"] == "reloaded" for line in process.lines))
        for _ in range(20):
            assert await say(channel) == "one"
        assert await _accepted(process) == before
        assert process.process.returncode is None


async def test_sighup_opens_access_logs_anew(tmp_path: Path) -> None:
    port, log, moved = free_port(), tmp_path / "access.log", tmp_path / "access.log.1"
    telemetry = Telemetry(access_logs=(AccessLog(path=str(log), text="%METHOD% %SOURCE_CLUSTER%"),))
    async with (
        serving() as server,
        echo_server("one") as one,
        gateway(server.address, tmp_path) as process,
        client(port) as channel,
    ):
        plain = snapshot(one, port=port)
        told = tuple(replace(each, telemetry=telemetry) for each in plain.listeners)
        server.publish(replace(plain, listeners=told))

        async def answered() -> bool:
            return await say(channel) == "one"

        await eventually(answered)
        await eventually(log.exists)
        log.rename(moved)
        process.process.send_signal(signal.SIGHUP)
        await eventually(lambda: any(line["event"] == "reloaded" for line in process.lines))
        await say(channel)
        await eventually(lambda: log.exists() and log.read_text())
        assert set(log.read_text().splitlines()) == {"/test.Echo/Say us-west-1"}
        assert "/test.Echo/Say us-west-1" in moved.read_text()


async def _accepted(process: Process) -> int:
    """Connections of clients that the gateway has taken so far."""
    async with aiohttp.ClientSession(process.admin()) as http, http.get("/stats") as answer:
        return int((await answer.json())["core"]["numbers"]["downstream_accepted"])


async def test_sigterm_lets_an_open_call_end_and_then_ends_the_process(tmp_path: Path) -> None:
    port = free_port()
    released = asyncio.Event()

    async def slow(_request: bytes, _context: object) -> bytes:
        await released.wait()
        return b"done"

    server_of_app = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(slow)
    server_of_app.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),)
    )
    app = f"127.0.0.1:{server_of_app.add_insecure_port('127.0.0.1:0')}"
    await server_of_app.start()
    try:
        async with (
            serving() as server,
            gateway(server.address, tmp_path) as process,
            client(port) as channel,
        ):
            server.publish(snapshot(app, port=port))
            call = channel.unary_unary("/test.Echo/Say")(b"", timeout=20, wait_for_ready=True)

            async def is_open() -> bool:
                async with (
                    aiohttp.ClientSession(process.admin()) as http,
                    http.get("/stats") as answer,
                ):
                    return bool((await answer.json())["core"]["numbers"]["calls_open"])

            await eventually(is_open)
            process.process.send_signal(signal.SIGTERM)
            await eventually(lambda: any(li["event"] == "draining" for li in process.lines))
            released.set()
            assert bytes(await call) == b"done"
            async with asyncio.timeout(5):
                assert await process.process.wait() == 0
    finally:
        await server_of_app.stop(0)


async def test_an_unusable_state_file_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    (tmp_path / "last-good.xds").write_text("something else")
    async with serving() as server, gateway(server.address, tmp_path) as process:
        warning = next(li for li in process.lines if "not used" in li["event"])
        assert "is not a last-good file" in warning["why"]
        assert (await process.ready())["state"] == "Starting"
