"""Endpoints: ``envoy.config.endpoint.v3.ClusterLoadAssignment``.

Decides: how a locality of xDS is a member cluster here: the endpoints' own metadata names it, else
the locality's zone does. A resource is a whole set or a shard of one, by its name.
Leaves to others: balancing (the core).
Invariants: addresses are IP addresses with ports; a locality without endpoints is left out.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import address_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from gateway.xds_translate.fields import (
    UnsupportedFieldError,
    join,
    only,
    optional_value,
    own_metadata,
    whole,
)
from gateway.xds_translate.piece import Kind, Piece, PieceId

OVERPROVISION_PERCENT = 140
"""The only overprovisioning factor taken: it is the protocol's default and the core's."""

PORT_MAX = 65_535

ENDPOINTS_REMEMBERED = 262_144
"""Endpoints whose reading is remembered; beyond it the one unused for longest is read again."""

_HEALTH = {
    health_check_pb2.UNKNOWN: "healthy",
    health_check_pb2.HEALTHY: "healthy",
    health_check_pb2.DEGRADED: "healthy",
    health_check_pb2.DRAINING: "draining",
    health_check_pb2.UNHEALTHY: "unhealthy",
    health_check_pb2.TIMEOUT: "unhealthy",
}


def translate_endpoints(assignment: endpoint_pb2.ClusterLoadAssignment) -> Piece:
    """All localities of one cluster."""
    only(assignment, "", reads=("cluster_name", "endpoints", "policy"))
    only(assignment.policy, "policy", reads=("overprovisioning_factor",))
    factor = optional_value(assignment.policy, "overprovisioning_factor")
    if factor not in (None, OVERPROVISION_PERCENT):
        raise UnsupportedFieldError(
            "policy.overprovisioning_factor", f"must be {OVERPROVISION_PERCENT}, got {factor}"
        )
    localities = [
        _locality(locality, f"endpoints[{index}]")
        for index, locality in enumerate(assignment.endpoints)
        if locality.lb_endpoints
    ]
    piece_id = PieceId(Kind.ENDPOINTS, assignment.cluster_name)
    return Piece(
        piece_id,
        {"cluster": piece_id.cluster, "localities": localities},
        needs=frozenset({PieceId(Kind.CLUSTERS, piece_id.cluster)}),
    )


def _locality(locality: endpoint_components_pb2.LocalityLbEndpoints, path: str) -> dict[str, Any]:
    only(
        locality,
        path,
        reads=("locality", "lb_endpoints", "load_balancing_weight", "priority"),
        ignores=("metadata",),
    )
    place = locality.locality
    read = [
        _endpoint(entry, f"{path}.lb_endpoints", index)
        for index, entry in enumerate(locality.lb_endpoints)
    ]
    clusters = {cluster_id or place.zone or place.region for cluster_id, _ in read}
    if len(clusters) != 1:
        raise UnsupportedFieldError(
            join(path, "lb_endpoints"),
            f"one locality holds endpoints of several clusters: {', '.join(sorted(clusters))}",
        )
    weight = optional_value(locality, "load_balancing_weight")
    return {
        "cluster_id": clusters.pop(),
        "region": place.region,
        "priority": locality.priority,
        "weight": 1 if weight is None else weight,
        "endpoints": [body for _, body in read],
    }


def _endpoint(
    entry: endpoint_components_pb2.LbEndpoint, path: str, index: int
) -> tuple[str, dict[str, Any]]:
    try:
        return _read(entry.SerializeToString())
    except UnsupportedFieldError as refusal:
        raise UnsupportedFieldError(f"{path}[{index}].{refusal.path}", refusal.message) from None


@lru_cache(maxsize=ENDPOINTS_REMEMBERED)
def _read(encoded: bytes) -> tuple[str, dict[str, Any]]:
    """One endpoint, and the member cluster that it says it is in.

    Remembered by its bytes: of a set that changes most endpoints are as they were.
    """
    entry = endpoint_components_pb2.LbEndpoint.FromString(encoded)
    only(entry, "", reads=("endpoint", "health_status", "metadata", "load_balancing_weight"))
    only(entry.endpoint, "endpoint", reads=("address",), ignores=("hostname",))
    if entry.health_status not in _HEALTH:
        raise UnsupportedFieldError("health_status", f"{entry.health_status} is not known")
    own = own_metadata(entry)
    weight = optional_value(entry, "load_balancing_weight")
    grace = own.get("drain_grace_ms")
    return str(own.get("cluster_id", "")), {
        "address": ip_and_port(entry.endpoint.address, "endpoint.address"),
        "weight": 1 if weight is None else weight,
        "health": _HEALTH[entry.health_status],
        "peer": own.get("peer") is True,
        "drain_grace_ms": None
        if grace is None
        else whole(grace, "metadata.federation.gateway.drain_grace_ms"),
    }


def ip_and_port(address: address_pb2.Address, path: str) -> str:
    """``IP:PORT`` or ``[IP]:PORT`` of a socket address."""
    host, port = ip_port(address, path)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ip_port(address: address_pb2.Address, path: str) -> tuple[str, int]:
    """IP and port of a socket address; a host name is refused, since resolving is not done here."""
    only(address, path, reads=("socket_address",))
    path = join(path, "socket_address")
    socket = address.socket_address
    only(socket, path, reads=("address", "port_value", "protocol"))
    if socket.protocol != address_pb2.SocketAddress.TCP:
        raise UnsupportedFieldError(join(path, "protocol"), "must be TCP")
    try:
        host = ipaddress.ip_address(socket.address)
    except ValueError:
        raise UnsupportedFieldError(
            join(path, "address"), f"must be an IP address, got {socket.address!r}"
        ) from None
    if socket.port_value > PORT_MAX:
        raise UnsupportedFieldError(
            join(path, "port_value"), f"must be between 0 and {PORT_MAX}, got {socket.port_value}"
        )
    return str(host), int(socket.port_value)
