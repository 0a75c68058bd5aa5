"""Both proxies on one ADS server, before the same upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from envoy.config.route.v3 import route_pb2

from federation.discovery import DiscoveryServer, DiscoverySettings
from federation.model.base import ClusterId, Region
from federation.model.snapshot import (
    ConnectionLimits,
    Endpoint,
    EndpointSet,
    FilterChain,
    Listener,
    ListenerKind,
    LocalityEndpoints,
    Snapshot,
    Upstream,
)
from federation.wire.xds import NodeView, XdsResources, to_resources
from tests.conformance.differential import client
from tests.conformance.differential.generator import (
    DEAD,
    HOST_NAME,
    LIVE,
    MARKER_PATH,
    MIXED,
    Batch,
)
from tests.conformance.differential.scripts import Script, Seen
from tests.conformance.differential.upstream import Upstreams
from tests.testkit.envoy import envoy
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running

CLUSTER = ClusterId("us-west-1")
TABLE = "app/differential/80"
IN_FORCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Served:
    """A publication: all but the routes, and the routes as they are spelled for xDS."""

    base: Snapshot
    table: route_pb2.RouteConfiguration


def render(served: Served, node: NodeView) -> XdsResources:
    return replace(to_resources(served.base, node), routes={TABLE: served.table})


class Rig:
    """Envoy and the gateway, by name; and what they are told."""

    def __init__(
        self,
        server: DiscoveryServer[Served],
        base: Snapshot,
        upstreams: Upstreams,
        ports: Mapping[str, int],
    ) -> None:
        self._server, self._base, self._upstreams = server, base, upstreams
        self.ports = ports

    async def serve(self, batch: Batch) -> None:
        """Have the batch's table in force in both; ``AssertionError`` when one refuses it."""
        self._server.publish(Served(self._base, batch.table))
        async with asyncio.timeout(IN_FORCE_S):
            for name, port in self.ports.items():
                while not await self._is_in_force(port, batch.seed):
                    self._check_refusals(name)
                    await asyncio.sleep(0.02)

    async def _is_in_force(self, port: int, seed: int) -> bool:
        script = Script(path=MARKER_PATH, authority=HOST_NAME, chunks=())
        with contextlib.suppress(OSError):
            answer = await client.call(port, "marker", script)
            return ("grpc-message", str(seed)) in answer.headers
        return False

    def _check_refusals(self, name: str) -> None:
        acks = self._server.acks.value
        refused = [it for node in acks.nodes for it in node.refused] if acks else []
        assert not refused, f"waiting for {name}: {refused}"

    async def run(self, proxy: str, name: str, script: Script) -> Seen:
        """One case through one proxy."""
        case = self._upstreams.expect(f"{name}-{proxy}", script)
        answer = await client.call(self.ports[proxy], f"{name}-{proxy}", script)
        await case.settled()
        return Seen(answer, case.tries)


@asynccontextmanager
async def running_rig(folder: Path) -> AsyncIterator[Rig]:
    """Everything, ready for a first batch."""
    upstreams = Upstreams()
    server: DiscoveryServer[Served] = DiscoveryServer(
        DiscoverySettings(cluster=CLUSTER), render=render
    )
    envoy_port, gateway_port = sorted((free_port(), free_port()))
    async with contextlib.AsyncExitStack() as stack:
        endpoints = await stack.enter_async_context(upstreams.listening(len(LIVE)))
        dead = stack.enter_context(_refusing_port())
        base = _base(envoy_port, endpoints, dead)
        await server.start()
        stack.push_async_callback(server.stop)
        await stack.enter_async_context(envoy(server.address, folder))
        offset = gateway_port - envoy_port
        stack.enter_context(running(_gateway(server.address, folder, offset), (), folder / "log"))
        yield Rig(server, base, upstreams, {"envoy": envoy_port, "gateway": gateway_port})


@contextlib.contextmanager
def _refusing_port() -> Iterator[int]:
    """A port that is bound and not listened on: connections are refused, and nobody takes it."""
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        yield holder.getsockname()[1]


def _gateway(agent: str, folder: Path, offset: int) -> list[str]:
    command = [sys.executable, "-m", "gateway", "--name=gateway-1", f"--cluster={CLUSTER}"]
    command += [f"--agent={agent}", f"--state-dir={folder / 'state'}", f"--address={HOST}"]
    return [*command, f"--port-offset={offset}"]


def _base(port: int, live: list[int], dead: int) -> Snapshot:
    places = {name: (place,) for name, place in zip(LIVE, live, strict=True)}
    places |= {DEAD: (dead,), MIXED: (dead, live[0])}
    listener = Listener(TABLE, ListenerKind.INGRESS, port, (FilterChain("grpc"),), TABLE)
    return Snapshot(
        cluster=CLUSTER,
        listeners=(listener,),
        upstreams=tuple(
            Upstream(name, connect_timeout_ms=1_000, limits=ConnectionLimits())
            for name in sorted(places)
        ),
        endpoint_sets=tuple(
            EndpointSet(name, (_locality(ports),)) for name, ports in sorted(places.items())
        ),
    )


def _locality(ports: tuple[int, ...]) -> LocalityEndpoints:
    endpoints = tuple(Endpoint(HOST, port) for port in ports)
    return LocalityEndpoints(CLUSTER, Region("here"), 0, 1, endpoints)
