"""Clusters in Envoy's sense (CDS): one for each ``Upstream`` of the snapshot.

Decides: protocol, limits, health checks and TLS as Envoy spells them.
Leaves to others: balancing and ejection (``xds_balancing``), endpoints (``xds_endpoints``), the
numbers (``derive.compile``).
Invariants: HTTP/2 towards every endpoint; endpoints come by EDS over ADS; plain text unless an
endpoint is marked as a peer's gateway, which is spoken to by mutual TLS only. Envoy pings a whole
cluster or none of it, so it pings where peers come first; our gateway reads the metadata and pings
peers everywhere.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import base_pb2, health_check_pb2, protocol_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2

from federation.model.snapshot import (
    DESTINATION_HEADER,
    ConnectionLimits,
    HealthCheck,
    Keepalive,
    PeerTls,
    Protocol,
    Upstream,
)
from federation.wire.xds_balancing import balancing_notes, outlier_detection, set_balancing
from federation.wire.xds_values import ads, duration, metadata, packed, peer_tls_context, uint32

_Cluster = cluster_pb2.Cluster
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

PANIC_PERCENT = 50
"""Below this healthy share of a priority health is ignored and traffic is spread (panic)."""

SERVICE_UNAVAILABLE = 503
"""What Envoy answers while an upstream has no endpoints."""

NO_BOUND = 2**32 - 1
"""Of concurrent calls: Envoy's own 1024 for a whole upstream would starve streaming."""

MAX_RETRIES = 1024
"""Envoy's own 3 concurrent retries would fail calls when a region dies; attempts bound retries."""


def upstream_cluster(upstream: Upstream) -> cluster_pb2.Cluster:
    """The cluster of the upstream's name."""
    message = _Cluster(
        name=upstream.name,
        type=_Cluster.EDS,
        eds_cluster_config=_Cluster.EdsClusterConfig(eds_config=ads(), service_name=upstream.name),
        connect_timeout=duration(upstream.connect_timeout_ms),
        common_lb_config=_Cluster.CommonLbConfig(
            healthy_panic_threshold=percent_pb2.Percent(value=PANIC_PERCENT),
            locality_weighted_lb_config=_Cluster.CommonLbConfig.LocalityWeightedLbConfig(),
        ),
        circuit_breakers=_circuit_breakers(upstream.limits),
    )
    set_balancing(message, upstream.balancing)
    message.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(packed(_protocol(upstream)))
    if upstream.outlier is not None:
        message.outlier_detection.CopyFrom(outlier_detection(upstream.outlier))
    if upstream.health_check is not None:
        message.health_checks.append(_health_check(upstream.health_check))
    if upstream.peer_tls is not None:
        message.transport_socket_matches.extend(_sockets(upstream.peer_tls))
    if notes := _notes(upstream):
        message.metadata.CopyFrom(metadata(notes))
    return message


def _notes(upstream: Upstream) -> dict[str, Any]:
    notes = balancing_notes(upstream.balancing)
    if upstream.peer_keepalive is not None:
        notes["peer_keepalive"] = asdict(upstream.peer_keepalive)
    if upstream.empty_status != SERVICE_UNAVAILABLE:
        notes["empty_status"] = upstream.empty_status
    return notes


def _protocol(upstream: Upstream) -> http_protocol_options_pb2.HttpProtocolOptions:
    message = http_protocol_options_pb2.HttpProtocolOptions()
    if upstream.protocol is Protocol.HTTP1:
        message.explicit_http_config.http_protocol_options.SetInParent()
    else:
        http2 = message.explicit_http_config.http2_protocol_options
        http2.SetInParent()
        if upstream.peer_keepalive is not None and upstream.peers_first:
            http2.connection_keepalive.CopyFrom(_keepalive(upstream.peer_keepalive))
    if upstream.limits.max_requests_per_connection is not None:
        message.common_http_protocol_options.max_requests_per_connection.value = (
            upstream.limits.max_requests_per_connection
        )
    return message


def _keepalive(keepalive: Keepalive) -> protocol_pb2.KeepaliveSettings:
    return protocol_pb2.KeepaliveSettings(
        interval=duration(keepalive.interval_ms), timeout=duration(keepalive.timeout_ms)
    )


def _circuit_breakers(limits: ConnectionLimits) -> circuit_breaker_pb2.CircuitBreakers:
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=uint32(limits.max_connections),
        max_pending_requests=uint32(limits.max_pending_requests),
        max_requests=uint32(limits.max_requests or NO_BOUND),
        max_retries=uint32(MAX_RETRIES),
    )
    if limits.retry_budget is not None:
        # Envoy's budget is of calls at one moment, ours of calls over a time: as near as it comes.
        budget = thresholds.retry_budget
        budget.budget_percent.value = limits.retry_budget.percent
        budget.min_retry_concurrency.value = limits.retry_budget.min_retries
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds])


def _health_check(check: HealthCheck) -> health_check_pb2.HealthCheck:
    grpc = health_check_pb2.HealthCheck.GrpcHealthCheck(service_name=check.service)
    if check.destination:
        grpc.initial_metadata.add().header.CopyFrom(
            base_pb2.HeaderValue(key=DESTINATION_HEADER, value=check.destination)
        )
    return health_check_pb2.HealthCheck(
        timeout=duration(check.timeout_ms),
        interval=duration(check.interval_ms),
        unhealthy_threshold=uint32(check.unhealthy_threshold),
        healthy_threshold=uint32(check.healthy_threshold),
        grpc_health_check=grpc,
    )


def _sockets(peer: PeerTls) -> list[cluster_pb2.Cluster.TransportSocketMatch]:
    secured = _Cluster.TransportSocketMatch(
        name="peer",
        transport_socket=base_pb2.TransportSocket(
            name="envoy.transport_sockets.tls",
            typed_config=packed(
                tls_pb2.UpstreamTlsContext(sni=peer.sni, common_tls_context=peer_tls_context(peer))
            ),
        ),
    )
    secured.match.update({"peer": True})
    plain = _Cluster.TransportSocketMatch(
        name="local",
        transport_socket=base_pb2.TransportSocket(
            name="envoy.transport_sockets.raw_buffer",
            typed_config=packed(raw_buffer_pb2.RawBuffer()),
        ),
    )
    plain.match.SetInParent()
    return [secured, plain]
