"""ObservabilityPolicies: how they come together, what resolves, and what targets say."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.derive.compile import Compiled, CompileInputs
from federation.derive.compile.compiler import Compiler
from federation.model.base import Region
from federation.model.conditions import Condition
from federation.model.objects import ApiObject, ObjectKey
from federation.model.snapshot import Listener, Route
from federation.model.telemetry import (
    DEFAULT_FIELDS,
    AccessLog,
    RouteTracing,
    Tag,
    TagSource,
    Telemetry,
    Tracing,
)
from federation.wire.manifest_yaml import parse_documents
from federation.wire.manifests import decode_all
from tests.testkit.routing import EVEN, WEST, aged, compiled, parse, routes_of, service, snapshot_of

GROUP = "gateway.networking.k8s.io"
DOCUMENT = Path(__file__).parent.parent / "manifests" / "7-observability.yaml"
COLLECTOR = "service/infra/otel-collector/4317"
OTHER = "service/app/other/4317"
AFFECTED = f"{GROUP}/ObservabilityPolicyAffected"

GATEWAY = f"""
apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: grpc-gateway, namespace: infra, generation: 3}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: grpc, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}
  - {{name: other, port: 81, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}
---
"""
ROUTES = "".join(
    f"""
apiVersion: {GROUP}/v1
kind: GRPCRoute
metadata: {{name: {name}, namespace: app}}
spec:
  parentRefs: [{{name: grpc-gateway, namespace: infra}}]
  hostnames: [{name}.example.com]
  rules:
  - {{name: main, backendRefs: [{{name: user-service, port: 9090}}]}}
---
"""
    for name in ("users", "orders")
)
TO_COLLECTOR = "provider: {backendRef: {name: otel-collector, port: 4317}}"
TO_OTHER = "provider: {backendRef: {name: other, port: 4317}}"
OF_USERS = "kind: GRPCRoute, name: users"
OF_GATEWAY = "kind: Gateway, name: grpc-gateway"


def policy(
    body: str, name: str = "first", target: str = OF_GATEWAY, namespace: str = "infra"
) -> str:
    return f"""
apiVersion: {GROUP}/v1alpha3
kind: ObservabilityPolicy
metadata: {{name: {name}, namespace: {namespace}, generation: 6}}
spec:
  targetRef: {{group: {GROUP}, {target}}}
{body}
---
"""


def on_users(body: str, name: str = "own") -> str:
    return policy(body, name, OF_USERS, "app")


def objects_of(text: str) -> list[ApiObject]:
    return [
        *parse(GATEWAY + ROUTES + text),
        *service("app/user-service"),
        *service("infra/otel-collector", ("10.0.9.1:4317",), port=4317),
        *service("app/other", ("10.0.9.2:4317",), port=4317),
    ]


def result_of(text: str) -> Compiled:
    return compiled(objects_of(text), EVEN)


def conditions(
    result: Compiled, name: str = "first", namespace: str = "infra"
) -> dict[str, Condition]:
    key = ObjectKey(GROUP, "ObservabilityPolicy", namespace, name)
    (ancestor,) = result.statuses[key].ancestors
    assert ancestor.controller_name == "federation.dev/gateway-controller"
    assert {entry.observed_generation for entry in ancestor.conditions} == {6}
    return {entry.type: entry for entry in ancestor.conditions}


def listener(result: Compiled, name: str = "infra/grpc-gateway/80") -> Listener:
    (found,) = [entry for entry in result.snapshot.listeners if entry.name == name]
    return found


def telemetry(result: Compiled, port: int = 80) -> Telemetry:
    found = listener(result, f"infra/grpc-gateway/{port}").telemetry
    assert found is not None
    return found


def route(result: Compiled, name: str = "users", port: int = 80) -> Route:
    table = f"infra/grpc-gateway/{port}"
    (found,) = routes_of(result, f"{name}.example.com", table=table)
    return found


def told(condition: Condition) -> tuple[str, str]:
    return str(condition.status), condition.reason


def test_the_document() -> None:
    result = compiled(
        [
            *parse(GATEWAY + ROUTES + DOCUMENT.read_text()),
            *service("app/user-service"),
            *service("infra/otel-collector", ("10.0.9.1:4317",), port=4317),
        ],
        EVEN,
    )
    tags = (
        Tag("cluster", TagSource.LITERAL, "us-west-1"),
        Tag("environment", TagSource.ENVIRONMENT, "DEPLOY_ENV"),
    )
    for port in (80, 81):
        assert telemetry(result, port) == Telemetry(
            Tracing(COLLECTOR, 100_000, tags), (AccessLog(COLLECTOR, fields=DEFAULT_FIELDS),)
        )
    assert route(result).tracing is None
    assert COLLECTOR in {entry.name for entry in result.snapshot.upstreams}
    (endpoints,) = [it for it in result.snapshot.endpoint_sets if it.upstream == COLLECTOR]
    assert [(it.host, it.port) for it in endpoints.localities[0].endpoints] == [("10.0.9.1", 4317)]
    # One line a call, where it enters; spans wherever it comes by.
    east_west = listener(result, "federation/east-west").telemetry
    assert east_west == Telemetry(Tracing(COLLECTOR, 0, tags))
    key = ObjectKey(GROUP, "ObservabilityPolicy", "infra", "grpc-observability")
    (ancestor,) = result.statuses[key].ancestors
    assert (ancestor.ancestor_ref.kind, ancestor.ancestor_ref.name) == ("Gateway", "grpc-gateway")
    assert {it.type: it.status for it in ancestor.conditions} == {
        "Accepted": "True",
        "ResolvedRefs": "True",
        "Programmed": "False",
    }
    gateway = result.statuses[ObjectKey(GROUP, "Gateway", "infra", "grpc-gateway")]
    (affected,) = [it for it in gateway.conditions if it.type == AFFECTED]
    assert (affected.status, affected.reason, affected.observed_generation) == (
        "True",
        "PolicyAffected",
        3,
    )


def test_without_a_policy_nothing_is_told() -> None:
    result = result_of("")
    assert {entry.telemetry for entry in result.snapshot.listeners} == {None}
    assert COLLECTOR not in {entry.name for entry in result.snapshot.upstreams}
    gateway = result.statuses[ObjectKey(GROUP, "Gateway", "infra", "grpc-gateway")]
    assert AFFECTED not in {it.type for it in gateway.conditions}


def test_the_older_policy_of_one_target_wins_and_the_other_says_so() -> None:
    second = policy(f"  tracing: {{{TO_COLLECTOR}, samplingRate: 2}}", "a-younger")
    result = result_of(policy(f"  tracing: {{{TO_COLLECTOR}, samplingRate: 1}}") + second)
    assert telemetry(result).tracing == Tracing(COLLECTOR, 10_000)
    accepted = conditions(result, "a-younger")["Accepted"]
    assert told(accepted) == ("False", "Conflicted")
    assert accepted.message == (
        "ObservabilityPolicy infra/first is older and holds Gateway infra/grpc-gateway; merge the "
        "two or target something else"
    )
    assert set(conditions(result, "a-younger")) == {"Accepted"}


def test_the_more_specific_wins_field_by_field() -> None:
    result = result_of(
        policy(
            f"""
  tracing:
    {TO_COLLECTOR}
    samplingRate: 1
    customTags: [{{name: a, literal: {{value: gw}}}}, {{name: b, literal: {{value: gw}}}}]
  accessLog: {{type: File}}
"""
        )
        + policy(
            "  tracing: {samplingRate: 0.5, customTags: [{name: b, literal: {value: port}}]}",
            "listener",
            f"{OF_GATEWAY}, sectionName: grpc",
        )
        + on_users("  tracing: {customTags: [{name: c, requestHeader: {name: X-C}}]}")
    )
    gateway, port = Tag("a", TagSource.LITERAL, "gw"), Tag("b", TagSource.LITERAL, "port")
    whole = AccessLog(path="/dev/stdout", fields=DEFAULT_FIELDS)
    assert telemetry(result) == Telemetry(Tracing(COLLECTOR, 5_000, (gateway, port)), (whole,))
    assert telemetry(result, 81).tracing == Tracing(
        COLLECTOR, 10_000, (gateway, Tag("b", TagSource.LITERAL, "gw"))
    )
    own = Tag("c", TagSource.HEADER, "x-c")
    assert route(result).tracing == RouteTracing(5_000, (gateway, port, own))
    at_81 = route(result, port=81).tracing
    assert at_81 is not None
    assert at_81.sampling_per_million == 10_000
    assert route(result, "orders").tracing is None
    status = result.statuses[ObjectKey(GROUP, "Gateway", "infra", "grpc-gateway")]
    by_name = {it.name: {c.type for c in it.conditions} for it in status.listeners}
    assert AFFECTED in by_name["grpc"]
    assert AFFECTED not in by_name["other"]
    of_route = result.statuses[ObjectKey(GROUP, "GRPCRoute", "app", "users")].parents[0]
    assert AFFECTED in {it.type for it in of_route.conditions}
    others = result.statuses[ObjectKey(GROUP, "GRPCRoute", "app", "orders")].parents[0]
    assert AFFECTED not in {it.type for it in others.conditions}


def test_a_routes_access_log_is_in_place_of_its_gateways() -> None:
    result = result_of(
        policy("  accessLog: {type: File}")
        + on_users("  accessLog: {type: OpenTelemetry, backendRef: {name: other, port: 4317}}")
    )
    rule = "GRPCRoute app/users rule main"
    assert telemetry(result).access_logs == (
        AccessLog(path="/dev/stdout", fields=DEFAULT_FIELDS, except_rules=(rule,)),
        AccessLog(OTHER, fields=DEFAULT_FIELDS, rules=(rule,)),
    )
    assert telemetry(result).tracing is None


@pytest.mark.parametrize("gateway_first", [True, False])
def test_the_order_of_a_gateways_and_a_routes_policy_does_not_matter(gateway_first: bool) -> None:
    body = f"""
  tracing: {{{TO_COLLECTOR}, samplingRate: 1}}
  accessLog: {{type: File}}
"""
    texts = [policy(body), on_users("  tracing: {samplingRate: 2}\n  accessLog: {type: File}")]
    found = objects_of("".join(texts if gateway_first else reversed(texts)))
    result = compiled(list(aged(found)), EVEN)
    assert telemetry(result).tracing == Tracing(COLLECTOR, 10_000)
    assert route(result).tracing == RouteTracing(20_000)
    assert [log.rules for log in telemetry(result).access_logs] == [
        (),
        ("GRPCRoute app/users rule main",),
    ]
    for name, namespace in (("first", "infra"), ("own", "app")):
        found_conditions = conditions(result, name, namespace)
        assert told(found_conditions["Accepted"]) == ("True", "Accepted")
        assert "Conflicted" not in found_conditions


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("tracing: {samplingRate: -0.1}", "spec.tracing.samplingRate"),
        ("tracing: {samplingRate: 100.1}", "spec.tracing.samplingRate"),
        ("tracing: {customTags: [{name: a, env: {name: 1A}}]}", "spec.tracing.customTags[0].env"),
        ("tracing: {customTags: [{name: a}]}", "spec.tracing.customTags[0]"),
        (
            "accessLog: {type: File, format: {fields: {a: '%NOTHING%'}}}",
            "spec.accessLog.format.fields",
        ),
        (
            "accessLog: {type: File, format: {type: Text, text: '%NOTHING%'}}",
            "spec.accessLog.format.text",
        ),
        ("accessLog: {type: File, path: relative}", "spec.accessLog.path"),
        ("accessLog: {type: OpenTelemetry}", "spec.accessLog"),
    ],
)
def test_what_is_no_policy_is_refused_with_its_path(body: str, path: str) -> None:
    decoded = decode_all(parse_documents(policy(f"  {body}"), origin="test.yaml"))
    (refused,) = decoded.rejected
    assert path in str(refused)
    if "NOTHING" in body:
        assert "`%NOTHING%` is no field; fields are START_TIME, " in str(refused)


def test_a_route_alone_can_be_traced() -> None:
    result = result_of(on_users(f"  tracing: {{{TO_OTHER}, samplingRate: 25}}"))
    assert telemetry(result).tracing == Tracing(OTHER, 0)
    assert route(result).tracing == RouteTracing(250_000)
    assert route(result, "orders").tracing is None
    assert listener(result, "federation/east-west").telemetry is None
    assert told(conditions(result, "own", "app")["Accepted"]) == ("True", "Accepted")


def test_a_listener_has_one_collector_for_spans() -> None:
    gateway = policy(f"  tracing: {{{TO_COLLECTOR}}}")
    result = result_of(on_users(f"  tracing: {{{TO_OTHER}, samplingRate: 1}}") + gateway)
    assert telemetry(result).tracing == Tracing(COLLECTOR, 1_000_000)
    assert route(result).tracing == RouteTracing(10_000)
    found = conditions(result, "own", "app")
    assert told(found["Accepted"]) == ("True", "Accepted")
    assert told(found["Conflicted"]) == ("True", "ProviderConflict")
    assert "ObservabilityPolicy infra/first names another" in found["Conflicted"].message
    assert "Conflicted" not in conditions(result)


def test_of_routes_with_different_collectors_the_older_is_traced() -> None:
    younger = policy(
        "  tracing: {provider: {backendRef: {name: user-service, port: 9090}}}",
        "a-younger",
        "kind: GRPCRoute, name: orders",
        "app",
    )
    result = result_of(on_users(f"  tracing: {{{TO_OTHER}}}") + younger)
    assert route(result, "orders").tracing is None
    assert route(result).tracing == RouteTracing(1_000_000)
    conflict = conditions(result, "a-younger", "app")["Conflicted"]
    assert conflict.message.endswith("no span of this route is recorded there")


GRANT = f"""
apiVersion: {GROUP}/v1beta1
kind: ReferenceGrant
metadata: {{name: collectors, namespace: infra}}
spec:
  from: [{{group: {GROUP}, kind: ObservabilityPolicy, namespace: app}}]
  to: [{{group: "", kind: Service, name: otel-collector}}]
---
"""
ACROSS = "provider: {backendRef: {name: otel-collector, namespace: infra, port: 4317}}"


def test_a_collector_of_another_namespace_needs_a_grant() -> None:
    body = on_users(f"  tracing: {{{ACROSS}}}")
    refused = result_of(body)
    found = conditions(refused, "own", "app")
    assert told(found["Accepted"]) == ("True", "Accepted")
    assert told(found["ResolvedRefs"]) == ("False", "RefNotPermitted")
    assert "no ReferenceGrant in namespace infra" in found["ResolvedRefs"].message
    assert listener(refused).telemetry is None
    granted = result_of(body + GRANT)
    assert told(conditions(granted, "own", "app")["ResolvedRefs"]) == ("True", "ResolvedRefs")
    assert telemetry(granted).tracing == Tracing(COLLECTOR, 0)


@pytest.mark.parametrize(
    ("reference", "reason", "message"),
    [
        (
            "{name: gone, port: 4317}",
            "BackendNotFound",
            "spec.accessLog.backendRef: Service infra/gone does not exist; nothing is sent",
        ),
        (
            "{name: otel-collector, port: 1}",
            "BackendNotFound",
            (
                "spec.accessLog.backendRef.port: Service infra/otel-collector has no TCP port 1; "
                "ports: 4317/TCP"
            ),
        ),
        (
            f"{{group: {GROUP}, kind: ServiceImport, name: c, port: 1}}",
            "InvalidKind",
            (
                f"spec.accessLog.backendRef: kind ServiceImport ({GROUP}) is no collector; use a "
                "Service"
            ),
        ),
    ],
)
def test_a_collector_that_is_not_there_changes_nothing_for_traffic(
    reference: str, reason: str, message: str
) -> None:
    bare = result_of("")
    result = result_of(policy(f"  accessLog: {{type: OpenTelemetry, backendRef: {reference}}}"))
    assert result.snapshot == bare.snapshot
    found = conditions(result)
    assert told(found["ResolvedRefs"]) == ("False", reason)
    assert found["ResolvedRefs"].message == message
    assert told(found["Accepted"]) == ("True", "Accepted")


def test_a_reference_that_does_not_resolve_leaves_the_less_specific_in_force() -> None:
    gone = "provider: {backendRef: {name: gone, port: 4317}}"
    result = result_of(
        policy(f"  tracing: {{{TO_COLLECTOR}}}") + on_users(f"  tracing: {{{gone}}}")
    )
    assert telemetry(result).tracing == Tracing(COLLECTOR, 1_000_000)
    assert told(conditions(result, "own", "app")["ResolvedRefs"])[0] == "False"


@pytest.mark.parametrize(
    ("target", "body", "reason", "message"),
    [
        (
            "kind: Gateway, name: gone",
            "tracing: {samplingRate: 1}",
            "TargetNotFound",
            "spec.targetRef: Gateway app/gone does not exist",
        ),
        (
            "kind: Service, name: user-service",
            "tracing: {samplingRate: 1}",
            "Invalid",
            (
                f"spec.targetRef: kind Service ({GROUP}) cannot be targeted, use a Gateway, a "
                "GRPCRoute, an HTTPRoute or a ServiceImport (multicluster.x-k8s.io)"
            ),
        ),
        (
            f"{OF_USERS}, sectionName: main",
            "tracing: {samplingRate: 1}",
            "Invalid",
            "spec.targetRef.sectionName: single rules cannot be targeted",
        ),
        (
            OF_USERS,
            "tracing: {customTags: [{name: s, env: {name: SECRET}}]}",
            "Invalid",
            (
                "spec.tracing.customTags[0].env: the environment is the gateway's, and a policy "
                "for a route cannot read it; use a policy for the Gateway"
            ),
        ),
        (
            OF_USERS,
            "accessLog: {type: File, path: /var/lib/gateway/last}",
            "Invalid",
            (
                "spec.accessLog.path: files are the gateway's, and a policy for a route may name "
                "/dev/stdout and /dev/stderr only; use a policy for the Gateway"
            ),
        ),
    ],
)
def test_what_cannot_be_targeted_or_asked_for(
    target: str, body: str, reason: str, message: str
) -> None:
    result = result_of(policy(f"  {body}", "own", target, "app"))
    accepted = conditions(result, "own", "app")["Accepted"]
    assert (*told(accepted), accepted.message) == ("False", reason, message)
    assert {entry.telemetry for entry in result.snapshot.listeners} == {None}


def test_a_section_that_is_not_there() -> None:
    text = policy("  tracing: {samplingRate: 1}", target=f"{OF_GATEWAY}, sectionName: nope")
    accepted = conditions(result_of(text))["Accepted"]
    assert told(accepted) == ("False", "TargetNotFound")
    assert accepted.message.endswith("has no listener nope; listeners: grpc, other")


def test_a_gateway_of_another_controller_is_not_ours() -> None:
    foreign = GATEWAY.replace("grpc-gateway", "foreign").replace("istio", "theirs")
    text = foreign + policy(f"  tracing: {{{TO_COLLECTOR}}}", target="kind: Gateway, name: foreign")
    result = result_of(text)
    assert not [key for key in result.statuses if key.kind == "ObservabilityPolicy"]
    assert {entry.telemetry for entry in result.snapshot.listeners} == {None}


def test_sampling_without_a_provider_says_that_it_is_without_effect() -> None:
    result = result_of(policy("  tracing: {samplingRate: 1}"))
    accepted = conditions(result)["Accepted"]
    assert told(accepted) == ("True", "Accepted")
    assert accepted.message == (
        "tracing is without effect: no policy names a provider for these calls"
    )


@pytest.mark.parametrize(
    ("percent", "per_million"), [("0", 0), ("100", 1_000_000), ("0.5", 5_000), ("0.00001", 1)]
)
def test_sampling_is_rounded_but_never_to_nothing(percent: str, per_million: int) -> None:
    result = result_of(policy(f"  tracing: {{{TO_COLLECTOR}, samplingRate: {percent}}}"))
    assert telemetry(result).tracing == Tracing(COLLECTOR, per_million)


def test_a_listener_writes_a_bounded_number_of_logs() -> None:
    names = [f"r{number}" for number in range(9)]
    routes = "".join(ROUTES.split("---")[0].replace("users", name) + "---\n" for name in names)
    policies = "".join(
        policy(
            f"  accessLog: {{type: File, format: {{type: Text, text: '{name}'}}}}",
            name,
            f"kind: GRPCRoute, name: {name}",
            "app",
        )
        for name in names
    )
    result = result_of(routes + policies + policy("  accessLog: {type: File}"))
    assert len(telemetry(result).access_logs) == 8
    assert "Conflicted" not in conditions(result, "r6", "app")
    assert told(conditions(result, "r7", "app")["Conflicted"]) == ("True", "TooManyAccessLogs")


def test_a_policy_that_changes_is_a_small_change() -> None:
    def inputs(text: str) -> CompileInputs:
        objects = snapshot_of(objects_of(text))
        return CompileInputs(cluster=WEST, region=Region(WEST), objects=objects, view=EVEN)

    compiler = Compiler()
    compiler.compile(inputs(on_users(f"  tracing: {{{TO_OTHER}, samplingRate: 1}}")))
    compiler.compile(inputs(on_users(f"  tracing: {{{TO_OTHER}, samplingRate: 2}}")))
    assert (compiler.made["routes"], compiler.made["services"]) == (0, 0)
