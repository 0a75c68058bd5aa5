"""Upstreams come and go under load, faster than they can be taken up, and no call fails."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import grpc
import pytest

from tests.integration.discovery_support import eventually, snapshot
from tests.integration.test_discovery_and_shell import serving
from tests.integration.test_discovery_envoy import echo_server, say
from tests.integration.test_gateway_process import client, gateway
from tests.testkit.envoy import ENVOY, envoy
from tests.testkit.ports import free_port

CHANGES = 80
SEED = 1


def data_plane(kind: str, agent: str, folder: Path) -> AbstractAsyncContextManager[object]:
    return envoy(agent, folder) if kind == "envoy" else gateway(agent, folder)


@pytest.mark.parametrize(
    "kind",
    [
        "gateway",
        pytest.param("envoy", marks=pytest.mark.skipif(ENVOY is None, reason="needs Envoy")),
    ],
)
async def test_no_call_fails_while_upstreams_come_and_go(kind: str, tmp_path: Path) -> None:
    port, choose, results = free_port(), random.Random(SEED), Counter[str]()
    async with (
        serving() as server,
        echo_server("one") as one,
        echo_server("two") as two,
        data_plane(kind, server.address, tmp_path),
        client(port) as channel,
    ):
        generation = server.publish(snapshot(one, port=port, upstream="u0"))
        await eventually(lambda: say(channel))
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                try:
                    await channel.unary_unary("/test.Echo/Say")(b"", timeout=5)
                    results["answered"] += 1
                except grpc.aio.AioRpcError as failure:
                    results[f"{failure.code().name}: {failure.details()}"] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load())
            for _ in range(CHANGES):
                name, other = f"u{choose.randrange(6)}", f"v{choose.randrange(4)}"
                weights = {name: 1, other: choose.randrange(1, 100)}
                source = snapshot(choose.choice([one, two]), port=port, weights=weights)
                generation = server.publish(source)
                # A few calls each: some changes overtake the one before, some do not.
                target = results.total() + choose.randrange(12)
                await eventually(lambda until=target: results.total() >= until)
            await eventually(
                lambda: server.acks.value and server.acks.value.nodes[0].generation == generation
            )
            stop.set()
        assert set(results) == {"answered"}, results
        assert server.acks.value is not None
        assert server.acks.value.nodes[0].refused == ()
