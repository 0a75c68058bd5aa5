"""The life of clients' connections: what an HTTP connection manager and our metadata say of it.

Decides: which of Envoy's settings of connections this gateway acts on.
Leaves to others: acting on them (the core), and the rest of the connection manager (``listeners``).
Invariants: what is absent sets no bound; the grace of old connections and the limit of PINGs, which
Envoy has no field for, stand in the listener's metadata, ``federation.gateway.connection``.
"""

from __future__ import annotations

from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from google.protobuf import struct_pb2

from gateway.xds_translate.fields import (
    UnsupportedFieldError,
    join,
    only,
    optional_ms,
    own_metadata,
    whole,
)

_OWN = "metadata.federation.gateway.connection"


def connection_of(
    manager: http_connection_manager_pb2.HttpConnectionManager, path: str
) -> dict[str, Any]:
    """What the connection manager bounds; empty when nothing."""
    common = manager.common_http_protocol_options
    only(
        common,
        join(path, "common_http_protocol_options"),
        reads=("idle_timeout", "max_connection_duration"),
        # Bounds of header lists are the gateway's own settings.
        ignores=("max_headers_count", "headers_with_underscores_action"),
    )
    pings = manager.http2_protocol_options.connection_keepalive
    where = join(path, "http2_protocol_options.connection_keepalive")
    only(
        pings,
        where,
        reads=("interval", "timeout"),
        ignores=("interval_jitter", "connection_idle_interval"),
    )
    found = {
        "max_idle_ms": optional_ms(common, "idle_timeout"),
        "max_age_ms": optional_ms(common, "max_connection_duration"),
        "ping_after_ms": optional_ms(pings, "interval"),
        "ping_timeout_ms": optional_ms(pings, "timeout"),
    }
    # A zero is Envoy's word for no bound.
    bounds: dict[str, Any] = {name: value for name, value in found.items() if value}
    if ("ping_after_ms" in bounds) != ("ping_timeout_ms" in bounds):
        raise UnsupportedFieldError(where, "interval and timeout must both be given")
    return bounds


def with_own(bounds: dict[str, Any], listener: listener_pb2.Listener) -> dict[str, Any]:
    """``bounds`` with what the listener's metadata adds."""
    own = own_metadata(listener).get("connection")
    if own is None:
        return bounds
    given = dict(_struct(own, _OWN).items())
    bounds = dict(bounds)
    for name, value in given.items():
        if name == "max_age_grace_ms":
            bounds[name] = whole(value, join(_OWN, name))
        elif name == "ping_limit":
            bounds[name] = _ping_limit(value)
        else:
            raise UnsupportedFieldError(join(_OWN, name), "not supported by this gateway")
    return bounds


def _ping_limit(value: object) -> dict[str, Any]:
    path = join(_OWN, "ping_limit")
    given = dict(_struct(value, path).items())
    return {
        "min_interval_ms": whole(given.get("min_interval_ms"), join(path, "min_interval_ms")),
        "without_calls": given.get("without_calls") is True,
        "strikes": whole(given.get("strikes"), join(path, "strikes")),
    }


def _struct(value: object, path: str) -> struct_pb2.Struct:
    if not isinstance(value, struct_pb2.Struct):
        raise UnsupportedFieldError(path, f"must be a map, got {value!r}")
    return value
