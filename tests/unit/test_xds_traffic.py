"""Faults, mirrors, sessions and retry budgets: to Envoy's words and back, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2 as cookie_session_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

from federation.model.base import ClusterId
from federation.model.snapshot import (
    ConnectionLimits,
    FilterChain,
    Forward,
    Listener,
    ListenerKind,
    MatchKind,
    PathMatch,
    Retry,
    Route,
    RouteMatch,
    RouteTable,
    Snapshot,
    Upstream,
    VirtualHost,
    Weighted,
)
from federation.model.traffic import (
    Fault,
    FaultAbort,
    FaultDelay,
    Mirror,
    RetryBudget,
    Session,
    SessionKind,
)
from federation.wire.xds import NodeView, to_resources
from gateway.xds_translate import Kind, PieceId, UnsupportedFieldError, translate_message
from gateway.xds_translate.traffic import ABORT_MESSAGE, FAULT, SESSION

EVERYTHING = RouteMatch(PathMatch(MatchKind.PREFIX, "/"))
RETRY = Retry(("unavailable",), 2, 25, 250)


def resource_of(**parts: Any) -> route_pb2.RouteConfiguration:
    route = Route(
        **({"name": "r", "rule": "r", "match": EVERYTHING, "action": TO_ONE, "retry": RETRY})
        | parts
    )
    table = RouteTable("t", (VirtualHost("*", (route,)),))
    snapshot = Snapshot(cluster=ClusterId("c"), route_tables=(table,))
    return to_resources(snapshot, NodeView()).routes["t"]


TO_ONE = Forward((Weighted("one", 1),))


def message_of(**parts: Any) -> route_components_pb2.Route:
    return resource_of(**parts).virtual_hosts[0].routes[0]


def body_of(**parts: Any) -> dict[str, Any]:
    (body,) = translate_message(Kind.ROUTE_TABLES, resource_of(**parts)).body["virtual_hosts"][0][
        "routes"
    ]
    return body


def test_a_plain_route_has_nothing_of_it() -> None:
    assert body_of().keys().isdisjoint({"fault", "mirrors", "session"})
    assert not message_of().typed_per_filter_config


def test_a_fault_is_a_setting_of_envoys_fault_filter() -> None:
    fault = Fault(FaultDelay(250, 125_000), FaultAbort(grpc_status=14, per_million=1))
    assert body_of(fault=fault)["fault"] == {
        "delay": {"ms": 250, "per_million": 125_000},
        "abort": {
            "reply": {"grpc_status": 14, "message": ABORT_MESSAGE},
            "per_million": 1,
        },
    }
    sent = fault_pb2.HTTPFault()
    assert message_of(fault=fault).typed_per_filter_config[FAULT].Unpack(sent)
    assert sent.abort.grpc_status == 14
    assert sent.delay.percentage.denominator == percent_pb2.FractionalPercent.MILLION


def test_a_fault_with_an_http_status_is_what_grpc_makes_of_it() -> None:
    body = body_of(fault=Fault(abort=FaultAbort(http_status=404)))
    reply = body["fault"]["abort"]["reply"]
    assert (reply["grpc_status"], reply["http_status"]) == (12, 404)


def test_mirrors_of_a_route_name_their_own_destination() -> None:
    mirrors = (Mirror("a", 500_000), Mirror("b", destination="app/users:9090"))
    table = resource_of(mirrors=mirrors)
    piece = translate_message(Kind.ROUTE_TABLES, table)
    (body,) = piece.body["virtual_hosts"][0]["routes"]
    assert body["mirrors"] == [
        {
            "cluster": "a",
            "numerator": 500_000,
            "denominator": 1_000_000,
            "request_headers": {"set": [], "add": [], "remove": ["x-federation-destination"]},
        },
        {
            "cluster": "b",
            "numerator": 1_000_000,
            "denominator": 1_000_000,
            "request_headers": {
                "set": [["x-federation-destination", "app/users:9090"]],
                "add": [],
                "remove": [],
            },
        },
    ]
    assert {PieceId(Kind.CLUSTERS, name) for name in ("one", "a", "b")} == piece.needs
    policies = table.virtual_hosts[0].routes[0].route.request_mirror_policies
    assert [policy.cluster for policy in policies] == ["a", "b"]


def test_mirrors_of_one_backend_stand_in_our_metadata() -> None:
    action = Forward((Weighted("one", 1), Weighted("two", 1, mirrors=(Mirror("a", 7, "n/s:1"),))))
    table = resource_of(action=action)
    piece = translate_message(Kind.ROUTE_TABLES, table)
    (body,) = piece.body["virtual_hosts"][0]["routes"]
    one, two = body["action"]["weighted"]
    assert "mirrors" not in one
    assert [(entry["cluster"], entry["numerator"]) for entry in two["mirrors"]] == [("a", 7)]
    assert two["mirrors"][0]["request_headers"]["set"] == [["x-federation-destination", "n/s:1"]]
    assert PieceId(Kind.CLUSTERS, "a") in piece.needs
    assert not table.virtual_hosts[0].routes[0].route.request_mirror_policies


@pytest.mark.parametrize(
    ("session", "body"),
    [
        (Session("sid"), {"kind": "cookie", "absolute_ms": None, "permanent": False}),
        (
            Session("sid", absolute_ms=60_000, idle_ms=5_000),
            {"kind": "cookie", "absolute_ms": 60_000, "idle_ms": 5_000, "permanent": False},
        ),
        (
            Session("sid", absolute_ms=60_000, permanent=True),
            {"kind": "cookie", "absolute_ms": 60_000, "permanent": True},
        ),
        (
            Session("x-sid", SessionKind.HEADER, idle_ms=5_000),
            {"kind": "header", "idle_ms": 5_000, "permanent": False},
        ),
    ],
)
def test_sessions_keep_their_bounds(session: Session, body: dict[str, Any]) -> None:
    assert body_of(session=session)["session"] == {"name": session.name} | body


def test_envoy_keeps_a_permanent_cookie_as_long_as_the_session() -> None:
    def cookie(session: Session) -> Any:
        sent = stateful_session_pb2.StatefulSessionPerRoute()
        assert message_of(session=session).typed_per_filter_config[SESSION].Unpack(sent)
        state = cookie_session_pb2.CookieBasedSessionState()
        assert sent.stateful_session.session_state.typed_config.Unpack(state)
        assert not sent.stateful_session.strict, "who lost its endpoint gets another one"
        return state.cookie

    assert cookie(Session("s", absolute_ms=60_000, permanent=True)).ttl.seconds == 60
    assert not cookie(Session("s", absolute_ms=60_000)).HasField("ttl")


def test_a_session_of_another_control_plane_lasts_as_long_as_its_cookie() -> None:
    table = resource_of(session=Session("s", absolute_ms=60_000, permanent=True))
    table.virtual_hosts[0].routes[0].ClearField("metadata")
    (body,) = translate_message(Kind.ROUTE_TABLES, table).body["virtual_hosts"][0]["routes"]
    assert body["session"] == {
        "name": "s",
        "kind": "cookie",
        "absolute_ms": 60_000,
        "permanent": True,
    }


def test_a_retry_budget_is_the_routes_here_and_the_clusters_in_envoy() -> None:
    budget = RetryBudget("app/p", 5, 60_000, 1, 10_000)
    retry = body_of(retry=Retry(("unavailable",), 2, 25, 250, budget=budget))["retry"]
    assert {name: retry[name] for name in retry if "budget" in name or "min_" in name} == {
        "budget_name": "app/p",
        "budget_percent": 5,
        "budget_interval_ms": 60_000,
        "min_retries": 1,
        "min_retries_interval_ms": 10_000,
    }
    assert "budget_percent" not in body_of()["retry"]
    upstream = Upstream("u", 1000, limits=ConnectionLimits(retry_budget=budget))
    snapshot = Snapshot(cluster=ClusterId("c"), upstreams=(upstream,))
    cluster = to_resources(snapshot, NodeView()).clusters["u"]
    (thresholds,) = cluster.circuit_breakers.thresholds
    assert thresholds.retry_budget.budget_percent.value == 5
    assert thresholds.retry_budget.min_retry_concurrency.value == 1
    translate_message(Kind.CLUSTERS, cluster)


def test_retries_leave_a_priority_at_their_second_failure() -> None:
    policy = message_of().route.retry_policy
    assert policy.retry_priority.name == "envoy.retry_priorities.previous_priorities"


def manager_of(kind: ListenerKind) -> http_connection_manager_pb2.HttpConnectionManager:
    listener = Listener("l", kind, 80, (FilterChain("f"),), "t")
    snapshot = Snapshot(cluster=ClusterId("c"), listeners=(listener,))
    chain = to_resources(snapshot, NodeView()).listeners["l"].filter_chains[0]
    manager = http_connection_manager_pb2.HttpConnectionManager()
    assert chain.filters[0].typed_config.Unpack(manager)
    return manager


def test_the_filters_stand_on_ingress_listeners_whatever_their_routes_ask_for() -> None:
    names = [entry.name for entry in manager_of(ListenerKind.INGRESS).http_filters]
    assert FAULT in names
    assert names[-2:] == [SESSION, "envoy.filters.http.router"]
    names = [entry.name for entry in manager_of(ListenerKind.EAST_WEST).http_filters]
    assert names == ["envoy.filters.http.router"]


# Refusals: each change of a good route, and the path that has to be named.


def packed(message: Message) -> any_pb2.Any:
    body = any_pb2.Any()
    body.Pack(message)
    return body


def with_fault(route: route_components_pb2.Route, **fields: Any) -> None:
    route.typed_per_filter_config[FAULT].CopyFrom(packed(fault_pb2.HTTPFault(**fields)))


def noted(route: route_components_pb2.Route, **notes: Any) -> None:
    route.metadata.filter_metadata["federation.gateway"].update(notes)


PATH = "virtual_hosts[0].routes[0]"
OF_FAULT = f"{PATH}.typed_per_filter_config[{FAULT}]"

REFUSALS: list[tuple[Callable[[route_components_pb2.Route], object], str]] = [
    (
        lambda r: r.typed_per_filter_config["envoy.filters.http.lua"].SetInParent(),
        f"{PATH}.typed_per_filter_config[envoy.filters.http.lua]: not supported by this gateway",
    ),
    (
        lambda r: with_fault(r, upstream_cluster="c"),
        f"{OF_FAULT}.upstream_cluster: not supported by this gateway",
    ),
    (
        lambda r: with_fault(r, abort=fault_pb2.FaultAbort()),
        f"{OF_FAULT}.abort: must have a grpc_status or an http_status",
    ),
    (
        lambda r: with_fault(
            r,
            abort=fault_pb2.FaultAbort(
                grpc_status=14, percentage=percent_pb2.FractionalPercent(numerator=101)
            ),
        ),
        f"{OF_FAULT}.abort.percentage: must be at most 100 %",
    ),
    (
        lambda r: setattr(
            r.route.request_mirror_policies.add(cluster="m"), "cluster_header", "x-to"
        ),
        f"{PATH}.route.request_mirror_policies[0].cluster_header: not supported by this gateway",
    ),
    (
        lambda r: setattr(
            r.route.request_mirror_policies.add(cluster="m")
            .request_headers_mutations.add()
            .append.header,
            "key",
            "x-a",
        ),
        (
            f"{PATH}.route.request_mirror_policies[0].request_headers_mutations[0].append.append_action"
            ": must overwrite"
        ),
    ),
    (
        lambda r: r.typed_per_filter_config[SESSION].CopyFrom(
            packed(stateful_session_pb2.StatefulSessionPerRoute())
        ),
        (
            f"{PATH}.typed_per_filter_config[{SESSION}].stateful_session.session_state: "
            "must be a cookie-based or header-based session"
        ),
    ),
    (
        lambda r: noted(r, part_mirrors="all"),
        "metadata.federation.gateway.part_mirrors: must be a list, got 'all'",
    ),
    (
        lambda r: noted(r, retry_budget={"percent": 20}),
        "metadata.federation.gateway.retry_budget.interval_ms: must be a whole number, got None",
    ),
    (
        lambda r: setattr(r.route.retry_policy.retry_priority, "name", "other"),
        (
            f"{PATH}.route.retry_policy.retry_priority: must be "
            "envoy.retry_priorities.previous_priorities"
        ),
    ),
]


@pytest.mark.parametrize(("change", "text"), REFUSALS)
def test_what_is_not_done_is_refused_with_its_path(
    change: Callable[[route_components_pb2.Route], object], text: str
) -> None:
    table = resource_of()
    change(table.virtual_hosts[0].routes[0])
    with pytest.raises(UnsupportedFieldError) as refusal:
        translate_message(Kind.ROUTE_TABLES, table)
    assert str(refusal.value) == text


def test_a_filter_with_settings_of_the_listener_is_refused() -> None:
    listener = Listener("l", ListenerKind.INGRESS, 80, (FilterChain("f"),), "t")
    snapshot = Snapshot(cluster=ClusterId("c"), listeners=(listener,))
    resource = to_resources(snapshot, NodeView()).listeners["l"]
    manager = manager_of(ListenerKind.INGRESS)
    place = [entry.name for entry in manager.http_filters].index(FAULT)
    manager.http_filters[place].typed_config.Pack(
        fault_pb2.HTTPFault(abort=fault_pb2.FaultAbort(grpc_status=14))
    )
    resource.filter_chains[0].filters[0].typed_config.Pack(manager)
    with pytest.raises(UnsupportedFieldError) as refusal:
        translate_message(Kind.LISTENERS, resource)
    assert str(refusal.value) == (
        f"filter_chains[0].filters[0].typed_config.http_filters[{place}].typed_config.abort: "
        "not supported by this gateway"
    )
