"""What routes do besides sending calls on: faults, mirrors, sessions, retry budgets, rate limits.

Decides: what of Envoy's fault and stateful session filters and of its mirror policies this gateway
acts on, and how our own metadata completes them.
Leaves to others: the routes themselves (``routes``), limits (``limits``), drawing and carrying out
(the core).
Invariants: these filters are configured by routes alone; a share is a number in a million.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2 as cookie_session_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2 as header_session_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2, struct_pb2

from gateway.xds_translate import http, limits
from gateway.xds_translate.fields import (
    METADATA,
    UnsupportedFieldError,
    join,
    only,
    optional_ms,
    unpack,
    whole,
)

FAULT = "envoy.filters.http.fault"
SESSION = "envoy.filters.http.stateful_session"
ROUTE_FILTERS: Mapping[str, type[Any]] = {
    limits.FILTER: local_rate_limit_pb2.LocalRateLimit,
    FAULT: fault_pb2.HTTPFault,
    http.CORS: cors_pb2.Cors,
    SESSION: stateful_session_pb2.StatefulSession,
}
"""Filters that a listener may have without settings of their own: routes give them."""

ABORT_MESSAGE = "a fault was injected on purpose"

_MILLIONTHS = {
    percent_pb2.FractionalPercent.HUNDRED: 10_000,
    percent_pb2.FractionalPercent.TEN_THOUSAND: 100,
    percent_pb2.FractionalPercent.MILLION: 1,
}
_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def filters_of_route(
    settings: Mapping[str, any_pb2.Any], own: dict[str, Any], path: str
) -> dict[str, Any]:
    """What ``typed_per_filter_config`` asks for, as fields of the core's route."""
    for name in settings:
        if name not in ROUTE_FILTERS:
            raise UnsupportedFieldError(f"{path}[{name}]", "not supported by this gateway")
    found: dict[str, Any] = {}
    if found_limits := _limits(settings, own, path):
        found["rate_limits"] = found_limits
    if FAULT in settings:
        where = f"{path}[{FAULT}]"
        found["fault"] = _fault(unpack(settings[FAULT], fault_pb2.HTTPFault, where), where)
    if http.CORS in settings:
        where = f"{path}[{http.CORS}]"
        found["cors"] = http.cors(unpack(settings[http.CORS], cors_pb2.CorsPolicy, where), where)
    if SESSION in settings:
        where = f"{path}[{SESSION}]"
        message = unpack(settings[SESSION], stateful_session_pb2.StatefulSessionPerRoute, where)
        session = _session(message, own, where)
        if session is not None:
            found["session"] = session
    return found


def _limits(
    settings: Mapping[str, any_pb2.Any], own: dict[str, Any], path: str
) -> list[dict[str, Any]]:
    if limits.FILTER not in settings:
        return limits.shared_limits(own)
    local = limits.local_limits(settings[limits.FILTER], f"{path}[{limits.FILTER}]")
    return [*local, *limits.shared_limits(own)]


# Faults.


def _fault(fault: fault_pb2.HTTPFault, path: str) -> dict[str, Any]:
    only(fault, path, reads=("delay", "abort"), ignores=("disable_downstream_cluster_stats",))
    body: dict[str, Any] = {}
    if fault.HasField("delay"):
        where = join(path, "delay")
        only(fault.delay, where, reads=("fixed_delay", "percentage"))
        ms = optional_ms(fault.delay, "fixed_delay")
        if not ms:
            raise UnsupportedFieldError(join(where, "fixed_delay"), "must be above zero")
        share = per_million(fault.delay.percentage, join(where, "percentage"))
        body["delay"] = {"ms": ms, "per_million": share}
    if fault.HasField("abort"):
        where = join(path, "abort")
        only(fault.abort, where, reads=("http_status", "grpc_status", "percentage"))
        body["abort"] = {
            "reply": {**_abort_status(fault.abort, where), "message": ABORT_MESSAGE},
            "per_million": per_million(fault.abort.percentage, join(where, "percentage")),
        }
    return body


def _abort_status(abort: fault_pb2.FaultAbort, path: str) -> dict[str, int]:
    match abort.WhichOneof("error_type"):
        case "grpc_status":
            return {"grpc_status": int(abort.grpc_status)}
        case "http_status":
            status = int(abort.http_status)
            return {"grpc_status": grpc_of_http(status), "http_status": status}
        case _:
            raise UnsupportedFieldError(path, "must have a grpc_status or an http_status")


_GRPC_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_UNKNOWN = 2


def grpc_of_http(status: int) -> int:
    """gRPC's table of HTTP statuses; others are UNKNOWN."""
    return _GRPC_OF_HTTP.get(status, _UNKNOWN)


def per_million(fraction: percent_pb2.FractionalPercent, path: str) -> int:
    """A fraction as a number in a million."""
    share = int(fraction.numerator) * _MILLIONTHS[fraction.denominator]
    if share > 1_000_000:
        raise UnsupportedFieldError(path, "must be at most 100 %")
    return share


# Mirrors.


def mirrors_of_action(
    action: route_components_pb2.RouteAction, own: dict[str, Any], path: str
) -> tuple[list[dict[str, Any]], dict[int, list[dict[str, Any]]]]:
    """The mirrors of all calls, and those of the calls of each part of the split."""
    mirrors = [
        _mirror(policy, f"{path}.request_mirror_policies[{index}]")
        for index, policy in enumerate(action.request_mirror_policies)
    ]
    return mirrors, _part_mirrors(own)


def _mirror(
    policy: route_components_pb2.RouteAction.RequestMirrorPolicy, path: str
) -> dict[str, Any]:
    only(
        policy,
        path,
        reads=("cluster", "runtime_fraction", "request_headers_mutations"),
        ignores=("trace_sampled",),
    )
    share = 1_000_000
    if policy.HasField("runtime_fraction"):
        where = join(path, "runtime_fraction")
        only(policy.runtime_fraction, where, reads=("default_value",))
        share = per_million(policy.runtime_fraction.default_value, join(where, "default_value"))
    changes: dict[str, Any] = {"set": [], "add": [], "remove": []}
    for index, mutation in enumerate(policy.request_headers_mutations):
        _mutate(changes, mutation, f"{path}.request_headers_mutations[{index}]")
    return _mirror_body(policy.cluster, share, changes)


def _mutate(
    changes: dict[str, Any], mutation: mutation_rules_pb2.HeaderMutation, path: str
) -> None:
    only(mutation, path, reads=("remove", "append"))
    if mutation.HasField("append"):
        only(mutation.append, join(path, "append"), reads=("header", "append_action"))
        if mutation.append.append_action != _OVERWRITE:
            raise UnsupportedFieldError(join(path, "append.append_action"), "must overwrite")
        header = mutation.append.header
        if "%" in header.value:
            raise UnsupportedFieldError(join(path, "append.header.value"), "must have no %")
        changes["set"].append([header.key.lower(), header.value])
    else:
        changes["remove"].append(mutation.remove.lower())


def _mirror_body(cluster: str, share: int, changes: dict[str, Any]) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "numerator": share,
        "denominator": 1_000_000,
        "request_headers": changes if any(changes.values()) else None,
    }


def _part_mirrors(own: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    path = f"metadata.{METADATA}.part_mirrors"
    given = own.get("part_mirrors", ())
    if not isinstance(given, tuple | struct_pb2.ListValue):
        raise UnsupportedFieldError(path, f"must be a list, got {given!r}")
    found: dict[int, list[dict[str, Any]]] = {}
    for index, entry in enumerate(given):
        where = f"{path}[{index}]"
        fields = _struct(entry, where)
        share = whole(fields.get("per_million"), join(where, "per_million"))
        target = str(fields.get("destination", ""))
        changes: dict[str, Any] = {
            "set": [["x-federation-destination", target]] if target else [],
            "add": [],
            "remove": [] if target else ["x-federation-destination"],
        }
        part = whole(fields.get("part"), join(where, "part"))
        found.setdefault(part, []).append(
            _mirror_body(str(fields.get("upstream", "")), share, changes)
        )
    return found


# Sessions.


def _session(
    message: stateful_session_pb2.StatefulSessionPerRoute, own: dict[str, Any], path: str
) -> dict[str, Any] | None:
    """Name and kind as Envoy has them; the bounds come with our own metadata."""
    only(message, path, reads=("disabled", "stateful_session"))
    if message.disabled:
        return None
    where = join(path, "stateful_session")
    only(message.stateful_session, where, reads=("session_state",), ignores=("stat_prefix",))
    state = message.stateful_session.session_state
    for kind, read in _STATES.items():
        if state.typed_config.Is(kind.DESCRIPTOR):
            at = join(where, "session_state.typed_config")
            body = read(unpack(state.typed_config, kind, at), at)
            return body | _session_bounds(own)
    raise UnsupportedFieldError(
        join(where, "session_state"), "must be a cookie-based or header-based session"
    )


def _cookie_state(state: cookie_session_pb2.CookieBasedSessionState, path: str) -> dict[str, Any]:
    where = join(path, "cookie")
    only(state.cookie, where, reads=("name", "ttl", "path"))
    if state.cookie.path not in ("", "/"):
        raise UnsupportedFieldError(join(where, "path"), "must be /")
    ttl = optional_ms(state.cookie, "ttl") or None
    return {
        "name": state.cookie.name,
        "kind": "cookie",
        "absolute_ms": ttl,
        "permanent": ttl is not None,
    }


def _header_state(state: header_session_pb2.HeaderBasedSessionState, path: str) -> dict[str, Any]:
    only(state, path, reads=("name",))
    return {"name": state.name.lower(), "kind": "header"}


_STATES: Mapping[type[Any], Callable[[Any, str], dict[str, Any]]] = {
    cookie_session_pb2.CookieBasedSessionState: _cookie_state,
    header_session_pb2.HeaderBasedSessionState: _header_state,
}


def _session_bounds(own: dict[str, Any]) -> dict[str, Any]:
    if "session" not in own:
        return {}
    path = f"metadata.{METADATA}.session"
    fields = _struct(own["session"], path)
    bounds: dict[str, Any] = {"permanent": fields.get("permanent") is True}
    for name in ("absolute_ms", "idle_ms"):
        if name in fields:
            bounds[name] = whole(fields[name], join(path, name))
    return bounds


# Retry budgets.


def retry_budget(own: dict[str, Any]) -> dict[str, Any]:
    """The bound on all retries of a route, which Envoy has for clusters only."""
    if "retry_budget" not in own:
        return {}
    path = f"metadata.{METADATA}.retry_budget"
    fields = _struct(own["retry_budget"], path)
    names = {
        "budget_percent": "percent",
        "budget_interval_ms": "interval_ms",
        "min_retries": "min_retries",
        "min_retries_interval_ms": "min_retries_interval_ms",
    }
    numbers = {name: whole(fields.get(given), join(path, given)) for name, given in names.items()}
    return numbers | {"budget_name": str(fields.get("name", "")) or None}


def _struct(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, struct_pb2.Struct):
        raise UnsupportedFieldError(path, f"must be a map, got {value!r}")
    return dict(value.items())
