"""Attachment of routes to listeners, and the statuses of both."""

from __future__ import annotations

import pytest

from federation.derive.compile import Compiled
from federation.derive.compile.features import supported_features
from federation.model.objects import Gateway, GRPCRoute, ObjectKey
from federation.model.status import ParentStatus
from tests.testkit.routing import certificate, compiled, parse, routes_of, service, spelled

ROUTE = ObjectKey("gateway.networking.k8s.io", "GRPCRoute", "app", "users")
GATEWAY = ObjectKey("gateway.networking.k8s.io", "Gateway", "infra", "grpc-gateway")


def gateway(listener: str, name: str = "grpc-gateway", more: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: infra, generation: 7}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: grpc, port: 443, protocol: HTTPS, {listener},
     tls: {{certificateRefs: [{{name: cert}}]}}}}
{more}
---
"""


ALL = "allowedRoutes: {namespaces: {from: All}}"


def route(parent: str = "name: grpc-gateway, namespace: infra", hostnames: str = "[]") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: users, namespace: app, generation: 3}}
spec:
  parentRefs: [{{{parent}}}]
  hostnames: {hostnames}
  rules: [{{backendRefs: [{{name: user-service, port: 9090}}]}}]
---
"""


def result_of(text: str) -> Compiled:
    return compiled([*parse(text), *service("app/user-service"), certificate("infra/cert")])


def parent_of(result: Compiled) -> ParentStatus:
    (parent,) = result.statuses[ROUTE].parents
    return parent


def test_a_route_attaches_and_is_counted() -> None:
    result = result_of(gateway(ALL) + route())
    parent = parent_of(result)
    assert spelled(parent.conditions) == {
        "Accepted": "True/Accepted",
        "ResolvedRefs": "True/ResolvedRefs",
    }
    assert {entry.observed_generation for entry in parent.conditions} == {3}
    assert parent.controller_name == "federation.dev/gateway-controller"
    (listener,) = result.statuses[GATEWAY].listeners
    assert listener.attached_routes == 1
    assert [entry.kind for entry in listener.supported_kinds] == ["GRPCRoute", "HTTPRoute"]
    assert {entry.observed_generation for entry in listener.conditions} == {7}


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        ("name: gone, namespace: infra", "Gateway infra/gone does not exist"),
        (
            "name: grpc-gateway, namespace: infra, sectionName: http",
            "Gateway infra/grpc-gateway has no listener http; listeners: grpc (port 443)",
        ),
        (
            "name: grpc-gateway, namespace: infra, sectionName: grpc, port: 80",
            (
                "Gateway infra/grpc-gateway has no listener grpc on port 80; "
                "listeners: grpc (port 443)"
            ),
        ),
        (
            "name: users, kind: Service, group: ''",
            "Service users cannot be a parent here; parents are Gateways and ListenerSets",
        ),
    ],
)
def test_a_missing_parent_is_named(parent: str, message: str) -> None:
    accepted, _ = parent_of(result_of(gateway(ALL) + route(parent))).conditions
    assert (accepted.status, accepted.reason, accepted.message) == (
        "False",
        "NoMatchingParent",
        message,
    )


@pytest.mark.parametrize("port", ["", ", port: 443", ", sectionName: grpc, port: 443"])
def test_section_and_port_select_a_listener(port: str) -> None:
    parent = f"name: grpc-gateway, namespace: infra{port}"
    assert (
        spelled(parent_of(result_of(gateway(ALL) + route(parent))).conditions)["Accepted"]
        == "True/Accepted"
    )


def test_a_listener_for_http_routes_takes_no_grpc_route() -> None:
    listener = "allowedRoutes: {namespaces: {from: All}, kinds: [{kind: HTTPRoute}]}"
    result = result_of(gateway(listener) + route())
    accepted, _ = parent_of(result).conditions
    assert accepted.reason == "NotAllowedByListeners"
    assert accepted.message == (
        "Gateway infra/grpc-gateway: listener grpc takes only HTTPRoute; "
        "its allowedRoutes.kinds would have to list GRPCRoute"
    )
    (status,) = result.statuses[GATEWAY].listeners
    assert [entry.kind for entry in status.supported_kinds] == ["HTTPRoute"]
    assert spelled(status.conditions)["ResolvedRefs"] == "True/ResolvedRefs"
    assert status.attached_routes == 0


NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: app, labels: {internal-grpc: "true", stage: live}}
---
"""


@pytest.mark.parametrize(
    ("namespaces", "allowed"),
    [
        ("{from: All}", True),
        ("{from: Same}", False),
        ("{from: None}", False),
        ('{from: Selector, selector: {matchLabels: {internal-grpc: "true"}}}', True),
        ('{from: Selector, selector: {selectorLabels: {internal-grpc: "true"}}}', True),
        ('{from: Selector, selectorLabels: {internal-grpc: "no"}}', False),
        (
            (
                "{from: Selector, selector: {matchExpressions: "
                "[{key: stage, operator: In, values: [test, live]}]}}"
            ),
            True,
        ),
        (
            (
                "{from: Selector, selector: {matchExpressions: "
                "[{key: stage, operator: NotIn, values: [live]}]}}"
            ),
            False,
        ),
        (
            "{from: Selector, selector: {matchExpressions: [{key: tier, operator: Exists}]}}",
            False,
        ),
        (
            "{from: Selector, selector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}",
            True,
        ),
        ("{from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: app}}}", True),
    ],
)
def test_allowed_namespaces(namespaces: str, allowed: bool) -> None:
    listener = f"allowedRoutes: {{namespaces: {namespaces}}}"
    accepted, _ = parent_of(result_of(NAMESPACE + gateway(listener) + route())).conditions
    assert accepted.reason == ("Accepted" if allowed else "NotAllowedByListeners")


@pytest.mark.parametrize(
    ("listener", "hostnames", "expected"),
    [
        ("", "[]", ["*"]),
        ("", "[a.com]", ["*", "a.com"]),
        ("a.com", "[]", ["a.com"]),
        ("a.com", '["*.com"]', ["a.com"]),
        ('"*.com"', "[a.com, b.a.com]", ["*.com", "a.com", "b.a.com"]),
        ('"*.com"', '["*.a.com"]', ["*.a.com", "*.com"]),
        ('"*.a.com"', '["*.com"]', ["*.a.com"]),
    ],
)
def test_hostnames_in_common(listener: str, hostnames: str, expected: list[str]) -> None:
    spec = f"hostname: {listener}, {ALL}" if listener else ALL
    result = result_of(gateway(spec) + route(hostnames=hostnames))
    (table,) = [entry for entry in result.snapshot.route_tables if entry.name.endswith("443")]
    assert [host.hostname for host in table.virtual_hosts] == expected


@pytest.mark.parametrize(
    ("listener", "hostname"), [("a.com", "b.com"), ('"*.a.com"', "a.com"), ("b.a.com", '"*.b.com"')]
)
def test_nothing_in_common(listener: str, hostname: str) -> None:
    text = gateway(f"hostname: {listener}, {ALL}") + route(hostnames=f"[{hostname}]")
    accepted, _ = parent_of(result_of(text)).conditions
    assert accepted.reason == "NoMatchingListenerHostname"


def test_a_host_belongs_to_its_most_specific_listener() -> None:
    more = """
  - {name: own, hostname: a.example.com, port: 443, protocol: HTTPS,
     tls: {certificateRefs: [{name: cert}]}, allowedRoutes: {namespaces: {from: All}}}
"""
    text = gateway(f'hostname: "*.example.com", {ALL}', more=more)
    result = result_of(text + route("name: grpc-gateway, namespace: infra, sectionName: grpc"))
    assert routes_of(result, "a.example.com") == []
    assert len(routes_of(result, "*.example.com")) == 1


def test_passthrough_is_told_to_the_route() -> None:
    text = gateway(ALL).replace("tls: {", "tls: {mode: Passthrough, ")
    result = result_of(text + route())
    accepted, _ = parent_of(result).conditions
    assert accepted.reason == "Accepted"
    assert "methods and headers cannot be seen" in accepted.message
    assert "connections go to the backends of rule 0" in accepted.message
    (listener,) = [entry for entry in result.snapshot.listeners if entry.port == 443]
    (chain,) = listener.chains
    assert (chain.hostnames, chain.tls) == ((), None)
    assert [entry.upstream for entry in chain.passthrough] == ["service/app/user-service/9090"]


PASSTHROUGH_RULES = """
  - {matches: [{headers: [{name: x, value: y}]}], backendRefs: [{name: user-service, port: 9090}]}
  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}]
    backendRefs: [{name: user-service, port: 9090}]
"""
METHOD_RULE = """
  - matches: [{method: {service: a.B}}]
    backendRefs: [{name: user-service, port: 9090, weight: 3}, {name: gone, port: 1}]
"""


def passthrough(rules: str) -> Compiled:
    text = gateway(ALL).replace("tls: {", "tls: {mode: Passthrough, ")
    head, _, _ = route(hostnames='["a.example.com", "*.example.org"]').partition("  rules:")
    return result_of(f"{text}{head}  rules:{rules}---\n")


def test_rules_that_need_more_than_a_server_name_are_dropped() -> None:
    result = passthrough(PASSTHROUGH_RULES + METHOD_RULE + METHOD_RULE)
    (listener,) = [entry for entry in result.snapshot.listeners if entry.port == 443]
    (chain,) = listener.chains
    assert set(chain.hostnames) == {"a.example.com", "*.example.org"}
    assert [(entry.upstream, entry.weight) for entry in chain.passthrough] == [
        ("service/app/user-service/9090", 3),
        ("unavailable", 1),
    ]
    conditions = {entry.type: entry for entry in parent_of(result).conditions}
    assert conditions["Accepted"].status == "True"
    assert "backends of rule 2" in conditions["Accepted"].message
    assert conditions["PartiallyInvalid"].message == (
        "Dropped Rule 0, 1, 3: where TLS passes through: its header matches cannot be applied; "
        "its filters cannot be applied; rule 2 gets all connections"
    )


def test_a_policy_is_told_what_has_no_effect_where_tls_passes_through() -> None:
    policy = """
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {name: users, namespace: app}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: users}
  retry: {attempts: 1}
  circuitBreaker: {consecutiveFailures: 2}
  loadBalancer: {type: RoundRobin}
  timeout: {tcp: {connectTimeout: 1s}, http: {requestTimeout: 3s}}
---
"""

    def told(text: str) -> str:
        result = result_of(text + route() + policy)
        (key,) = [key for key in result.statuses if key.kind == "BackendTrafficPolicy"]
        (accepted, *_) = result.statuses[key].ancestors[0].conditions
        assert (accepted.type, accepted.status) == ("Accepted", "True")
        return accepted.message

    terminating = gateway(ALL)
    assert told(terminating) == ""
    assert told(terminating.replace("tls: {", "tls: {mode: Passthrough, ")) == (
        "without effect where TLS passes through: circuitBreaker, retry, timeout.http"
    )


def test_a_route_of_which_nothing_can_be_passed_through_is_not_accepted() -> None:
    result = passthrough(PASSTHROUGH_RULES)
    conditions = {entry.type: entry for entry in parent_of(result).conditions}
    assert conditions["Accepted"].reason == "UnsupportedValue"
    assert "rule 0: its header matches cannot be applied" in conditions["Accepted"].message
    assert not [entry for entry in result.snapshot.listeners if entry.port == 443]


def test_only_own_classes_are_served() -> None:
    foreign = gateway(ALL).replace("gatewayClassName: istio", "gatewayClassName: other")
    result = result_of(foreign + route())
    assert GATEWAY not in result.statuses
    assert result.statuses[ROUTE].parents == ()
    gateway_class = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: other, generation: 2}
spec: {controllerName: federation.dev/gateway-controller}
---
"""
    result = result_of(gateway_class + foreign + route())
    assert parent_of(result).conditions[0].reason == "Accepted"
    status = result.statuses[ObjectKey(GATEWAY.group, "GatewayClass", "", "other")]
    assert spelled(status.conditions) == {"Accepted": "True/Accepted"}
    assert status.supported_features == supported_features(dedicated=False)


def test_the_kinds_of_this_test_are_the_models() -> None:
    assert (ROUTE.group, ROUTE.kind) == (GRPCRoute.GROUP, GRPCRoute.KIND)
    assert (GATEWAY.group, GATEWAY.kind) == (Gateway.GROUP, Gateway.KIND)
