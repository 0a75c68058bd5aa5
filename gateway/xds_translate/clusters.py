"""Clusters: ``envoy.config.cluster.v3.Cluster`` of type EDS, speaking HTTP/2 or HTTP/1.1.

Decides: which settings of a cluster this gateway acts on, and the defaults where xDS has its own.
Leaves to others: balancing and ejection (``balancing``), endpoints (``endpoints``), the active
checks themselves (``gateway.health``).
Invariants: TLS is spoken to peers only (transport socket match ``{peer: true}``), and so is HTTP/2
whatever a cluster says.
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import health_check_pb2, protocol_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import struct_pb2

from gateway.xds_translate import balancing
from gateway.xds_translate.fields import (
    UnsupportedFieldError,
    join,
    members,
    only,
    optional_ms,
    optional_value,
    own_metadata,
    unpack,
    whole,
)
from gateway.xds_translate.http import empty_status
from gateway.xds_translate.piece import HealthPlan, Kind, Piece, PieceId
from gateway.xds_translate.tls import read_common

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
PROTOCOLS = {"http_protocol_options": "http1", "http2_protocol_options": "http2"}
PANIC_PERCENT = 50
CONNECT_TIMEOUT_MS = 5_000
PENDING_REQUESTS_MAX = 1_024
NO_BOUND = 2**32 - 1
"""What control planes write for "no bound" in a circuit breaker."""


def translate_cluster(cluster: cluster_pb2.Cluster) -> Piece:
    """One cluster without its endpoints."""
    only(
        cluster,
        "",
        reads=(
            "name",
            "type",
            "eds_cluster_config",
            "connect_timeout",
            "typed_extension_protocol_options",
            *balancing.FIELDS,
            "circuit_breakers",
            "health_checks",
            "common_lb_config",
            "transport_socket_matches",
        ),
        ignores=(
            "alt_stat_name",
            "metadata",
            "ignore_health_on_host_removal",
        ),
    )
    _check_source(cluster)
    protocol, keepalive, per_connection = _http(cluster)
    connections, pending, requests = _limits(cluster)
    peer_tls = _peer_tls(cluster)
    plan = _health_plan(cluster)
    needs = (
        set()
        if peer_tls is None
        else {PieceId(Kind.SECRETS, peer_tls["secret"]), PieceId(Kind.SECRETS, peer_tls["ca"])}
    )
    connect_ms = optional_ms(cluster, "connect_timeout")
    return Piece(
        PieceId(Kind.CLUSTERS, cluster.name),
        {
            "name": cluster.name,
            "protocol": protocol,
            "connect_timeout_ms": CONNECT_TIMEOUT_MS if connect_ms is None else connect_ms,
            **balancing.read_balancing(cluster),
            "keepalive": keepalive,
            "outlier": balancing.read_outlier(cluster),
            "max_connections": connections,
            "max_pending_requests": pending,
            "max_requests": requests,
            "max_requests_per_connection": per_connection,
            "panic_percent": _panic_percent(cluster),
            "peer_tls": peer_tls,
            "health_check": plan is not None,
            **empty_status(own_metadata(cluster)),
        },
        needs=frozenset(needs),
        health=plan,
    )


def _check_source(cluster: cluster_pb2.Cluster) -> None:
    if cluster.type != cluster_pb2.Cluster.EDS:
        raise UnsupportedFieldError("type", "must be EDS")
    service = cluster.eds_cluster_config.service_name
    if service not in ("", cluster.name):
        raise UnsupportedFieldError(
            "eds_cluster_config.service_name",
            f"must be empty or the cluster's name, got {service!r}",
        )


def _http(cluster: cluster_pb2.Cluster) -> tuple[str, dict[str, int] | None, int | None]:
    """The version of HTTP, the keepalive of its connections, the requests that each may carry."""
    path = "typed_extension_protocol_options"
    for name in cluster.typed_extension_protocol_options:
        if name != HTTP_OPTIONS:
            raise UnsupportedFieldError(f"{path}[{name}]", "not supported by this gateway")
    if HTTP_OPTIONS not in cluster.typed_extension_protocol_options:
        raise UnsupportedFieldError(path, "must say which version of HTTP its endpoints speak")
    path = f"{path}[{HTTP_OPTIONS}]"
    options = unpack(
        cluster.typed_extension_protocol_options[HTTP_OPTIONS],
        http_protocol_options_pb2.HttpProtocolOptions,
        path,
    )
    only(options, path, reads=("explicit_http_config", "common_http_protocol_options"))
    explicit = options.explicit_http_config
    if explicit.WhichOneof("protocol_config") not in PROTOCOLS:
        raise UnsupportedFieldError(
            join(path, "explicit_http_config"),
            "must be http_protocol_options or http2_protocol_options",
        )
    protocol = PROTOCOLS[explicit.WhichOneof("protocol_config") or ""]
    where = join(path, "explicit_http_config.http_protocol_options")
    only(explicit.http_protocol_options, where, reads=())
    common = options.common_http_protocol_options
    only(
        common,
        join(path, "common_http_protocol_options"),
        reads=("max_requests_per_connection",),
        ignores=("idle_timeout",),
    )
    http2 = explicit.http2_protocol_options
    where = join(path, "explicit_http_config.http2_protocol_options.connection_keepalive")
    keepalive = _keepalive(cluster, http2.connection_keepalive, where)
    return protocol, keepalive, optional_value(common, "max_requests_per_connection")


def _keepalive(
    cluster: cluster_pb2.Cluster, pings: protocol_pb2.KeepaliveSettings, where: str
) -> dict[str, int] | None:
    """Our own metadata speaks first: it says how peers are pinged, which Envoy has no field for."""
    own = own_metadata(cluster).get("peer_keepalive")
    if own is not None:
        path = "metadata.federation.gateway.peer_keepalive"
        if not isinstance(own, struct_pb2.Struct):
            raise UnsupportedFieldError(
                path, f"must be a map of interval_ms and timeout_ms, got {own!r}"
            )
        given = dict(own.items())
        return {
            name: whole(given.get(name), join(path, name)) for name in ("interval_ms", "timeout_ms")
        }
    if not pings.ListFields():
        return None
    only(
        pings,
        where,
        reads=("interval", "timeout"),
        ignores=("interval_jitter", "connection_idle_interval"),
    )
    interval, timeout = optional_ms(pings, "interval"), optional_ms(pings, "timeout")
    if not interval or not timeout:
        raise UnsupportedFieldError(where, "interval and timeout must both be given")
    return {"interval_ms": interval, "timeout_ms": timeout}


def _limits(cluster: cluster_pb2.Cluster) -> tuple[int | None, int, int | None]:
    only(cluster.circuit_breakers, "circuit_breakers", reads=("thresholds",))
    connections, pending, requests = None, PENDING_REQUESTS_MAX, None
    for index, entry in enumerate(cluster.circuit_breakers.thresholds):
        path = f"circuit_breakers.thresholds[{index}]"
        # max_retries bounds what this gateway bounds by attempts; a retry budget is read from
        # routes, where it counts over time.
        only(
            entry,
            path,
            reads=("max_connections", "max_pending_requests", "max_requests", "priority"),
            ignores=("max_retries", "retry_budget", "track_remaining"),
        )
        if entry.priority == 0:
            asked = optional_value(entry, "max_connections")
            connections = None if asked == NO_BOUND else asked
            asked = optional_value(entry, "max_pending_requests")
            pending = PENDING_REQUESTS_MAX if asked is None else asked
            asked = optional_value(entry, "max_requests")
            requests = None if asked == NO_BOUND else asked
    return connections, pending, requests


def _panic_percent(cluster: cluster_pb2.Cluster) -> int:
    common = cluster.common_lb_config
    only(
        common,
        "common_lb_config",
        reads=("healthy_panic_threshold", "locality_weighted_lb_config"),
        ignores=("update_merge_window", "close_connections_on_host_set_change"),
    )
    if not common.HasField("healthy_panic_threshold"):
        return PANIC_PERCENT
    percent: float = common.healthy_panic_threshold.value
    if not 0 <= percent <= 100:
        raise UnsupportedFieldError(
            "common_lb_config.healthy_panic_threshold", f"must be between 0 and 100, got {percent}"
        )
    return round(percent)


def _peer_tls(cluster: cluster_pb2.Cluster) -> dict[str, Any] | None:
    peer_tls = None
    for index, entry in enumerate(cluster.transport_socket_matches):
        path = f"transport_socket_matches[{index}]"
        only(entry, path, reads=("name", "match", "transport_socket"))
        socket = entry.transport_socket
        config_path = join(path, "transport_socket.typed_config")
        if socket.typed_config.Is(tls_pb2.UpstreamTlsContext.DESCRIPTOR):
            if members(entry.match, join(path, "match")) != {"peer": True}:
                raise UnsupportedFieldError(join(path, "match"), "TLS is for {peer: true} only")
            context = unpack(socket.typed_config, tls_pb2.UpstreamTlsContext, config_path)
            peer_tls = _peer(context, config_path)
        elif not socket.typed_config.type_url.endswith(".RawBuffer"):
            raise UnsupportedFieldError(config_path, "must be an UpstreamTlsContext or a RawBuffer")
    return peer_tls


def _peer(context: tls_pb2.UpstreamTlsContext, path: str) -> dict[str, Any]:
    only(context, path, reads=("common_tls_context", "sni"), ignores=("auto_host_sni",))
    names = read_common(context.common_tls_context, join(path, "common_tls_context"))
    if len(names.certificates) != 1 or names.ca is None:
        raise UnsupportedFieldError(
            join(path, "common_tls_context"), "must name one certificate and a trust bundle"
        )
    return {
        "secret": names.certificates[0],
        "ca": names.ca,
        "sni": context.sni,
        "allowed_spiffe": list(names.allowed_spiffe),
    }


def _health_plan(cluster: cluster_pb2.Cluster) -> HealthPlan | None:
    if not cluster.health_checks:
        return None
    if len(cluster.health_checks) > 1:
        raise UnsupportedFieldError("health_checks", "at most one check is supported")
    path, check = "health_checks[0]", cluster.health_checks[0]
    only(
        check,
        path,
        reads=(
            "timeout",
            "interval",
            "unhealthy_threshold",
            "healthy_threshold",
            "grpc_health_check",
        ),
        ignores=(
            "transport_socket_match_criteria",
            "no_traffic_interval",
            "initial_jitter",
            "interval_jitter",
            "interval_jitter_percent",
            "reuse_connection",
            "unhealthy_interval",
            "no_traffic_healthy_interval",
            "healthy_edge_interval",
            "unhealthy_edge_interval",
        ),
    )
    if not check.HasField("grpc_health_check"):
        raise UnsupportedFieldError(path, "must be a grpc_health_check")
    return _plan(check, path)


def _plan(check: health_check_pb2.HealthCheck, path: str) -> HealthPlan:
    only(
        check.grpc_health_check,
        join(path, "grpc_health_check"),
        reads=("service_name", "initial_metadata"),
        ignores=("authority",),
    )
    interval, timeout = optional_ms(check, "interval"), optional_ms(check, "timeout")
    if not interval or not timeout:
        raise UnsupportedFieldError(path, "interval and timeout must both be above zero")
    return HealthPlan(
        interval_ms=interval,
        timeout_ms=timeout,
        unhealthy_threshold=optional_value(check, "unhealthy_threshold") or 3,
        healthy_threshold=optional_value(check, "healthy_threshold") or 1,
        service=check.grpc_health_check.service_name,
        metadata=tuple(
            (option.header.key, option.header.value)
            for option in check.grpc_health_check.initial_metadata
        ),
    )
