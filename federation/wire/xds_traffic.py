"""What routes do besides sending calls on, as Envoy's filters and policies: faults, mirrors,
sessions, retry budgets, and rate limits (spelled by ``xds_limits``).

Decides: their spelling, and the HTTP filters that every ingress listener has for them.
Leaves to others: the routes themselves (``xds_routes``), what is asked for (``derive.compile``).
Invariants: the filters of a listener do not depend on its routes, since a listener that changes is
replaced and its connections drain; a filter does nothing on a route that has no part of its own.
What Envoy has no field for (bounds of sessions, budgets over time, mirrors of one backend) stands
in the route's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2 as cookie_session_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2 as header_session_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import (
    previous_priorities_config_pb2,
)
from envoy.type.http.v3 import cookie_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

from federation.model.snapshot import DESTINATION_HEADER, Forward, Route
from federation.model.traffic import Fault, Mirror, Session, SessionKind
from federation.wire import xds_limits
from federation.wire.xds_http import CORS_FILTER, cors_policy
from federation.wire.xds_values import duration, packed

FAULT = "envoy.filters.http.fault"
SESSION = "envoy.filters.http.stateful_session"

TRIES_PER_PRIORITY = 2
"""Failed tries at a priority until retries turn to the others."""

_PREVIOUS_PRIORITIES = "envoy.retry_priorities.previous_priorities"
_SESSION_STATES = {
    SessionKind.COOKIE: "envoy.http.stateful_session.cookie",
    SessionKind.HEADER: "envoy.http.stateful_session.header",
}


def traffic_filters() -> list[http_connection_manager_pb2.HttpFilter]:
    """The filters that routes configure, in the order in which they see a request."""
    return [
        # First, so that what is over a limit costs nothing more.
        _filter(xds_limits.FILTER, xds_limits.filter_config()),
        _filter(FAULT, fault_pb2.HTTPFault()),
        _filter(CORS_FILTER, cors_pb2.Cors()),
        # Next to the router: it chooses the endpoint.
        _filter(SESSION, stateful_session_pb2.StatefulSession()),
    ]


def _filter(name: str, settings: Message) -> http_connection_manager_pb2.HttpFilter:
    return http_connection_manager_pb2.HttpFilter(name=name, typed_config=packed(settings))


def per_route(route: Route) -> dict[str, any_pb2.Any]:
    """Settings of the filters for one route, by the filters' names."""
    settings: dict[str, Message] = {}
    if (limits := xds_limits.route_config(route.rate_limits)) is not None:
        settings[xds_limits.FILTER] = limits
    if route.fault is not None:
        settings[FAULT] = _fault(route.fault)
    if route.session is not None:
        settings[SESSION] = _session(route.session)
    if route.cors is not None:
        settings[CORS_FILTER] = cors_policy(route.cors)
    return {name: packed(message) for name, message in settings.items()}


def notes(route: Route) -> dict[str, Any]:
    """What goes into the metadata of a route for our own gateway."""
    found: dict[str, Any] = {}
    if shared := xds_limits.shared_limits(route.rate_limits):
        found["rate_limits"] = shared
    if route.retry is not None and route.retry.budget is not None:
        found["retry_budget"] = asdict(route.retry.budget)
    if route.session is not None:
        bounds = {"absolute_ms": route.session.absolute_ms, "idle_ms": route.session.idle_ms}
        found["session"] = {
            "permanent": route.session.permanent,
            **{name: bound for name, bound in bounds.items() if bound is not None},
        }
    if isinstance(route.action, Forward):
        mirrors = [
            {"part": part, **asdict(mirror)}
            for part, entry in enumerate(route.action.destinations)
            for mirror in entry.mirrors
        ]
        if mirrors:
            found["part_mirrors"] = mirrors
    return found


def mirror_policies(
    mirrors: Iterable[Mirror],
) -> list[route_components_pb2.RouteAction.RequestMirrorPolicy]:
    """The mirrors of a route."""
    return [
        route_components_pb2.RouteAction.RequestMirrorPolicy(
            cluster=mirror.upstream,
            runtime_fraction=base_pb2.RuntimeFractionalPercent(
                default_value=_per_million(mirror.per_million)
            ),
            request_headers_mutations=[_destination(mirror)],
        )
        for mirror in mirrors
    ]


def _destination(mirror: Mirror) -> mutation_rules_pb2.HeaderMutation:
    """The copy names its own destination; the one of the call itself may be another."""
    if not mirror.destination:
        return mutation_rules_pb2.HeaderMutation(remove=DESTINATION_HEADER)
    return mutation_rules_pb2.HeaderMutation(
        append=base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=DESTINATION_HEADER, value=mirror.destination),
            append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
    )


def retry_priority() -> route_components_pb2.RetryPolicy.RetryPriority:
    """A retry leaves a priority at its second failure there, as our gateway leaves a cluster."""
    return route_components_pb2.RetryPolicy.RetryPriority(
        name=_PREVIOUS_PRIORITIES,
        typed_config=packed(
            previous_priorities_config_pb2.PreviousPrioritiesConfig(
                update_frequency=TRIES_PER_PRIORITY
            )
        ),
    )


def _fault(fault: Fault) -> fault_pb2.HTTPFault:
    message = fault_pb2.HTTPFault()
    if fault.delay is not None:
        message.delay.fixed_delay.CopyFrom(duration(fault.delay.ms))
        message.delay.percentage.CopyFrom(_per_million(fault.delay.per_million))
    if fault.abort is not None:
        message.abort.percentage.CopyFrom(_per_million(fault.abort.per_million))
        if fault.abort.grpc_status is not None:
            message.abort.grpc_status = fault.abort.grpc_status
        elif fault.abort.http_status is not None:
            message.abort.http_status = fault.abort.http_status
    return message


def _session(session: Session) -> stateful_session_pb2.StatefulSessionPerRoute:
    state: Message
    if session.kind is SessionKind.HEADER:
        state = header_session_pb2.HeaderBasedSessionState(name=session.name)
    else:
        cookie = cookie_pb2.Cookie(name=session.name, path="/")
        if session.permanent and session.absolute_ms is not None:
            cookie.ttl.CopyFrom(duration(session.absolute_ms))
        state = cookie_session_pb2.CookieBasedSessionState(cookie=cookie)
    message = stateful_session_pb2.StatefulSessionPerRoute()
    message.stateful_session.session_state.name = _SESSION_STATES[session.kind]
    message.stateful_session.session_state.typed_config.CopyFrom(packed(state))
    return message


def _per_million(share: int) -> percent_pb2.FractionalPercent:
    return percent_pb2.FractionalPercent(
        numerator=share, denominator=percent_pb2.FractionalPercent.MILLION
    )
