"""Listeners: ``envoy.config.listener.v3.Listener`` with an HTTP connection manager in each chain.

Decides: which listeners this gateway can open. All filter chains of a listener share one route
table and are all TLS or all plain; TLS may be passed through for some server names.
Leaves to others: routes (``routes``), TLS (``tls``), opening the port (the core).
"""

from __future__ import annotations

from typing import Any

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from gateway.xds_translate.chains import Chain, needs_of, passthrough_of, same, tls_of
from gateway.xds_translate.connections import connection_of, with_own
from gateway.xds_translate.endpoints import ip_port
from gateway.xds_translate.fields import (
    UnsupportedFieldError,
    join,
    only,
    optional_value,
    own_metadata,
    unpack,
)
from gateway.xds_translate.piece import Kind, Piece, PieceId
from gateway.xds_translate.telemetry import telemetry_of
from gateway.xds_translate.tls import TlsNames, read_common
from gateway.xds_translate.traffic import ROUTE_FILTERS

_TLS_INSPECTOR = "envoy.filters.listener.tls_inspector"
_ROUTER = "envoy.filters.http.router"
_KINDS = ("ingress", "east_west")


def translate_listener(listener: listener_pb2.Listener) -> Piece:
    """One port with its TLS and its route table."""
    only(
        listener,
        "",
        reads=("name", "address", "filter_chains", "listener_filters", "metadata"),
        # This gateway shares ports among its workers in any case.
        ignores=("enable_reuse_port", "stat_prefix", "traffic_direction", "tcp_backlog_size"),
    )
    for index, entry in enumerate(listener.listener_filters):
        if entry.name != _TLS_INSPECTOR:
            raise UnsupportedFieldError(f"listener_filters[{index}]", f"must be {_TLS_INSPECTOR}")
    if not listener.filter_chains:
        raise UnsupportedFieldError("filter_chains", "is empty")
    chains = [
        _chain(chain, f"filter_chains[{index}]")
        for index, chain in enumerate(listener.filter_chains)
    ]
    with_http = [chain for chain in chains if chain.passthrough is None]
    table = same([chain.table for chain in with_http] or [None], "filter_chains", "route table")
    bounds = same(
        [chain.connection for chain in with_http] or [None], "filter_chains", "connection settings"
    )
    told = same([chain.telemetry for chain in with_http] or [None], "filter_chains", "telemetry")
    host, port = ip_port(listener.address, "address")
    plain = _plain_tcp(listener, chains)
    kind = own_metadata(listener).get("kind", _KINDS[0])
    if kind not in _KINDS:
        raise UnsupportedFieldError("metadata.federation.gateway.kind", f"must be one of {_KINDS}")
    return Piece(
        PieceId(Kind.LISTENERS, listener.name),
        {
            "name": listener.name,
            "address": host,
            "port": port,
            "kind": kind,
            "tls": tls_of(chains) if plain is None else None,
            **({"passthrough": plain} if plain is not None else {}),
            "connection": with_own(bounds or {}, listener),
            "route_table": table,
            **({"telemetry": told} if told is not None else {}),
        },
        needs=frozenset(needs_of(chains)),
    )


def _plain_tcp(listener: listener_pb2.Listener, chains: list[Chain]) -> dict[str, Any] | None:
    """Where all connections go of a listener that looks at none of their bytes."""
    single = chains[0]
    if listener.listener_filters or len(chains) > 1 or single.server_names or single.tls:
        return None
    return single.passthrough


def _chain(chain: listener_components_pb2.FilterChain, path: str) -> Chain:
    only(
        chain,
        path,
        reads=("name", "filter_chain_match", "filters", "transport_socket"),
        ignores=("metadata", "transport_socket_connect_timeout"),
    )
    only(
        chain.filter_chain_match,
        join(path, "filter_chain_match"),
        reads=("server_names",),
        ignores=("transport_protocol", "application_protocols"),
    )
    names = tuple(name.lower() for name in chain.filter_chain_match.server_names)
    if len(chain.filters) != 1:
        raise UnsupportedFieldError(
            join(path, "filters"), "must be one HTTP connection manager, or one TCP proxy"
        )
    tls = None
    if chain.HasField("transport_socket"):
        where = join(path, "transport_socket.typed_config")
        context = unpack(chain.transport_socket.typed_config, tls_pb2.DownstreamTlsContext, where)
        tls = _downstream(context, where)
    where, body = f"{path}.filters[0].typed_config", chain.filters[0].typed_config
    if body.Is(tcp_proxy_pb2.TcpProxy.DESCRIPTOR):
        proxy = unpack(body, tcp_proxy_pb2.TcpProxy, where)
        return Chain(names, tls=tls, passthrough=passthrough_of(proxy, where, chain.name or path))
    manager = unpack(body, http_connection_manager_pb2.HttpConnectionManager, where)
    table, connection = _route_table(manager, where), connection_of(manager, where)
    return Chain(names, table, tls, connection, telemetry=telemetry_of(manager, where))


def _route_table(manager: http_connection_manager_pb2.HttpConnectionManager, path: str) -> str:
    only(
        manager,
        path,
        reads=(
            "codec_type",
            "rds",
            "http_filters",
            "common_http_protocol_options",
            "http2_protocol_options",
            "tracing",
            "access_log",
        ),
        # Limits of streams and windows are the gateway's own settings; the rest concerns HTTP/1 and
        # headers that this gateway does not touch.
        ignores=(
            "stat_prefix",
            "stream_idle_timeout",
            "strip_any_host_port",
            "normalize_path",
            "use_remote_address",
            "skip_xff_append",
            "generate_request_id",
            "server_header_transformation",
            "request_headers_timeout",
        ),
    )
    if manager.codec_type not in (
        http_connection_manager_pb2.HttpConnectionManager.AUTO,
        http_connection_manager_pb2.HttpConnectionManager.HTTP2,
    ):
        raise UnsupportedFieldError(join(path, "codec_type"), "must be HTTP2")
    for index, entry in enumerate(manager.http_filters):
        _check_filter(entry, f"{path}.http_filters[{index}]")
    if not manager.rds.route_config_name:
        raise UnsupportedFieldError(join(path, "rds.route_config_name"), "is empty")
    return str(manager.rds.route_config_name)


def _check_filter(entry: http_connection_manager_pb2.HttpFilter, path: str) -> None:
    """The router, or a filter that routes configure and that does nothing by itself."""
    if entry.name == _ROUTER:
        return
    if entry.name not in ROUTE_FILTERS:
        known = ", ".join((*ROUTE_FILTERS, _ROUTER))
        raise UnsupportedFieldError(path, f"must be one of {known}")
    where = join(path, "typed_config")
    settings = unpack(entry.typed_config, ROUTE_FILTERS[entry.name], where)
    only(settings, where, reads=(), ignores=("stat_prefix",))


def _downstream(context: tls_pb2.DownstreamTlsContext, path: str) -> TlsNames:
    only(context, path, reads=("common_tls_context", "require_client_certificate"))
    names = read_common(context.common_tls_context, join(path, "common_tls_context"))
    if not names.certificates:
        raise UnsupportedFieldError(
            join(path, "common_tls_context.tls_certificate_sds_secret_configs"), "is empty"
        )
    required = bool(optional_value(context, "require_client_certificate"))
    if required != (names.ca is not None and not names.optional):
        raise UnsupportedFieldError(
            join(path, "require_client_certificate"),
            "must go with a trust bundle: client certificates are required and checked, or neither "
            "(or asked for and not believed, with ACCEPT_UNTRUSTED)",
        )
    return names
