"""Listeners (LDS).

Decides: how a snapshot's listener becomes filter chains, TLS and an HTTP connection manager.
Leaves to others: routes (``xds_routes``), which listeners there are (``derive.compile``).
Invariants: gateways speak HTTP/2 to each other; routes and certificates come over the same ADS
stream; streams have no idle or duration limit here, routes set theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from google.protobuf import wrappers_pb2

from federation.model.serving import EVERYTHING
from federation.model.snapshot import (
    ConnectionLife,
    FilterChain,
    Listener,
    ListenerKind,
    PeerTls,
    TlsTermination,
)
from federation.model.telemetry import Telemetry
from federation.wire.xds_telemetry import access_log, tracing
from federation.wire.xds_traffic import traffic_filters
from federation.wire.xds_values import ads, duration, metadata, packed, peer_tls_context

MAX_CONCURRENT_STREAMS = 1000
"""Streams per client connection; beyond it clients open another or wait."""

_Manager = http_connection_manager_pb2.HttpConnectionManager
_CODECS = {
    # Clients speak HTTP/1.1 too: HTTPRoutes, and gRPC-Web.
    ListenerKind.INGRESS: _Manager.AUTO,
    ListenerKind.EAST_WEST: _Manager.HTTP2,
}

STREAM_WINDOW_BYTES = 1 << 20
"""Receive window per stream, Envoy's own guidance for edges is 64 KiB to 1 MiB; streams of large
messages over long paths need the upper end."""

CONNECTION_WINDOW_BYTES = 4 << 20
"""Receive window per connection: a few busy streams at full window."""


PING_TIMEOUT_MS = 20_000
"""Where none is given; gRPC's default."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """Where a node listens: ``address`` to bind, and what it adds to every port.

    ``shards`` is whether it takes large sets of endpoints in parts (``xds_endpoints``); ``serves``
    says which listeners it opens (``model.serving``).
    """

    address: str = "0.0.0.0"  # noqa: S104 - gateways take traffic from everywhere
    port_offset: int = 0
    shards: bool = False
    serves: str = EVERYTHING


def listener(source: Listener, node: NodeView) -> listener_pb2.Listener:
    """The listener as ``node`` opens it."""
    message = listener_pb2.Listener(
        name=source.name,
        address=_address(node, source.port),
        filter_chains=[_chain(chain, source) for chain in source.chains],
        metadata=metadata({"kind": source.kind.value, **_own_life(source.life)}),
        enable_reuse_port=wrappers_pb2.BoolValue(value=True),
    )
    if not source.plain and any(chain.tls or chain.passthrough for chain in source.chains):
        message.listener_filters.add(
            name="envoy.filters.listener.tls_inspector",
            typed_config=packed(tls_inspector_pb2.TlsInspector()),
        )
    return message


def _own_life(life: ConnectionLife | None) -> dict[str, Any]:
    """What Envoy has no field for: the grace of old connections, and a limit of clients' PINGs."""
    if life is None:
        return {}
    limit = life.ping_limit
    own: dict[str, Any] = {}
    if life.max_age_grace_ms is not None:
        own["max_age_grace_ms"] = life.max_age_grace_ms
    if limit is not None:
        own["ping_limit"] = {
            "min_interval_ms": limit.min_interval_ms,
            "without_calls": limit.without_calls,
            "strikes": limit.strikes,
        }
    return {"connection": own} if own else {}


def _address(node: NodeView, port: int) -> address_pb2.Address:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(
            address=node.address, port_value=port + node.port_offset
        )
    )


def _chain(chain: FilterChain, source: Listener) -> listener_components_pb2.FilterChain:
    message = listener_components_pb2.FilterChain(name=chain.name, filters=[_filter(chain, source)])
    if chain.hostnames:
        message.filter_chain_match.server_names.extend(chain.hostnames)
    if chain.tls is not None:
        message.transport_socket.CopyFrom(_transport_socket(chain.tls))
    return message


def _filter(chain: FilterChain, source: Listener) -> listener_components_pb2.Filter:
    if chain.passthrough:
        return listener_components_pb2.Filter(
            name="envoy.filters.network.tcp_proxy",
            typed_config=packed(_tcp_proxy(chain)),
        )
    return listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=packed(_connection_manager(source)),
    )


def _tcp_proxy(chain: FilterChain) -> tcp_proxy_pb2.TcpProxy:
    message = tcp_proxy_pb2.TcpProxy(stat_prefix=chain.name.replace("/", "_"))
    for entry in chain.passthrough:
        # Envoy takes no weight of zero here, and no request has to find its way by it.
        if entry.weight:
            message.weighted_clusters.clusters.add(name=entry.upstream, weight=entry.weight)
    return message


def _connection_manager(
    source: Listener,
) -> http_connection_manager_pb2.HttpConnectionManager:
    told = source.telemetry or Telemetry()
    return http_connection_manager_pb2.HttpConnectionManager(
        stat_prefix=source.name.replace("/", "_"),
        codec_type=_CODECS[source.kind],
        rds=http_connection_manager_pb2.Rds(
            config_source=ads(), route_config_name=source.route_table
        ),
        http_filters=[
            *(traffic_filters() if source.kind is ListenerKind.INGRESS else ()),
            http_connection_manager_pb2.HttpFilter(
                name="envoy.filters.http.router", typed_config=packed(router_pb2.Router())
            ),
        ],
        http2_protocol_options=_http2(source.life),
        common_http_protocol_options=_common(source.life),
        stream_idle_timeout=duration(0),
        strip_any_host_port=True,
        # A method's path is compared as sent: gRPC knows no dot segments, no escapes.
        normalize_path=wrappers_pb2.BoolValue(value=False),
        use_remote_address=wrappers_pb2.BoolValue(value=True),
        tracing=(
            tracing(told.tracing, by_caller=source.kind is ListenerKind.EAST_WEST)
            if told.tracing is not None
            else None
        ),
        access_log=[access_log(entry) for entry in told.access_logs],
    )


def _http2(life: ConnectionLife | None) -> protocol_pb2.Http2ProtocolOptions:
    options = protocol_pb2.Http2ProtocolOptions(
        max_concurrent_streams=wrappers_pb2.UInt32Value(value=MAX_CONCURRENT_STREAMS),
        initial_stream_window_size=wrappers_pb2.UInt32Value(value=STREAM_WINDOW_BYTES),
        initial_connection_window_size=wrappers_pb2.UInt32Value(value=CONNECTION_WINDOW_BYTES),
    )
    if life is not None and life.ping_after_ms is not None:
        timeout_ms = PING_TIMEOUT_MS if life.ping_timeout_ms is None else life.ping_timeout_ms
        options.connection_keepalive.interval.CopyFrom(duration(life.ping_after_ms))
        options.connection_keepalive.timeout.CopyFrom(duration(timeout_ms))
    return options


def _common(life: ConnectionLife | None) -> protocol_pb2.HttpProtocolOptions | None:
    if life is None or (life.max_idle_ms is None and life.max_age_ms is None):
        return None
    options = protocol_pb2.HttpProtocolOptions()
    if life.max_idle_ms is not None:
        options.idle_timeout.CopyFrom(duration(life.max_idle_ms))
    if life.max_age_ms is not None:
        options.max_connection_duration.CopyFrom(duration(life.max_age_ms))
    return options


def _transport_socket(tls: TlsTermination | PeerTls) -> base_pb2.TransportSocket:
    context = _peer_side(tls) if isinstance(tls, PeerTls) else _termination(tls)
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.tls", typed_config=packed(context)
    )


def _termination(tls: TlsTermination) -> tls_pb2.DownstreamTlsContext:
    # HTTP/1.1 is offered so that a client without HTTP/2 gets an answer it can read.
    message = tls_pb2.DownstreamTlsContext(
        common_tls_context=tls_pb2.CommonTlsContext(
            alpn_protocols=["h2", "http/1.1"],
            tls_certificate_sds_secret_configs=[
                secret_pb2.SdsSecretConfig(name=name, sds_config=ads()) for name in tls.certificates
            ],
        )
    )
    if tls.client_ca:
        message.require_client_certificate.value = not tls.client_optional
        secret = secret_pb2.SdsSecretConfig(name=tls.client_ca, sds_config=ads())
        if not tls.client_optional:
            message.common_tls_context.validation_context_sds_secret_config.CopyFrom(secret)
        else:
            combined = message.common_tls_context.combined_validation_context
            combined.validation_context_sds_secret_config.CopyFrom(secret)
            context = common_pb2.CertificateValidationContext
            combined.default_validation_context.trust_chain_verification = context.ACCEPT_UNTRUSTED
    return message


def _peer_side(tls: PeerTls) -> tls_pb2.DownstreamTlsContext:
    return tls_pb2.DownstreamTlsContext(
        require_client_certificate=wrappers_pb2.BoolValue(value=True),
        common_tls_context=peer_tls_context(tls),
    )
