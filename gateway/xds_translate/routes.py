"""Route tables: ``envoy.config.route.v3.RouteConfiguration``.

Decides: what of a route this gateway acts on: matches by path and headers, weighted clusters or an
answer of its own, header changes, time-outs. Retries are in ``retries``, faults, mirrors and
sessions in ``traffic``.
Leaves to others: choosing (the core).
Invariants: routes keep their order; xDS defaults hold where a field is unset (a request time-out of
15 s among them).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2

from gateway.xds_translate import http
from gateway.xds_translate.fields import (
    UnsupportedFieldError,
    join,
    only,
    optional_ms,
    own_metadata,
)
from gateway.xds_translate.piece import Kind, Piece, PieceId
from gateway.xds_translate.retries import translate_retry
from gateway.xds_translate.telemetry import route_tracing
from gateway.xds_translate.traffic import filters_of_route, grpc_of_http, mirrors_of_action

DEFAULT_TIMEOUT_MS = 15_000
"""What xDS means by an unset route time-out."""

_HEADER_FIELDS = (
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
)
_METHOD = ":method"
_PATHS = {
    "path": "exact",
    "prefix": "prefix",
    "path_separated_prefix": "segments",
    "safe_regex": "regex",
}
"""Ways to match a path, and the core's words for them."""

_Option = base_pb2.HeaderValueOption


def translate_routes(table: route_pb2.RouteConfiguration) -> Piece:
    """One route table."""
    only(table, "", reads=("name", "virtual_hosts"), ignores=("validate_clusters",))
    hosts = [
        _virtual_host(host, f"virtual_hosts[{index}]")
        for index, host in enumerate(table.virtual_hosts)
    ]
    clusters = {
        PieceId(Kind.CLUSTERS, name)
        for host in hosts
        for route in host["routes"]
        for name in _clusters(route)
    }
    return Piece(
        PieceId(Kind.ROUTE_TABLES, table.name),
        {"name": table.name, "virtual_hosts": hosts},
        needs=frozenset(clusters),
    )


def _clusters(route: dict[str, Any]) -> Iterable[str]:
    parts = route["action"].get("weighted", ())
    for holder in (route, *parts):
        yield from (mirror["cluster"] for mirror in holder.get("mirrors", ()))
    yield from (part["cluster"] for part in parts)


def _virtual_host(host: route_components_pb2.VirtualHost, path: str) -> dict[str, Any]:
    only(host, path, reads=("name", "domains", "routes"))
    return {
        "name": host.name,
        "hostnames": list(host.domains),
        "routes": [
            _route(route, f"{path}.routes[{index}]") for index, route in enumerate(host.routes)
        ],
    }


def _route(route: route_components_pb2.Route, path: str) -> dict[str, Any]:
    only(
        route,
        path,
        reads=(
            "name",
            "match",
            "route",
            "direct_response",
            "redirect",
            "metadata",
            "typed_per_filter_config",
            "tracing",
            *_HEADER_FIELDS,
        ),
    )
    own = own_metadata(route)
    body: dict[str, Any] = {
        # Rules with several matches repeat their name: people look for the rule.
        "name": str(own.get("rule", route.name)),
        "match": _match(route.match, join(path, "match")),
        **_header_changes(route, path),
        **filters_of_route(
            route.typed_per_filter_config, own, join(path, "typed_per_filter_config")
        ),
    }
    if route.HasField("tracing"):
        body["tracing"] = route_tracing(route.tracing, join(path, "tracing"))
    if route.HasField("direct_response"):
        return body | {"action": {"reply": _reply(route, join(path, "direct_response"))}}
    if route.HasField("redirect"):
        target = http.redirect(route.redirect, join(path, "redirect"))
        return body | {"action": {"redirect": target}}
    if not route.HasField("route"):
        message = "must have an action: route, redirect or direct_response"
        raise UnsupportedFieldError(path, message)
    return body | _forward(route.route, own, join(path, "route"))


def _reply(route: route_components_pb2.Route, path: str) -> dict[str, Any]:
    answer = route.direct_response
    only(answer, path, reads=("status", "body"))
    only(answer.body, join(path, "body"), reads=("inline_string",))
    return {
        "grpc_status": grpc_of_http(answer.status),
        "http_status": answer.status,
        "message": answer.body.inline_string,
    }


def _forward(
    action: route_components_pb2.RouteAction, own: dict[str, Any], path: str
) -> dict[str, Any]:
    only(
        action,
        path,
        reads=(
            "cluster",
            "weighted_clusters",
            "timeout",
            "idle_timeout",
            "max_stream_duration",
            "retry_policy",
            "request_mirror_policies",
            "host_rewrite_literal",
            "prefix_rewrite",
            "regex_rewrite",
        ),
        ignores=("hash_policy",),  # a cluster that hashes says itself on what
    )
    longest = action.max_stream_duration
    where = join(path, "max_stream_duration")
    only(longest, where, reads=("max_stream_duration", "grpc_timeout_header_max"))
    if optional_ms(longest, "grpc_timeout_header_max"):
        raise UnsupportedFieldError(
            join(where, "grpc_timeout_header_max"),
            "must be 0s: a caller's deadline holds unbounded",
        )
    timeout = optional_ms(action, "timeout")
    mirrors, part_mirrors = mirrors_of_action(action, own, path)
    parts = _weighted(action, path)
    for index, part in enumerate(parts):
        part.update({"mirrors": part_mirrors[index]} if index in part_mirrors else {})
    return {
        "action": {"weighted": parts},
        **({"mirrors": mirrors} if mirrors else {}),
        **http.rewrite(action, path),
        "timeout_ms": DEFAULT_TIMEOUT_MS if timeout is None else timeout or None,
        "max_stream_ms": optional_ms(longest, "max_stream_duration") or None,
        "idle_timeout_ms": optional_ms(action, "idle_timeout") or None,
        "retry": translate_retry(action.retry_policy, own, join(path, "retry_policy"))
        if action.HasField("retry_policy")
        else None,
    }


def _weighted(action: route_components_pb2.RouteAction, path: str) -> list[dict[str, Any]]:
    if action.cluster:
        return [{"cluster": action.cluster, "weight": 1}]
    split = action.weighted_clusters
    where = join(path, "weighted_clusters")
    only(split, where, reads=("clusters",))
    if not split.clusters:
        raise UnsupportedFieldError(path, "must name a cluster or weighted_clusters")
    entries = []
    for index, entry in enumerate(split.clusters):
        at = f"{where}.clusters[{index}]"
        only(entry, at, reads=("name", "weight", *_HEADER_FIELDS), ignores=("metadata_match",))
        entries.append(
            {
                "cluster": entry.name,
                "weight": entry.weight.value,
                **_header_changes(entry, at),
            }
        )
    return entries


# Matches.


def _match(match: route_components_pb2.RouteMatch, path: str) -> dict[str, Any]:
    only(match, path, reads=(*_PATHS, "headers", "query_parameters", "grpc"))
    kind = match.WhichOneof("path_specifier")
    if kind is None:
        raise UnsupportedFieldError(path, f"must match by one of {', '.join(_PATHS)}")
    value = match.safe_regex.regex if kind == "safe_regex" else getattr(match, kind)
    headers = [
        _header_match(header, f"{path}.headers[{index}]")
        for index, header in enumerate(match.headers)
    ]
    body: dict[str, Any] = {
        "path": {_PATHS[kind]: value},
        "headers": [header for header in headers if header["name"] != _METHOD],
        "grpc": match.HasField("grpc"),
    }
    if match.query_parameters:
        body["query"] = [
            http.query_match(query, f"{path}.query_parameters[{index}]")
            for index, query in enumerate(match.query_parameters)
        ]
    for header in headers:
        if header["name"] == _METHOD:
            if "exact" not in header or "method" in body:
                raise UnsupportedFieldError(join(path, "headers"), f"{_METHOD} must be exact, once")
            body["method"] = header["exact"]
    return body


def _header_match(header: route_components_pb2.HeaderMatcher, path: str) -> dict[str, Any]:
    only(header, path, reads=("name", "string_match", "present_match"))
    name = header.name.lower()
    match header.WhichOneof("header_match_specifier"):
        case "present_match" if header.present_match:
            return {"name": name, "present": True}
        case "string_match":
            text, where = header.string_match, join(path, "string_match")
            only(text, where, reads=("exact", "safe_regex"))
            if text.HasField("safe_regex"):
                return {"name": name, "regex": text.safe_regex.regex}
            return {"name": name, "exact": text.exact}
        case other:
            raise UnsupportedFieldError(path, f"must be string_match or present_match, got {other}")


# Header changes.


def _header_changes(
    holder: route_components_pb2.Route | route_components_pb2.WeightedCluster.ClusterWeight,
    path: str,
) -> dict[str, Any]:
    changes = {
        side: _changes(
            getattr(holder, f"{side}_to_add"),
            getattr(holder, f"{side}_to_remove"),
            join(path, f"{side}_to_add"),
        )
        for side in ("request_headers", "response_headers")
    }
    return {side: change for side, change in changes.items() if change is not None}


def _changes(
    options: Sequence[base_pb2.HeaderValueOption], removed: Iterable[str], path: str
) -> dict[str, Any] | None:
    overwritten: list[list[str]] = []
    appended: list[list[str]] = []
    for index, option in enumerate(options):
        at = f"{path}[{index}]"
        only(option, at, reads=("header", "append_action"))
        pair = [option.header.key.lower(), _literal(option.header.value, join(at, "header.value"))]
        if option.append_action == _Option.OVERWRITE_IF_EXISTS_OR_ADD:
            overwritten.append(pair)
        elif option.append_action == _Option.APPEND_IF_EXISTS_OR_ADD:
            appended.append(pair)
        else:
            raise UnsupportedFieldError(join(at, "append_action"), "must append or overwrite")
    names = [name.lower() for name in removed]
    if not (overwritten or appended or names):
        return None
    return {"set": overwritten, "add": appended, "remove": names}


def _literal(value: str, path: str) -> str:
    """The text of a header value; ``%%`` is a percent sign, ``%`` starts a format operator."""
    if "%" in value.replace("%%", ""):
        raise UnsupportedFieldError(path, "format operators (%...%) are not supported")
    return value.replace("%%", "%")
