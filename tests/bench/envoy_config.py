"""Envoy's static configuration for the benchmarks: the gateway's route in Envoy's words."""

from __future__ import annotations

from typing import Any

from tests.bench.setting import AUTHORITY, METHOD, SERVICE, Security, Setting
from tests.testkit.processes import HOST

UNBOUNDED = 1_000_000
_TYPES = "type.googleapis.com/envoy.extensions"


def envoy_config(setting: Setting, port: int) -> dict[str, Any]:
    """One listener, one route matched by method, two weighted clusters with the same endpoint."""
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": _manager()}]}
    if setting.security is not Security.PLAIN:
        chain["transport_socket"] = _socket(setting, "DownstreamTlsContext", _downstream(setting))
    listener = {
        "address": {"socket_address": {"address": HOST, "port_value": port}},
        "filter_chains": [chain],
    }
    clusters = [_cluster(setting, name) for name in ("a", "b")]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _manager() -> dict[str, Any]:
    weighted = [{"name": "a", "weight": 80}, {"name": "b", "weight": 20}]
    action = {
        "timeout": "0s",
        "retry_policy": {"retry_on": "5xx,connect-failure", "num_retries": 2},
        "weighted_clusters": {"clusters": weighted},
    }
    matches: list[dict[str, Any]] = [{"path": METHOD}, {"prefix": f"/{SERVICE}/"}]
    routes = [{"match": match | {"grpc": {}}, "route": action} for match in matches]
    router = {"@type": f"{_TYPES}.filters.http.router.v3.Router"}
    return {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "route_config": {
            "virtual_hosts": [{"name": "bench", "domains": [AUTHORITY], "routes": routes}]
        },
        "http_filters": [{"name": "router", "typed_config": router}],
    }


def _cluster(setting: Setting, name: str) -> dict[str, Any]:
    address = {"socket_address": {"address": HOST, "port_value": setting.backend_port}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {
        "@type": f"type.googleapis.com/{options}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    limits = ("max_connections", "max_pending_requests", "max_requests")
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [dict.fromkeys(limits, UNBOUNDED)]},
        "typed_extension_protocol_options": {options: http2},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if setting.security is Security.MUTUAL:
        upstream = {"sni": AUTHORITY, "common_tls_context": _common(setting)}
        cluster["transport_socket"] = _socket(setting, "UpstreamTlsContext", upstream)
    return cluster


def _downstream(setting: Setting) -> dict[str, Any]:
    return {
        "require_client_certificate": setting.security is Security.MUTUAL,
        "common_tls_context": _common(setting),
    }


def _common(setting: Setting) -> dict[str, Any]:
    tls = setting.tls
    pair = {
        "certificate_chain": {"filename": str(tls.certificate)},
        "private_key": {"filename": str(tls.key)},
    }
    common: dict[str, Any] = {"alpn_protocols": ["h2"], "tls_certificates": [pair]}
    if setting.security is Security.MUTUAL:
        common["validation_context"] = {"trusted_ca": {"filename": str(tls.ca)}}
    return common


def _socket(setting: Setting, kind: str, context: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TYPES}.transport_sockets.tls.v3.{kind}", **context},
    }
