"""One snapshot, two data planes: out by mutual TLS, in by the east-west listener.

The node is its own peer: ingress, peer endpoint, east-west listener of the same node, server. A
stock Envoy and our gateway must both carry it, and both must refuse a peer of another identity.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from federation.cli.lab.authority import Authority, gateway_identity
from federation.discovery import DiscoveryServer
from federation.model.base import ClusterId, Region
from federation.model.snapshot import (
    Endpoint,
    EndpointSet,
    FilterChain,
    Forward,
    HeaderChanges,
    HeaderMatch,
    Listener,
    ListenerKind,
    LocalityEndpoints,
    MatchKind,
    PathMatch,
    PeerTls,
    Route,
    RouteMatch,
    RouteTable,
    Snapshot,
    Upstream,
    VirtualHost,
    Weighted,
)
from tests.integration.discovery_support import eventually
from tests.integration.test_discovery_and_shell import serving
from tests.integration.test_discovery_envoy import echo_server, say
from tests.integration.test_gateway_process import client, gateway
from tests.testkit.envoy import ENVOY, envoy
from tests.testkit.ports import free_port

HEADER, DESTINATION = "x-federation-destination", "app/echo:9090"
CLUSTER, REGION = ClusterId("us-west-1"), Region("us-west")
EVERYTHING = PathMatch(MatchKind.PREFIX, "/")


def hairpin(server: str, *, port: int, eastwest_port: int, peer: str) -> Snapshot:
    """Ingress on ``port``, which sends all calls to the east-west listener as to ``peer``."""
    host, _, server_port = server.rpartition(":")
    out = Route(
        "out",
        "out",
        RouteMatch(EVERYTHING),
        Forward((Weighted("import", 1, HeaderChanges(set=((HEADER, DESTINATION),))),)),
    )
    into = Route(
        "in",
        "in",
        RouteMatch(EVERYTHING, (HeaderMatch(HEADER, MatchKind.EXACT, DESTINATION),), grpc=False),
        Forward((Weighted("local", 1),)),
        request_headers=HeaderChanges(remove=(HEADER,)),
    )
    own = PeerTls((gateway_identity(CLUSTER),))
    ingress, eastwest = f"infra/gw/{port}", "federation/east-west"
    return Snapshot(
        cluster=CLUSTER,
        listeners=(
            Listener(
                eastwest,
                ListenerKind.EAST_WEST,
                eastwest_port,
                (FilterChain("peers", tls=own),),
                eastwest,
            ),
            Listener(ingress, ListenerKind.INGRESS, port, (FilterChain("grpc"),), ingress),
        ),
        route_tables=(
            RouteTable(eastwest, (VirtualHost("*", (into,)),)),
            RouteTable(ingress, (VirtualHost("*", (out,)),)),
        ),
        upstreams=(
            Upstream(
                "import",
                1000,
                peer_tls=PeerTls((gateway_identity(peer),), "east-west.clusterset.local"),
            ),
            Upstream("local", 1000),
        ),
        endpoint_sets=(
            EndpointSet("import", (_locality(Endpoint("127.0.0.1", eastwest_port, peer=True)),)),
            EndpointSet("local", (_locality(Endpoint(host, int(server_port))),)),
        ),
    )


def _locality(endpoint: Endpoint) -> LocalityEndpoints:
    return LocalityEndpoints(CLUSTER, REGION, 0, 1, (endpoint,))


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A folder with the node's certificate, key and trust bundle."""
    authority = Authority("test")
    pair = authority.issue_gateway("node", cluster=CLUSTER)
    (tmp_path / "tls.crt").write_bytes(pair.certificate_pem)
    (tmp_path / "tls.key").write_bytes(pair.key_pem)
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    return tmp_path


def data_plane(
    kind: str, agent: DiscoveryServer[Snapshot], folder: Path
) -> AbstractAsyncContextManager[object]:
    if kind == "envoy":
        return envoy(agent.address, folder, identity=folder)
    return gateway(agent.address, folder / "state", identity=folder)


@asynccontextmanager
async def carrying(kind: str, folder: Path, *, peer: str) -> AsyncIterator[grpc.aio.Channel]:
    """A client of a node of this kind; the agent's and the server's ends are closed after it."""
    port, eastwest_port = free_port(), free_port()
    async with (
        serving() as agent,
        echo_server("one") as one,
        data_plane(kind, agent, folder),
        client(port) as channel,
    ):
        source = hairpin(one, port=port, eastwest_port=eastwest_port, peer=peer)
        generation = agent.publish(source)
        await eventually(
            lambda: (
                agent.acks.value
                and agent.acks.value.nodes
                and agent.acks.value.nodes[0].generation == generation
            )
        )
        assert agent.acks.value is not None
        assert agent.acks.value.nodes[0].refused == ()
        yield channel


KINDS = [
    "gateway",
    pytest.param("envoy", marks=pytest.mark.skipif(ENVOY is None, reason="needs Envoy")),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_crosses_by_mutual_tls(kind: str, identity: Path) -> None:
    async with carrying(kind, identity, peer=CLUSTER) as channel:

        async def answered() -> bool:
            return await say(channel) == "one"

        await eventually(answered)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_peer_of_another_identity_is_not_spoken_to(kind: str, identity: Path) -> None:
    async with carrying(kind, identity, peer="us-east-1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/test.Echo/Say")(b"", timeout=5, wait_for_ready=True)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
