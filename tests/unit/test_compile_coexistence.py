"""GRPCRoutes beside HTTPRoutes: one kind for each host of a listener."""

from __future__ import annotations

import itertools

import pytest

from federation.derive.compile import Compiled, CompileInputs, CompileSettings, compile_cluster
from federation.model.base import Region
from federation.model.objects import ApiObject, ObjectKey
from federation.model.view import FederationView
from tests.testkit.routing import WEST, compiled, parse, snapshot_of, spelled

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: istio
  listeners:
  - {name: one, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: two, port: 81, protocol: HTTP, hostname: two.example.com,
     allowedRoutes: {namespaces: {from: All}, kinds: [{kind: HTTPRoute}]}}
"""


def route(kind: str, name: str, hostnames: str, section: str = "sectionName: one") -> str:
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: app}}
spec:
  parentRefs: [{{name: gw, namespace: infra, {section}}}]
  hostnames: [{hostnames}]
  rules: [{{}}]
"""


def accepted(result: Compiled, kind: str, name: str) -> tuple[str, str]:
    """``Accepted`` of a route, and its message."""
    key = ObjectKey("gateway.networking.k8s.io", kind, "app", name)
    (parent,) = result.statuses[key].parents
    message = next(entry.message for entry in parent.conditions if entry.type == "Accepted")
    return spelled(parent.conditions)["Accepted"], message


@pytest.mark.parametrize(
    ("grpc", "http", "shared"),
    [
        ("a.example.com", "a.example.com", True),
        ("", "a.example.com", True),
        ("'*.example.com'", "a.example.com", True),
        ("a.example.com", "'*.example.com'", True),
        ("'*.a.example.com'", "'*.example.com'", True),
        ("a.example.com", "b.example.com", False),
        ("example.com", "'*.example.com'", False),
    ],
)
def test_the_older_keeps_a_host_that_both_ask_for(grpc: str, http: str, shared: bool) -> None:
    texts = [route("GRPCRoute", "grpc", grpc), route("HTTPRoute", "http", http)]
    for older, younger in itertools.permutations(texts):
        result = compiled(parse(GATEWAY + older + younger))
        kinds = ["GRPCRoute", "HTTPRoute"] if older is texts[0] else ["HTTPRoute", "GRPCRoute"]
        names = [kind.removesuffix("Route").lower() for kind in kinds]
        assert accepted(result, kinds[0], names[0])[0] == "True/Accepted"
        said, message = accepted(result, kinds[1], names[1])
        if not shared:
            assert said == "True/Accepted"
            continue
        assert said == "False/NotAllowedByListeners"
        assert f"for {kinds[0]} app/{names[0]}, which is older" in message
        status = result.statuses[ObjectKey("gateway.networking.k8s.io", "Gateway", "infra", "gw")]
        assert status.listeners[0].attached_routes == 1


def test_of_one_age_the_first_by_name_keeps_it() -> None:
    text = GATEWAY + route("GRPCRoute", "zoo", "") + route("HTTPRoute", "ape", "")
    same_age: list[ApiObject] = [entry.with_creation_order(7) for entry in parse(text)]
    for order in itertools.permutations(same_age):
        inputs = CompileInputs(
            cluster=WEST,
            region=Region(WEST),
            objects=snapshot_of(order),
            view=FederationView(),
            settings=CompileSettings(),
        )
        result = compile_cluster(inputs)
        assert accepted(result, "HTTPRoute", "ape")[0] == "True/Accepted"
        assert accepted(result, "GRPCRoute", "zoo")[0] == "False/NotAllowedByListeners"


def test_another_listener_of_the_parent_is_not_touched() -> None:
    older = route("GRPCRoute", "grpc", "")
    result = compiled(parse(GATEWAY + older + route("HTTPRoute", "http", "", "")))
    assert accepted(result, "HTTPRoute", "http") == ("True/Accepted", "attached to listener two")


def test_routes_of_one_kind_share_hosts() -> None:
    texts = route("HTTPRoute", "x", "a.example.com") + route("HTTPRoute", "y", "a.example.com")
    result = compiled(parse(GATEWAY + texts))
    assert accepted(result, "HTTPRoute", "x")[0] == "True/Accepted"
    assert accepted(result, "HTTPRoute", "y")[0] == "True/Accepted"


def test_routes_of_one_name_do_not_hide_each_other() -> None:
    texts = route("GRPCRoute", "x", "a.example.com") + route("HTTPRoute", "x", "b.example.com")
    (table,) = (
        it for it in compiled(parse(GATEWAY + texts)).snapshot.route_tables if "/80" in it.name
    )
    answering = {host.hostname for host in table.virtual_hosts if host.routes}
    assert answering == {"a.example.com", "b.example.com"}
