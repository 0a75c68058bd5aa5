"""An ADS server for gateways that are measured with what manifests have no words for: a plain
gateway process with mutual TLS on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from federation.discovery import DiscoveryServer, DiscoverySettings
from federation.model.base import ClusterId, Region
from federation.model.snapshot import (
    Endpoint,
    EndpointSet,
    FilterChain,
    Forward,
    Listener,
    ListenerKind,
    LocalityEndpoints,
    MatchKind,
    PathMatch,
    PeerTls,
    Retry,
    Route,
    RouteMatch,
    RouteTable,
    Snapshot,
    Upstream,
    VirtualHost,
    Weighted,
)
from federation.wire.xds import to_resources
from tests.testkit.processes import HOST

CLUSTER = ClusterId("bench")
START_TIMEOUT_S = 10.0


@contextlib.contextmanager
def serving(snapshot: Snapshot) -> Iterator[str]:
    """The address at which gateways get ``snapshot``; served by a thread of its own."""
    started: list[str] = []
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server: DiscoveryServer[Snapshot] = DiscoveryServer(
            DiscoverySettings(cluster=CLUSTER), render=to_resources
        )
        await server.start()
        server.publish(snapshot)
        started.append(server.address)
        ready.set()
        await over.wait()
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        if not ready.wait(START_TIMEOUT_S):
            raise RuntimeError("the ADS server of the benchmark did not start")
        yield started[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def mutual_tls(*, port: int, backend_port: int, host: str, path: str, identity: str) -> Snapshot:
    """One route, matched by method, split by weight, with retries; TLS with certificates on both
    sides of the gateway, all of them with the one ``identity``.
    """
    name, upstreams = "app/bench", ("a", "b")
    table = RouteTable(
        name,
        (
            VirtualHost(
                host,
                (
                    Route(
                        name="app/bench/rule-0",
                        rule="app/bench/rule-0",
                        match=RouteMatch(PathMatch(MatchKind.EXACT, path), grpc=True),
                        action=Forward((Weighted("a", 80), Weighted("b", 20))),
                        retry=Retry(
                            on=("5xx", "connect-failure"), attempts=2, base_ms=100, max_ms=1_000
                        ),
                    ),
                ),
            ),
        ),
    )
    tls = PeerTls((identity,), sni=host)
    chain = FilterChain("bench", tls=PeerTls((identity,)))
    endpoint = Endpoint(HOST, backend_port, peer=True)
    locality = LocalityEndpoints(CLUSTER, Region("here"), 0, 1, (endpoint,))
    return Snapshot(
        cluster=CLUSTER,
        listeners=(Listener(name, ListenerKind.INGRESS, port, (chain,), name),),
        route_tables=(table,),
        upstreams=tuple(
            Upstream(upstream, connect_timeout_ms=1_000, peer_tls=tls) for upstream in upstreams
        ),
        endpoint_sets=tuple(EndpointSet(upstream, (locality,)) for upstream in upstreams),
    )
