"""What a host's routes lead to: which gRPC services, at which clusters.

Decides: which routes can take calls of a service, where the gateway's own services stand among
them, and which clusters are available.
Leaves to others: answering (``own_services``), routing itself (the core).
Invariants: pure. The gateway's own services come before routes that take every call and after the
last route that names their service itself: who routes health or reflection on purpose has it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.xds_translate import Kind, Piece, PieceId

OWN_CLUSTER = "gateway.own-services"
"""The cluster of this process's own services; no resource of a control plane has such a name."""

TABLE_HEADER = "x-federation-table"
"""Tells the own services which route table a call came by; clients' such headers are dropped."""

HOST_HEADER = "x-federation-host"
"""Tells them the virtual host in it, by its name."""

HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
OWN_SERVICES = (HEALTH, *REFLECTION)

_PEER_HEADER = "x-federation-destination"
"""Routes that look at it are for other clusters' gateways, which have no use for own services."""


@dataclass(frozen=True, slots=True)
class Way:
    """Calls of ``service`` (``None``: of any, as far as ``pattern`` fits) go to ``clusters``."""

    service: str | None
    pattern: str | None
    clusters: tuple[str, ...]

    def takes(self, service: str) -> bool:
        """Whether calls of ``service`` can go this way."""
        if self.service is not None:
            return self.service == service
        if self.pattern is None:
            return True
        # The method is not known: a pattern counts that fits one of any name, or leaves it open.
        try:
            return re.fullmatch(self.pattern, f"/{service}/Method") is not None
        except re.error:
            return False


def with_own_routes(table: Piece) -> Piece:
    """``table`` with routes to the gateway's own services."""
    hosts = [_host_with_own(host, table.id.name) for host in table.body["virtual_hosts"]]
    if hosts == table.body["virtual_hosts"]:
        return table
    return replace(
        table,
        body=table.body | {"virtual_hosts": hosts},
        needs=table.needs | {PieceId(Kind.CLUSTERS, OWN_CLUSTER)},
    )


def _host_with_own(host: dict[str, Any], table: str) -> dict[str, Any]:
    routes = list(host["routes"])
    if any(_is_for_peers(route) for route in routes):
        return host
    if routes and not any(route["match"].get("grpc") for route in routes):
        return host
    for service in OWN_SERVICES:
        named = [place for place, route in enumerate(routes) if _named(route) == service]
        routes.insert(named[-1] + 1 if named else 0, _own_route(service, table, host["name"]))
    return host | {"routes": routes}


def _is_for_peers(route: Mapping[str, Any]) -> bool:
    return any(header["name"] == _PEER_HEADER for header in route["match"].get("headers", ()))


def _own_route(service: str, table: str, host: str) -> dict[str, Any]:
    return {
        "name": f"gateway/{service}",
        "match": {"path": {"prefix": f"/{service}/"}, "grpc": True},
        "action": {"weighted": [{"cluster": OWN_CLUSTER, "weight": 1}]},
        "request_headers": {"set": [[TABLE_HEADER, table], [HOST_HEADER, host]]},
    }


def own_pieces(address: str) -> list[Piece]:
    """The cluster of the own services, which listen at ``address``."""
    locality = {
        "cluster_id": "own",
        "region": "",
        "priority": 0,
        "weight": 1,
        "endpoints": [{"address": address}],
    }
    return [
        Piece(PieceId(Kind.CLUSTERS, OWN_CLUSTER), {"name": OWN_CLUSTER}),
        Piece(
            PieceId(Kind.ENDPOINTS, OWN_CLUSTER),
            {"cluster": OWN_CLUSTER, "localities": [locality]},
        ),
    ]


def ways_at(in_force: Mapping[PieceId, Piece], table: str, host: str) -> list[Way]:
    """The ways of the virtual host ``host`` of ``table``, if it is there."""
    piece = in_force.get(PieceId(Kind.ROUTE_TABLES, table))
    hosts = piece.body["virtual_hosts"] if piece is not None else ()
    return [way for entry in hosts if entry["name"] == host for way in ways_of(entry)]


def ways_of(host: Mapping[str, Any]) -> Iterator[Way]:
    """The ways that gRPC calls of ``host`` can go, in order of precedence."""
    for route in host["routes"]:
        if not route["match"].get("grpc"):
            continue
        weighted: Sequence[Mapping[str, Any]] = route["action"].get("weighted", ())
        clusters = tuple(part["cluster"] for part in weighted if part["weight"])
        if clusters == (OWN_CLUSTER,):
            continue
        path = route["match"]["path"]
        yield Way(_named(route), path.get("regex"), clusters)


def available_clusters(
    stats: Mapping[str, Any], in_force: Mapping[PieceId, Piece]
) -> frozenset[str]:
    """Clusters with an endpoint that can take calls, by the core's counters.

    Of very many endpoints the core lists those that are not well, and no more than it lists at
    most: a cluster is then available unless as many of it are listed as it has.
    """
    listed: Sequence[Mapping[str, Any]] = stats.get("endpoints", ())
    if stats.get("endpoints_total", 0) <= len(listed):
        return frozenset(entry["cluster"] for entry in listed if _is_well(entry))
    well: Counter[str] = Counter()
    for piece_id, piece in in_force.items():
        if piece_id.kind is Kind.ENDPOINTS:
            localities = piece.body["localities"]
            well[piece_id.cluster] += sum(len(locality["endpoints"]) for locality in localities)
    well.subtract(entry["cluster"] for entry in listed if not _is_well(entry))
    return frozenset(cluster for cluster, endpoints in well.items() if endpoints > 0)


def _is_well(endpoint: Mapping[str, Any]) -> bool:
    return (
        endpoint["health"] == "healthy"
        and not endpoint["down"]
        and not endpoint["check_failed"]
        and endpoint["ejected_until_unix_ms"] is None
    )


def _named(route: Mapping[str, Any]) -> str | None:
    """The service that a route names itself."""
    path = route["match"]["path"]
    text = path.get("exact") or path.get("prefix") or path.get("segments") or ""
    _, _, rest = text.partition("/")
    service = rest.partition("/")[0]
    return str(service) if service else None
