"""One change on an API server with hundreds of objects costs what it touches: counted, not timed.

The size that is promised, with times and memory, is ``python -m tests.bench kubernetes_scale``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from federation.adapters.kubernetes import Connection, ConnectionSettings, connected
from federation.cli.lab.kubernetes.crds import released_definitions
from tests.testkit.big_cluster import (
    PROBE,
    BigCluster,
    Json,
    fill,
    own_crds,
    path_of,
    probe_slice,
)
from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, Federation, Process, process, until
from tests.testkit.kubernetes import KubernetesServer, install_crds
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(180)

BIG = BigCluster(services=300, exports=0, routes=120, gateways=3, namespaces=5)


@dataclass
class Place:
    """The cluster and its agent."""

    kubernetes: KubernetesServer
    agent: Process

    def publications(self) -> list[dict[str, Any]]:
        """What the agent says of each publication."""
        lines = (line for line in self.agent.output().splitlines() if line.startswith("{"))
        entries = (json.loads(line) for line in lines)
        return [entry for entry in entries if entry["event"] == "snapshot published"]

    def compiled_by(self, document: Json) -> dict[str, int]:
        """What the publication that follows the write of ``document`` compiled anew."""
        before = len(self.publications())
        path = f"{path_of(document)}/{document['metadata']['name']}"
        ask(self.kubernetes, lambda it: it.apply(path, document, manager="test"))
        until(lambda: len(self.publications()) > before, self.agent.output)
        counts: dict[str, int] = self.publications()[before]["compiled"]
        return {name: count for name, count in counts.items() if count}


def ask(server: KubernetesServer, work: Callable[[Connection], Awaitable[object]]) -> None:
    """Do ``work`` with a connection to the API server."""

    async def connect() -> None:
        async with connected(ConnectionSettings(server.kubeconfig)) as connection:
            await work(connection)

    asyncio.run(connect())


async def make(connection: Connection) -> None:
    """All that the API server has before the agent starts."""
    await install_crds(connection, [*released_definitions(), *own_crds()])
    await fill(connection, [*BIG.objects(), *BIG.probe("10.77.1.1")])


@pytest.fixture
def place(own_kubernetes: KubernetesServer, tmp_path: Path) -> Iterator[Place]:
    ask(own_kubernetes, make)
    with contextlib.ExitStack() as stack:
        federation = Federation(stack.enter_context(running_etcd()).endpoint, tmp_path)
        options = (
            *("agent", "--cluster", "west-a", "--region", "us-west-1"),
            *("--xds", f"127.0.0.1:{free_port()}", "--state-dir", str(tmp_path / "agent")),
            *("--source", "kubernetes", "--kubeconfig", str(own_kubernetes.kubeconfig)),
        )
        command = (*FEDCTL, *federation.options, *options)
        agent = stack.enter_context(process(tmp_path / "agent.log", *command))
        agent.says("snapshot published")
        yield Place(own_kubernetes, agent)


def test_a_change_compiles_what_it_touches(place: Place) -> None:
    first = place.publications()[0]["compiled"]
    assert first["routes"] == BIG.routes + 1
    assert first["services"] > BIG.routes
    assert place.compiled_by(probe_slice("10.77.1.2")) == {"services": 1}
    assert place.compiled_by(probe_slice("10.77.1.1")) == {"services": 1}
    (route,) = (it for it in BIG.probe("10.77.1.1") if it["kind"] == "GRPCRoute")
    assert route["metadata"]["name"] == PROBE
    route["spec"]["rules"][0]["matches"] = [{"method": {"service": "test.Echo"}}]
    assert place.compiled_by(route) == {"routes": 1, "hosts": 1, "statuses": 1}
