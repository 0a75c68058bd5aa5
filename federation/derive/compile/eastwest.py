"""The east-west entrance: calls of other clusters' gateways to what this cluster exports.

Decides: who is let in and where a call goes: to endpoints of this cluster only, so that a call
crosses clusters once.
Leaves to others: what is exported (the view), TLS itself (the gateway).
Invariants: only gateways of member clusters pass, by their identity; a call names its destination
in a header that is removed before it goes on; a call without a known destination finds no route. A
connection that carries no calls names its destination by the server name of its TLS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from federation.derive.compile.backends import spoken
from federation.derive.compile.index import Index
from federation.derive.compile.inputs import spiffe_id
from federation.derive.compile.matches import EVERY_CALL
from federation.derive.compile.policies import DEFAULT_RETRY
from federation.derive.compile.upstreams import (
    UpstreamKind,
    UpstreamRef,
    destination,
    tcp_server_name,
    upstream_ref,
)
from federation.derive.mcs_ports import carried_as
from federation.model.base import ServiceName
from federation.model.facts import ExportFact, ServicePort
from federation.model.snapshot import (
    DESTINATION_HEADER,
    FilterChain,
    Forward,
    HeaderChanges,
    HeaderMatch,
    Listener,
    ListenerKind,
    MatchKind,
    PeerTls,
    Protocol,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
    Weighted,
)
from federation.model.telemetry import Telemetry

EAST_WEST = "federation/east-west"
"""Name of the east-west listener and of its route table."""


EastWest = tuple[Listener, RouteTable]
"""The entrance and its routes."""


def exported_ports(index: Index) -> Mapping[ServiceName, tuple[ServicePort, ...]]:
    """The ports of each service that this cluster exports."""
    return {
        service: facts[index.cluster].ports
        for service, facts in index.view.exports.items()
        if index.cluster in facts
    }


def exported_upstreams(
    exported: Mapping[ServiceName, tuple[ServicePort, ...]],
) -> tuple[UpstreamRef, ...]:
    """One upstream for each exported port and version it speaks, sorted."""
    return tuple(
        sorted(
            upstream_ref(UpstreamKind.LOCAL, service, port.port, protocol=protocol)
            for service, ports in exported.items()
            for port in ports
            if port.protocol == "TCP"
            for protocol in spoken(port.app_protocol)
        )
    )


def build_east_west(
    index: Index,
    upstreams: tuple[UpstreamRef, ...],
    tcp: Iterable[tuple[ServiceName, int]],
    telemetry: Telemetry | None,
) -> EastWest | None:
    """The entrance for other clusters, ``None`` for gateways that stand alone.

    Calls come to ``upstreams``, connections to the ports ``tcp``; ``telemetry`` is what is told
    about them.
    """
    port = index.settings.eastwest_port
    if port is None:
        return None
    domain = index.settings.trust_domain
    members = tuple(spiffe_id(domain, cluster) for cluster in sorted(index.regions))
    listener = Listener(
        name=EAST_WEST,
        kind=ListenerKind.EAST_WEST,
        port=port,
        chains=(
            FilterChain(name="east-west", tls=PeerTls(allowed_spiffe=members)),
            *_tcp_chains(index, tcp, PeerTls(allowed_spiffe=members)),
        ),
        route_table=EAST_WEST,
        telemetry=telemetry,
    )
    http1 = {_asked(ref) for ref in upstreams if ref.protocol is Protocol.HTTP1}
    ordered = sorted(upstreams, key=lambda ref: (_asked(ref), ref.protocol is Protocol.HTTP1))
    routes = tuple(_route(ref, grpc_only=_asked(ref) in http1) for ref in ordered)
    host = VirtualHost(hostname="*", routes=routes)
    return listener, RouteTable(name=EAST_WEST, virtual_hosts=(host,))


def exported_tcp(index: Index) -> tuple[tuple[ServiceName, int], ...]:
    """The exported ports whose connections clusters pass on as they are, sorted.

    Where imports have addresses: nothing else sends connections instead of calls.
    """
    if index.settings.gateway_service is None:
        return ()
    found = [
        (service, port.port)
        for service, facts in index.view.exports.items()
        if index.cluster in facts
        for port in facts[index.cluster].ports
        if _carried(facts.values(), port) is Protocol.TCP
    ]
    return tuple(sorted(found, key=str))


def _carried(facts: Iterable[ExportFact], port: ServicePort) -> Protocol | None:
    """What the import's port of this number is carried as: the oldest export with it says so."""
    said = [
        (fact.create_revision, fact.cluster, other)
        for fact in facts
        for other in fact.ports
        if (other.port, other.protocol) == (port.port, port.protocol)
    ]
    *_, first = min(said, key=lambda entry: entry[:2])
    return carried_as(name=first.name, protocol=first.protocol, app_protocol=first.app_protocol)


def _tcp_chains(
    index: Index, ports: Iterable[tuple[ServiceName, int]], tls: PeerTls
) -> Iterator[FilterChain]:
    """An entrance for each of ``ports``."""
    for service, port in ports:
        local = upstream_ref(UpstreamKind.LOCAL, service, port)
        yield FilterChain(
            name=f"tcp/{destination(service, port)}",
            hostnames=(tcp_server_name(index, service, port),),
            tls=tls,
            passthrough=(Weighted(upstream=local.name, weight=1),),
        )


def _asked(ref: UpstreamRef) -> str:
    return destination(ref.service_name, ref.port)


def _route(ref: UpstreamRef, *, grpc_only: bool) -> Route:
    """Of a port that speaks both versions, calls of gRPC get HTTP/2 and others HTTP/1.1."""
    asked, http2 = _asked(ref), ref.protocol is Protocol.HTTP2
    return Route(
        name=f"east-west/{asked}" if http2 else f"east-west/{asked}/{ref.protocol}",
        rule=f"export {asked}",
        match=RouteMatch(
            path=EVERY_CALL,
            headers=(HeaderMatch(name=DESTINATION_HEADER, kind=MatchKind.EXACT, value=asked),),
            grpc=http2 and grpc_only,
        ),
        action=Forward(destinations=(Weighted(upstream=ref.name, weight=1),)),
        request_headers=HeaderChanges(remove=(DESTINATION_HEADER,)),
        retry=DEFAULT_RETRY,
    )
