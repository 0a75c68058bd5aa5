"""Keepalive from a ConfigMap: from the manifest to what clients' connections see."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest
from hyperframe.frame import PingFrame

from tests.native import frames
from tests.native.support import backends
from tests.testkit import standalone as kit
from tests.testkit.ports import free_port

EVERY_CALL = "[{backendRefs: [{name: echo, port: 9090}]}]"


def config_map(document: str, *, name: str = "keepalive", namespace: str = "infra") -> str:
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"data:\n  keepalive.json: |\n    {document}\n"
    )


def parameters(name: str) -> str:
    return f'  infrastructure: {{parametersRef: {{group: "", kind: ConfigMap, name: {name}}}}}\n'


def last_words(port: int) -> list[tuple[int, bytes]]:
    """Code and debug data of the GOAWAYs until the gateway closes."""
    with frames.client(f"127.0.0.1:{port}") as client:
        client.all_frames()
        return [(code, words) for _, code, words in client.goodbyes()]


@pytest.mark.parametrize("is_annotated", [False, True])
async def test_idle_connections_leave_as_the_config_map_says(
    tmp_path: Path, is_annotated: bool
) -> None:
    port = free_port()
    gateway = kit.gateway(kit.plain(port), extra="" if is_annotated else parameters("keepalive"))
    if is_annotated:
        note = "annotations: {gateway.federation.dev/keepalive: infra/keepalive}, name: gw"
        gateway = gateway.replace("name: gw", note, 1)
    document = '{"keepalive": {"maxConnectionIdle": "200ms"}}'
    async with kit.standalone(tmp_path, [gateway, config_map(document)]):
        words = await asyncio.to_thread(last_words, port)
        assert words[0] == (0, b"max_idle")


async def test_one_port_has_its_own_settings_and_a_change_holds_for_new_connections(
    tmp_path: Path,
) -> None:
    first, second = free_port(), free_port()
    gateway = kit.gateway(
        kit.plain(first), kit.plain(second, "other"), extra=parameters("keepalive")
    )
    document = (
        '{"keepalive": {"maxConnectionIdle": "1h"}, '
        f'"perPort": [{{"port": {second}, "keepalive": {{"maxConnectionIdle": "150ms"}}}}]}}'
    )
    async with kit.standalone(tmp_path, [gateway]) as running:
        running.apply("keepalive.yaml", config_map(document))

        def leaves() -> bool:
            """Whether a new connection is asked to leave: one made before the change is not."""
            with frames.client(f"127.0.0.1:{second}") as client, contextlib.suppress(TimeoutError):
                client.socket.settimeout(2)
                client.until_goodbye()
            return [words for _, _, words in client.goodbyes()] == [b"max_idle"]

        with frames.client(f"127.0.0.1:{first}") as standing:
            assert any([await asyncio.to_thread(leaves) for _ in range(4)])
            standing.say(PingFrame(0, opaque_data=b"whatever"))
            assert next(standing.frames()), "the other port's connection stands"


async def test_calls_outlive_the_age_of_connections(tmp_path: Path) -> None:
    port = free_port()
    with backends("a") as [backend]:
        manifests = [
            kit.gateway(kit.plain(port), extra=parameters("keepalive")),
            kit.service("echo", int(backend.address.rpartition(":")[2])),
            kit.route("echo", EVERY_CALL),
            config_map(
                '{"keepalive": {"maxConnectionAge": "300ms", "maxConnectionAgeGrace": "10s", '
                '"time": "100ms", "timeout": "5s"}}'
            ),
        ]
        async with (
            kit.standalone(tmp_path, manifests),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            unary = channel.unary_unary("/test.Echo/Unary")
            peers: set[str] = set()
            loop = asyncio.get_running_loop()
            end = loop.time() + kit.DEADLINE_S
            calls = 0
            while len(peers) < 5 and loop.time() < end:
                assert await unary(b"x", timeout=5) == b"x"
                calls += 1
                peers = {*peers, *_connections(port)}
            assert len(peers) >= 5, f"{calls} calls went over {len(peers)} connections"


def _connections(port: int) -> set[str]:
    """Local ports of clients connected to ``port``, as the kernel has them."""
    found = set()
    lines = [*_sockets("tcp"), *_sockets("tcp6")]
    for line in lines:
        _, local, remote, state, *_ = line.split()
        if state == "01" and int(remote.rpartition(":")[2], 16) == port:
            found.add(local)
    return found


def _sockets(family: str) -> list[str]:
    return Path(f"/proc/net/{family}").read_text().splitlines()[1:]


async def test_a_config_map_that_nobody_names_or_is_wrong_is_told(tmp_path: Path) -> None:
    gateway = kit.gateway(kit.plain(free_port()), extra=parameters("wrong"))
    wrong = config_map('{"keepalive": {"maxConnectionAge": "1ms"}}', name="wrong")
    lonely = config_map("{}", name="grpc-keepalive-config", namespace="app")
    async with kit.standalone(tmp_path, [gateway, wrong, lonely]) as running:
        await running.until_said(
            "ConfigMap app/grpc-keepalive-config: Accepted=False, NotReferenced: "
            "no Gateway refers to it"
        )
        reason = "keepalive.maxConnectionAge: must be between 100ms and 720h, got 1ms"
        await running.until_said(reason)
        await running.until_said("Gateway infra/gw: Accepted=False, InvalidParameters")
        await running.until_said("listening: infra/gw/")
