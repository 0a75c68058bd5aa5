"""Rules: matches, backends, weights, filters and refusals."""

from __future__ import annotations

import pytest

from federation.derive.compile import Compiled
from federation.derive.compile.regex import regex_fault
from federation.derive.compile.weights import multiply
from federation.model.conditions import Condition
from federation.model.objects import ApiObject, ObjectKey
from federation.model.snapshot import Endpoint, Forward, MatchKind, PathMatch, Refuse, Route
from federation.model.view import FederationView
from tests.testkit.routing import (
    EAST,
    EVEN,
    WEST,
    certificate,
    compiled,
    export,
    parse,
    resolved,
    routes_of,
    service,
    share,
    spelled,
    view,
)

ROUTE = ObjectKey("gateway.networking.k8s.io", "GRPCRoute", "app", "users")

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: grpc-gateway, namespace: infra}
spec:
  gatewayClassName: istio
  listeners:
  - {name: grpc, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]},
     allowedRoutes: {namespaces: {from: All}}}
---
"""

IMPORT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ServiceImport
metadata: {name: user-service-import, namespace: app}
spec: {ports: [{port: 9090}]}
---
"""
IMPORTED = "{group: gateway.networking.k8s.io, kind: ServiceImport, name: user-service-import, "


def rules(*lines: str, objects: tuple[ApiObject, ...] = (), federation: FederationView) -> Compiled:
    listed = "\n".join(f"  - {line}" for line in lines)
    text = f"""{GATEWAY}
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: users, namespace: app}}
spec:
  parentRefs: [{{name: grpc-gateway, namespace: infra}}]
  rules:
{listed}
"""
    fixed = (*service("app/v1"), *service("app/v2"), certificate("infra/cert"))
    return compiled([*parse(text), *fixed, *objects], federation)


def of(*lines: str, objects: tuple[ApiObject, ...] = ()) -> Compiled:
    return rules(*lines, objects=objects, federation=FederationView())


def only_route(result: Compiled) -> Route:
    (route,) = routes_of(result, "*")
    return route


def condition(result: Compiled, kind: str) -> Condition:
    (parent,) = result.statuses[ROUTE].parents
    return next(entry for entry in parent.conditions if entry.type == kind)


def weights(route: Route) -> dict[str, int]:
    assert isinstance(route.action, Forward)
    return {entry.upstream: entry.weight for entry in route.action.destinations}


@pytest.mark.parametrize(
    ("match", "path"),
    [
        ("{}", PathMatch(MatchKind.PREFIX, "/")),
        ("{method: {service: p.S}}", PathMatch(MatchKind.PREFIX, "/p.S/")),
        ("{method: {service: p.S, method: M}}", PathMatch(MatchKind.EXACT, "/p.S/M")),
        ("{method: {method: M}}", PathMatch(MatchKind.REGEX, "/[^/]+/M")),
        (
            "{method: {type: RegularExpression, service: 'p[.]S|q'}}",
            PathMatch(MatchKind.REGEX, "/(?:p[.]S|q)/[^/]+"),
        ),
    ],
)
def test_paths(match: str, path: PathMatch) -> None:
    result = of(f"{{matches: [{match}], backendRefs: [{{name: v1, port: 9090}}]}}")
    assert only_route(result).match.path == path


def test_only_the_first_header_of_a_name_counts() -> None:
    headers = "[{name: X-Env, value: a}, {name: x-env, value: b}, {name: b, value: c}]"
    result = of(f"{{matches: [{{headers: {headers}}}], backendRefs: [{{name: v1, port: 9090}}]}}")
    found = [(entry.name, entry.value) for entry in only_route(result).match.headers]
    assert found == [("b", "c"), ("x-env", "a")]


def test_matches_of_a_rule_are_alternatives_with_names_of_their_own() -> None:
    result = of("{matches: [{method: {service: p.S}}, {method: {method: M}}], backendRefs: []}")
    names = {route.name: route.match.path.value for route in routes_of(result, "*")}
    assert names == {
        "app/users/rule-0-match-0": "/p.S/",
        "app/users/rule-0-match-1": "/[^/]+/M",
    }


@pytest.mark.parametrize(
    "expression", ["a.b", "(a|b)+", "[a-z]{2,3}?", r"com\.example\..+", "^a$", r"\d+[.]x", "é+"]
)
def test_expressions_that_all_engines_know(expression: str) -> None:
    assert regex_fault(expression) == ""


@pytest.mark.parametrize(
    "expression",
    [
        "(?=x)",
        r"\1",
        "a**",
        "*a",
        "(a",
        "[[:alpha:]]",
        "(?i)a",
        "(?P<n>a)",
        "a{999}",
        "a" * 1025,
        "[a&&b]",
        "[a--b]",
    ],
)
def test_expressions_that_some_engine_would_refuse(expression: str) -> None:
    assert regex_fault(expression)


def test_a_bad_match_drops_its_rule_and_says_so() -> None:
    bad = "{matches: [{method: {type: RegularExpression, service: '(?=x)'}}]}"
    result = of(bad, "{backendRefs: [{name: v1, port: 9090}]}")
    (parent,) = result.statuses[ROUTE].parents
    assert spelled(parent.conditions) == {
        "Accepted": "True/Accepted",
        "ResolvedRefs": "True/ResolvedRefs",
        "PartiallyInvalid": "True/UnsupportedValue",
    }
    message = condition(result, "PartiallyInvalid").message
    assert message.startswith("Dropped Rule 0: spec.rules[0].matches[0].method.service: '(?=x)'")
    assert [route.name for route in routes_of(result, "*")] == ["app/users/rule-1"]


def test_a_route_of_bad_rules_is_not_accepted() -> None:
    result = of("{matches: [{method: {service: 'no service'}}]}")
    accepted = condition(result, "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "UnsupportedValue")
    (listener,) = result.statuses[
        ObjectKey("gateway.networking.k8s.io", "Gateway", "infra", "grpc-gateway")
    ].listeners
    assert listener.attached_routes == 0


UNKNOWN = (
    "filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Filter, name: f}}]"
)


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        (f"{{backendRefs: [{{name: v1, port: 9090}}], {UNKNOWN}}}", "spec.rules[0].filters[0]"),
        (
            f"{{backendRefs: [{{name: v1, port: 9090, {UNKNOWN}}}]}}",
            "spec.rules[0].backendRefs[0].filters[0]",
        ),
    ],
)
def test_an_unsupported_filter_is_never_skipped(rule: str, where: str) -> None:
    result = of(rule)
    accepted = condition(result, "Accepted")
    assert (accepted.status, accepted.reason, accepted.message) == (
        "False",
        "UnsupportedValue",
        f"{where}.type: ExtensionRef is not supported: no kind of extension is known",
    )
    assert only_route(result).action == Refuse(
        f"GRPCRoute app/users rule 0: {where}.type: "
        "ExtensionRef is not supported: no kind of extension is known"
    )


def test_header_modifiers_work_on_rules_and_on_backends() -> None:
    request = (
        "{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X-A, value: a}], "
        "set: [{name: X-B, value: '%b%'}], remove: [X-C]}}"
    )
    response = (
        "{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: X-D, value: d}]}}"
    )
    route = only_route(
        of(
            f"{{filters: [{request}], backendRefs: [{{name: v1, port: 9090, filters: "
            f"[{response}]}}]}}"
        )
    )
    assert route.request_headers.add == (("x-a", "a"),)
    assert route.request_headers.set == (("x-b", "%b%"),)
    assert route.request_headers.remove == ("x-c",)
    assert isinstance(route.action, Forward)
    assert route.action.destinations[0].response_headers.add == (("x-d", "d"),)


def test_a_header_that_gateways_would_refuse_stays_with_its_rule() -> None:
    bad = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [':path']}}"
    result = of(f"{{filters: [{bad}], backendRefs: [{{name: v1, port: 9090}}]}}")
    assert condition(result, "Accepted").message == (
        "spec.rules[0].filters[0].remove: ':path' is not a name of a header"
    )


@pytest.mark.parametrize(
    ("backend", "reason", "message"),
    [
        ("{name: gone, port: 9090}", "BackendNotFound", ": Service app/gone does not exist"),
        (
            "{name: v1, port: 1}",
            "BackendNotFound",
            ".port: Service app/v1 has no TCP port 1; ports: 9090/TCP",
        ),
        (
            "{kind: Job, group: batch, name: x, port: 1}",
            "InvalidKind",
            ": kind Job (batch) is no backend; use Service or ServiceImport",
        ),
        (
            "{name: v1, namespace: other, port: 9090}",
            "RefNotPermitted",
            (
                ": no ReferenceGrant in namespace other lets GRPCRoutes of namespace app refer to "
                "Service other/v1"
            ),
        ),
        (
            "{name: odd, port: 9090}",
            "UnsupportedProtocol",
            (
                ".port: Service app/odd says appProtocol https for port 9090; "
                "gRPC needs one of grpc, h2c, http2, kubernetes.io/h2c"
            ),
        ),
        (
            IMPORTED + "port: 9090}",
            "BackendNotFound",
            (
                ": ServiceImport app/user-service-import: no cluster exports "
                "app/user-service-import or app/user-service; apply a ServiceExport where the "
                "Service is, or a MultiClusterService that lists that cluster"
            ),
        ),
        (
            IMPORTED + "port: 1}",
            "BackendNotFound",
            ".port: ServiceImport app/user-service-import has no port 1; ports: 9090",
        ),
    ],
)
def test_references_that_do_not_resolve(backend: str, reason: str, message: str) -> None:
    odd = """
apiVersion: v1
kind: Service
metadata: {name: odd, namespace: app}
spec: {ports: [{port: 9090, appProtocol: https}]}
"""
    result = of(f"{{backendRefs: [{backend}]}}", objects=(*parse(odd), *parse(IMPORT)))
    found = condition(result, "ResolvedRefs")
    expected = f"spec.rules[0].backendRefs[0]{message}"
    assert (found.status, found.reason, found.message) == ("False", reason, expected)
    assert only_route(result).action == Refuse(f"GRPCRoute app/users rule 0: {expected}")
    assert condition(result, "Accepted").status == "True"


def test_a_share_of_invalid_references_is_refused_not_given_away() -> None:
    result = of("{backendRefs: [{name: v1, port: 9090, weight: 3}, {name: gone, port: 1}]}")
    route = only_route(result)
    assert weights(route) == {"service/app/v1/9090": 3, "unavailable": 1}
    assert route.reason == "spec.rules[0].backendRefs[1]: Service app/gone does not exist"
    endpoints = {entry.upstream: entry.localities for entry in result.snapshot.endpoint_sets}
    assert endpoints["unavailable"] == ()


def test_an_invalid_reference_of_weight_zero_costs_nothing() -> None:
    route = only_route(
        of("{backendRefs: [{name: v1, port: 9090}, {name: gone, port: 1, weight: 0}]}")
    )
    assert weights(route) == {"service/app/v1/9090": 1}
    assert route.reason == ""


def test_a_rule_without_backends_is_refused() -> None:
    assert only_route(of("{matches: []}")).action == Refuse(
        "GRPCRoute app/users rule 0: the rule has no backendRefs"
    )


@pytest.mark.parametrize(("first", "second"), [(80, 20), (60, 40), (0, 100), (100, 0)])
def test_weights_stay_as_written(first: int, second: int) -> None:
    route = only_route(
        of(
            f"{{backendRefs: [{{name: v1, port: 9090, weight: {first}}}, "
            f"{{name: v2, port: 9090, weight: {second}}}]}}"
        )
    )
    assert weights(route) == {"service/app/v1/9090": first, "service/app/v2/9090": second}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(80, [1]), (20, [1])], ((80,), (20,))),
        ([(100, [6000, 4000])], ((6000, 4000),)),
        ([(0, [1]), (7, [6000, 4000])], ((0,), (6000, 4000))),
        ([(50, [1]), (50, [6000, 4000])], ((5,), (3, 2))),
        ([(1, [1]), (2, [1, 2])], ((3,), (2, 4))),
        ([(1_000_000, [1]), (1, [9999, 1])], ((1_000_000,), (1, 1))),
    ],
)
def test_weights_of_backends_times_shares_of_clusters(
    parts: list[tuple[int, list[int]]], expected: tuple[tuple[int, ...], ...]
) -> None:
    assert multiply(parts) == expected


def test_a_service_and_an_import_share_by_weight() -> None:
    result = rules(
        "{backendRefs: [{name: v1, port: 9090, weight: 50}, " + IMPORTED + "port: 9090, weight: "
        "50}]}",
        objects=(*parse(IMPORT), *service("app/user-service")),
        federation=EVEN,
    )
    assert weights(only_route(result)) == {
        "service/app/v1/9090": 5,
        "import/app/user-service/9090/us-east-1": 2,
        "import/app/user-service/9090/us-west-1": 3,
    }


def test_an_import_names_its_destination_and_nobody_else_can() -> None:
    forged = (
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: "
        "{set: [{name: X-Federation-Destination, value: evil}]}}]"
    )
    result = rules(
        "{backendRefs: [" + IMPORTED + f"port: 9090, {forged}}}]}}",
        objects=parse(IMPORT),
        federation=EVEN,
    )
    action = only_route(result).action
    assert isinstance(action, Forward)
    for entry in action.destinations:
        assert entry.request_headers.set == (("x-federation-destination", "app/user-service:9090"),)


def test_only_clusters_that_expose_the_port_are_used() -> None:
    federation = view(
        exports=(export(WEST), export(EAST, port=9091)),
        services=(resolved(share(WEST, 6000, EAST), share(EAST, 4000, WEST)),),
    )
    result = rules(
        "{backendRefs: [" + IMPORTED + "port: 9090}]}",
        objects=(*parse(IMPORT), *service("app/user-service")),
        federation=federation,
    )
    assert weights(only_route(result)) == {"import/app/user-service/9090/us-west-1": 1}
    (endpoints,) = [
        entry for entry in result.snapshot.endpoint_sets if entry.upstream.startswith("import/")
    ]
    assert [entry.cluster for entry in endpoints.localities] == [WEST]


def test_nobody_takes_calls() -> None:
    federation = view(
        exports=(export(WEST), export(EAST)), services=(resolved(share(WEST, 0), share(EAST, 0)),)
    )
    result = rules(
        "{backendRefs: [" + IMPORTED + "port: 9090}]}",
        objects=(*parse(IMPORT), *service("app/user-service")),
        federation=federation,
    )
    assert only_route(result).action == Refuse(
        "GRPCRoute app/users rule 0: spec.rules[0].backendRefs[0]: no cluster takes calls to "
        "app/user-service from us-west-1 now"
    )
    assert condition(result, "ResolvedRefs").status == "True"
    kept = [entry.name for entry in result.snapshot.upstreams if entry.name.startswith("import/")]
    assert len(kept) == 2, "calls on their way keep their upstream"


def test_before_the_resolver_has_spoken_the_own_cluster_serves() -> None:
    result = rules(
        "{backendRefs: [" + IMPORTED + "port: 9090}]}",
        objects=(*parse(IMPORT), *service("app/user-service")),
        federation=view(exports=(export(WEST), export(EAST))),
    )
    assert weights(only_route(result)) == {"import/app/user-service/9090/us-west-1": 1}


SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: v3-%(number)s, namespace: app, labels: {kubernetes.io/service-name: v3}}
endpoints: [%(endpoints)s]
ports: [{port: 8080}, {name: other, port: 8081}]
---
"""


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ("{addresses: [127.0.0.1]}", ["127.0.0.1"]),
        ("{addresses: [127.0.0.1], conditions: {ready: false}}", []),
        (
            (
                "{addresses: [127.0.0.2]}, {addresses: [127.0.0.1], conditions: "
                "{ready: false, serving: true, terminating: true}}"
            ),
            ["127.0.0.2"],
        ),
        (
            (
                "{addresses: [127.0.0.1], conditions: {ready: false, serving: true, terminating: "
                "true}}, {addresses: [127.0.0.3], conditions: {ready: false, serving: true}}"
            ),
            ["127.0.0.1"],
        ),
        ("{addresses: ['::1', '127.0.0.1', 'a.name']}", ["127.0.0.1", "::1"]),
    ],
)
def test_only_ready_endpoints_serve(endpoints: str, expected: list[str]) -> None:
    texts = [SLICE % {"number": number, "endpoints": endpoints} for number in (1, 2)]
    objects = (*service("app/v3", ()), *parse("".join(texts)))
    result = of("{backendRefs: [{name: v3, port: 9090}]}", objects=objects)
    found = {entry.upstream: entry.localities for entry in result.snapshot.endpoint_sets}
    localities = found["service/app/v3/9090"]
    listed = [endpoint for locality in localities for endpoint in locality.endpoints]
    assert listed == [Endpoint(host=host, port=8080) for host in expected]


GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: app}]
  to: [{group: "", kind: Service}]
"""


def test_a_grant_opens_a_namespace() -> None:
    backend = "{backendRefs: [{name: v1, namespace: other, port: 9090}]}"
    result = of(backend, objects=(*service("other/v1"), *parse(GRANT)))
    assert weights(only_route(result)) == {"service/other/v1/9090": 1}
