"""Route configurations (RDS).

Decides: how matches, weights, header changes, time-outs and retries are spelled.
Leaves to others: precedence and meaning (``derive.compile``), rate limits (``xds_limits``).
Invariants: routes keep their order; a caller's ``grpc-timeout`` always holds; what Envoy has no
field for (the rule's name, the reason of a partial refusal, the full list of retried gRPC codes)
stands in the route's metadata.
"""

from __future__ import annotations

from typing import assert_never

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf import wrappers_pb2

from federation.model.http import Redirect
from federation.model.snapshot import (
    Forward,
    HeaderChanges,
    HeaderMatch,
    MatchKind,
    Refuse,
    Retry,
    Route,
    RouteMatch,
    RouteTable,
    Timeouts,
    VirtualHost,
    Weighted,
)
from federation.wire.xds_balancing import hash_policies
from federation.wire.xds_http import query_match, redirect_action, set_rewrite
from federation.wire.xds_telemetry import route_tracing
from federation.wire.xds_traffic import mirror_policies, notes, per_route, retry_priority
from federation.wire.xds_values import duration, metadata, packed, uint32

_APPEND = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD

_EVENT_OF_GRPC_CODE = {
    1: "cancelled",
    4: "deadline-exceeded",
    8: "resource-exhausted",
    13: "internal",
    14: "unavailable",
}
"""The gRPC codes that Envoy can retry on, by its names for them; others count for our gateway."""

_PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"

HOST_SELECTION_ATTEMPTS = 5
"""Draws until an endpoint not yet tried is found, before one is tried again."""


def route_configuration(table: RouteTable) -> route_pb2.RouteConfiguration:
    """The table with its virtual hosts."""
    return route_pb2.RouteConfiguration(
        name=table.name,
        virtual_hosts=[_virtual_host(host) for host in table.virtual_hosts],
        # Clusters arrive on the same stream before the routes that name them.
        validate_clusters=wrappers_pb2.BoolValue(value=False),
    )


def _virtual_host(host: VirtualHost) -> route_components_pb2.VirtualHost:
    return route_components_pb2.VirtualHost(
        name=host.hostname, domains=[host.hostname], routes=[_route(entry) for entry in host.routes]
    )


def _route(route: Route) -> route_components_pb2.Route:
    message = route_components_pb2.Route(
        name=route.name, match=_match(route.match), metadata=metadata(_notes(route))
    )
    match route.action:
        case Refuse(message=text, status=status):
            message.direct_response.status = status
            message.direct_response.body.inline_string = text
        case Redirect():
            message.redirect.CopyFrom(redirect_action(route.action, route.match.path))
        case Forward(destinations=destinations):
            message.route.CopyFrom(_action(destinations, route))
        case _:
            assert_never(route.action)
    message.request_headers_to_add.extend(_header_options(route.request_headers))
    message.request_headers_to_remove.extend(route.request_headers.remove)
    message.response_headers_to_add.extend(_header_options(route.response_headers))
    message.response_headers_to_remove.extend(route.response_headers.remove)
    if route.tracing is not None:
        message.tracing.CopyFrom(route_tracing(route.tracing))
    for name, settings in per_route(route).items():
        message.typed_per_filter_config[name].CopyFrom(settings)
    return message


def _notes(route: Route) -> dict[str, object]:
    found: dict[str, object] = {"rule": route.rule}
    if route.reason:
        found["reason"] = route.reason
    if route.retry is not None and route.retry.grpc_codes:
        found["grpc_codes"] = list(route.retry.grpc_codes)
    return found | notes(route)


def _match(match: RouteMatch) -> route_components_pb2.RouteMatch:
    message = route_components_pb2.RouteMatch(headers=[_header_match(h) for h in match.headers])
    match match.path.kind:
        case MatchKind.EXACT:
            message.path = match.path.value
        case MatchKind.PREFIX:
            message.prefix = match.path.value
        case MatchKind.SEGMENTS:
            message.path_separated_prefix = match.path.value
        case MatchKind.REGEX:
            message.safe_regex.regex = match.path.value
        case _:
            assert_never(match.path.kind)
    message.query_parameters.extend(query_match(query) for query in match.query)
    if match.method:
        method = HeaderMatch(name=":method", kind=MatchKind.EXACT, value=match.method)
        message.headers.append(_header_match(method))
    if match.grpc:
        message.grpc.SetInParent()
    return message


def _header_match(header: HeaderMatch) -> route_components_pb2.HeaderMatcher:
    match header.kind:
        case MatchKind.EXACT:
            text = string_pb2.StringMatcher(exact=header.value)
        case MatchKind.PREFIX:
            text = string_pb2.StringMatcher(prefix=header.value)
        case MatchKind.REGEX:
            text = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=header.value))
        case MatchKind.SEGMENTS:
            raise ValueError(f"{header.name}: only paths have segments")
        case _:
            assert_never(header.kind)
    return route_components_pb2.HeaderMatcher(name=header.name, string_match=text)


def _action(destinations: tuple[Weighted, ...], route: Route) -> route_components_pb2.RouteAction:
    message = route_components_pb2.RouteAction(
        weighted_clusters=route_components_pb2.WeightedCluster(
            clusters=[_weighted(entry) for entry in destinations]
        ),
        request_mirror_policies=mirror_policies(route.mirrors),
        hash_policy=hash_policies(route.hash_on),
    )
    _set_timeouts(message, route.timeouts, grpc=route.match.grpc)
    if route.rewrite is not None:
        set_rewrite(message, route.rewrite, route.match.path)
    if route.retry is not None and route.retry.attempts:
        message.retry_policy.CopyFrom(_retry(route.retry))
    return message


def _weighted(entry: Weighted) -> route_components_pb2.WeightedCluster.ClusterWeight:
    return route_components_pb2.WeightedCluster.ClusterWeight(
        name=entry.upstream,
        weight=wrappers_pb2.UInt32Value(value=entry.weight),
        request_headers_to_add=_header_options(entry.request_headers),
        request_headers_to_remove=entry.request_headers.remove,
        response_headers_to_add=_header_options(entry.response_headers),
        response_headers_to_remove=entry.response_headers.remove,
    )


def _header_options(changes: HeaderChanges) -> list[base_pb2.HeaderValueOption]:
    operations = ((_OVERWRITE, changes.set), (_APPEND, changes.add))
    return [
        base_pb2.HeaderValueOption(
            # Envoy reads `%` as the start of a format operator; doubled it is itself.
            header=base_pb2.HeaderValue(key=name, value=value.replace("%", "%%")),
            append_action=action,
        )
        for action, pairs in operations
        for name, value in pairs
    ]


def _set_timeouts(
    message: route_components_pb2.RouteAction, timeouts: Timeouts, *, grpc: bool
) -> None:
    message.timeout.CopyFrom(duration(timeouts.request_ms or 0))
    if grpc or timeouts.request_ms is None:
        # With this message Envoy looks at no `timeout`: a route of HTTP with one goes without it.
        message.max_stream_duration.grpc_timeout_header_max.CopyFrom(duration(0))
    if timeouts.max_stream_ms is not None:
        limit = duration(timeouts.max_stream_ms)
        message.max_stream_duration.max_stream_duration.CopyFrom(limit)
    if timeouts.idle_ms is not None:
        message.idle_timeout.CopyFrom(duration(timeouts.idle_ms))


def _retry(retry: Retry) -> route_components_pb2.RetryPolicy:
    events = list(retry.on)
    events += [_EVENT_OF_GRPC_CODE[c] for c in retry.grpc_codes if c in _EVENT_OF_GRPC_CODE]
    message = route_components_pb2.RetryPolicy(
        retry_on=",".join(dict.fromkeys(events)),
        num_retries=uint32(retry.attempts),
        retriable_status_codes=retry.http_codes,
        retry_back_off=route_components_pb2.RetryPolicy.RetryBackOff(
            base_interval=duration(retry.base_ms), max_interval=duration(retry.max_ms)
        ),
        retry_host_predicate=[
            route_components_pb2.RetryPolicy.RetryHostPredicate(
                name=_PREVIOUS_HOSTS,
                typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=HOST_SELECTION_ATTEMPTS,
        retry_priority=retry_priority(),
    )
    if retry.per_try_timeout_ms is not None:
        message.per_try_timeout.CopyFrom(duration(retry.per_try_timeout_ms))
    return message
