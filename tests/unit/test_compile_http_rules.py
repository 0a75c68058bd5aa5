"""Rules of HTTPRoutes: what they become, and what of them is refused and why."""

from __future__ import annotations

import pytest

from federation.derive.compile import Compiled
from federation.model.http import Cors, PathRewrite, QueryMatch, Redirect, Rewrite
from federation.model.objects import ObjectKey
from federation.model.snapshot import (
    Forward,
    HeaderMatch,
    MatchKind,
    PathMatch,
    Refuse,
    Route,
    RouteMatch,
    Timeouts,
)
from tests.testkit.routing import compiled, parse, service, spelled

KEY = ObjectKey("gateway.networking.k8s.io", "HTTPRoute", "app", "web")
TO_A = "backendRefs: [{name: a, port: 9090}]"


def of(rules: str, *, port: int = 80) -> Compiled:
    text = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: web, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules: {rules}
"""
    return compiled([*parse(text), *service("app/a"), *service("app/b")])


def routes(result: Compiled) -> list[Route]:
    (table,) = (entry for entry in result.snapshot.route_tables if entry.name.startswith("app/gw/"))
    (host,) = table.virtual_hosts
    return list(host.routes)


def only(rule: str, *, port: int = 80) -> Route:
    (found,) = routes(of(f"[{{{rule}}}]", port=port))
    return found


def conditions(result: Compiled) -> dict[str, str]:
    (parent,) = result.statuses[KEY].parents
    return dict(spelled(parent.conditions))


def message(result: Compiled, kind: str) -> str:
    (parent,) = result.statuses[KEY].parents
    return next(entry.message for entry in parent.conditions if entry.type == kind)


def test_a_match_becomes_what_it_says() -> None:
    rule = (
        "matches: [{path: {value: /a/}, method: PUT, headers: [{name: X-B, value: c}, "
        "{name: x-b, value: d}], queryParams: [{name: q, value: '1'}, {name: q, value: '2'}, "
        f"{{name: p, type: RegularExpression, value: 'x+'}}]}}], {TO_A}"
    )
    assert only(rule).match == RouteMatch(
        path=PathMatch(MatchKind.SEGMENTS, "/a"),
        headers=(HeaderMatch("x-b", MatchKind.EXACT, "c"),),
        grpc=False,
        query=(QueryMatch("p", "x+", regex=True), QueryMatch("q", "1")),
        method="PUT",
    )


def test_no_match_takes_every_request() -> None:
    every = RouteMatch(path=PathMatch(MatchKind.PREFIX, "/"), grpc=False)
    assert only(TO_A).match == every
    assert only(f"matches: [{{}}], {TO_A}").match == every


@pytest.mark.parametrize(
    ("port", "fields", "expected"),
    [
        (80, "hostname: b.org", Redirect(302, hostname="b.org")),
        (8080, "hostname: b.org", Redirect(302, hostname="b.org", port=8080)),
        (8080, "scheme: https", Redirect(302, scheme="https")),
        (8080, "scheme: https, port: 443", Redirect(302, scheme="https")),
        (8080, "port: 80", Redirect(302, scheme="http")),
        (80, "port: 81, statusCode: 308", Redirect(308, port=81)),
    ],
)
def test_a_redirect_names_a_port_only_where_it_has_to(
    port: int, fields: str, expected: Redirect
) -> None:
    rule = f"filters: [{{type: RequestRedirect, requestRedirect: {{{fields}}}}}]"
    assert only(rule, port=port).action == expected


def test_filters_become_rewrites_and_cors() -> None:
    rewrite = (
        "{type: URLRewrite, urlRewrite: {hostname: b.org, "
        "path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}"
    )
    cors = "{type: CORS, cors: {allowOrigins: ['*'], allowHeaders: [X-A]}}"
    found = only(f"filters: [{rewrite}, {cors}], {TO_A}")
    assert found.rewrite == Rewrite("b.org", PathRewrite("/", prefix=True))
    assert found.cors == Cors(origins=("*",), headers=("x-a",), max_age_s=5)


def test_times_of_the_rule_come_before_those_of_a_policy() -> None:
    policy = """
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {name: p, namespace: app}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}
  timeout: {http: {requestTimeout: 9s, streamIdleTimeout: 8s}}
  retry: {attempts: 5, retryOn: [reset], perTryTimeout: 3s}
"""
    rules = (
        f"[{{timeouts: {{request: 2s, backendRequest: 1s}}, retry: {{codes: [503]}}, {TO_A}}}, "
        f"{{matches: [{{path: {{value: /p}}}}], {TO_A}}}]{policy}"
    )
    longer, own = routes(of(rules))
    assert own.timeouts == Timeouts(request_ms=2_000, idle_ms=8_000)
    assert own.retry is not None
    assert (own.retry.attempts, own.retry.http_codes) == (2, (503,))
    assert own.retry.per_try_timeout_ms == 1_000
    assert own.retry.on == ("connect-failure", "refused-stream", "reset", "retriable-status-codes")
    assert longer.timeouts == Timeouts(request_ms=9_000, idle_ms=8_000)
    assert longer.retry is not None
    assert (longer.retry.attempts, longer.retry.per_try_timeout_ms) == (5, 3_000)


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        (f"matches: [{{path: {{type: Glob, value: /a}}}}], {TO_A}", "matches[0].path.type: Glob"),
        (
            f"matches: [{{headers: [{{type: Near, name: a, value: b}}]}}], {TO_A}",
            "matches[0].headers[0].type: Near",
        ),
        (
            f"matches: [{{headers: [{{name: Upgrade, value: b}}]}}], {TO_A}",
            "matches[0].headers[0].name: 'Upgrade' belongs to the connection",
        ),
        (
            f"matches: [{{queryParams: [{{type: Near, name: a, value: b}}]}}], {TO_A}",
            "matches[0].queryParams[0].type: Near",
        ),
        (
            f"matches: [{{path: {{type: RegularExpression, value: '('}}}}], {TO_A}",
            "matches[0].path.value: '('",
        ),
        (f"filters: [{{type: Teleport}}], {TO_A}", "filters[0].type: Teleport is not supported"),
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}], " + TO_A,
            "filters[0].type: ExtensionRef is not supported",
        ),
        (
            (
                "filters: [{type: RequestHeaderModifier, requestHeaderModifier: "
                f"{{remove: [Connection]}}}}], {TO_A}"
            ),
            "filters[0].remove: 'Connection' belongs to the connection",
        ),
        (
            (
                "matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, "
                "urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}], " + TO_A
            ),
            "matches[0].path.type: must be PathPrefix",
        ),
        (
            (
                "backendRefs: [{name: a, port: 9090, filters: [{type: URLRewrite, urlRewrite: "
                "{hostname: b}}]}]"
            ),
            "backendRefs[0].filters: URLRewrite is for whole rules",
        ),
    ],
)
def test_what_is_not_served_stays_in_the_object_and_shows(rule: str, where: str) -> None:
    result = of(f"[{{{rule}}}]")
    assert conditions(result)["Accepted"] == "False/UnsupportedValue"
    assert f"spec.rules[0].{where}" in message(result, "Accepted")


def test_a_fault_in_one_rule_leaves_the_others() -> None:
    rules = (
        f"[{{matches: [{{path: {{value: /bad}}}}], filters: [{{type: Teleport}}], {TO_A}}}, "
        f"{{matches: [{{path: {{value: /good}}}}], {TO_A}}}]"
    )
    result = of(rules)
    assert conditions(result)["Accepted"] == "True/Accepted"
    assert conditions(result)["PartiallyInvalid"] == "True/UnsupportedValue"
    assert message(result, "PartiallyInvalid").startswith("Dropped Rule 0")
    good, bad = routes(result)
    assert isinstance(good.action, Forward)
    assert isinstance(bad.action, Refuse)
    assert bad.action.status == 500


@pytest.mark.parametrize(
    ("refs", "reason"),
    [
        ("{name: gone, port: 9090}", "BackendNotFound"),
        ("{name: a, port: 1}", "BackendNotFound"),
        ("{name: a, namespace: other, port: 9090}", "RefNotPermitted"),
        ("{group: example.com, kind: Bucket, name: a}", "InvalidKind"),
    ],
)
def test_references_that_do_not_resolve_are_answered_500(refs: str, reason: str) -> None:
    result = of(f"[{{backendRefs: [{refs}]}}]")
    assert conditions(result)["Accepted"] == "True/Accepted"
    assert conditions(result)["ResolvedRefs"] == f"False/{reason}"
    (route,) = routes(result)
    assert isinstance(route.action, Refuse)
    assert route.action.status == 500


def test_an_invalid_share_goes_where_500_comes_from() -> None:
    result = of("[{backendRefs: [{name: a, port: 9090}, {name: gone, port: 9090, weight: 3}]}]")
    (route,) = routes(result)
    assert isinstance(route.action, Forward)
    parts = {entry.upstream: entry.weight for entry in route.action.destinations}
    assert parts["invalid"] == 3
    statuses = {entry.name: entry.empty_status for entry in result.snapshot.upstreams}
    assert statuses["invalid"] == 500
