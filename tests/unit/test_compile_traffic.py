"""Retry budgets, faults, mirrors and sessions: from objects to the snapshot, and refusals."""

from __future__ import annotations

import pytest

from federation.derive.compile import Compiled
from federation.model.objects import ObjectKey
from federation.model.snapshot import ConnectionLimits, Forward, Route
from federation.model.traffic import (
    Fault,
    FaultAbort,
    FaultDelay,
    Mirror,
    RetryBudget,
    Session,
    SessionKind,
)
from federation.wire.manifest_yaml import parse_documents
from federation.wire.manifests import decode_all
from tests.testkit.routing import (
    EAST,
    EVEN,
    WEST,
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

GROUP = "gateway.networking.k8s.io"
ROUTE = ObjectKey(GROUP, "GRPCRoute", "app", "users")

OBJECTS = f"""
apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: gw, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: grpc, port: 80, protocol: HTTP}}]
---
apiVersion: {GROUP}/v1beta1
kind: ServiceImport
metadata: {{name: user-service-import, namespace: app}}
spec: {{ports: [{{port: 9090}}]}}
---
apiVersion: {GROUP}/v1
kind: GRPCRoute
metadata: {{name: users, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
"""
POLICY = f"""
---
apiVersion: {GROUP}/v1alpha3
kind: BackendTrafficPolicy
metadata: {{name: p, namespace: app}}
spec:
  targetRef: {{group: {GROUP}, kind: GRPCRoute, name: users}}
  """
PLAIN = "  - backendRefs: [{name: v1, port: 9090}]"


def result_of(rules: str, policy: str = "", federation: object = EVEN) -> Compiled:
    text = OBJECTS + rules + (POLICY + policy if policy else "")
    services = [*service("app/v1"), *service("app/v2"), *service("app/user-service")]
    return compiled([*parse(text), *services], federation)


def route_of(result: Compiled) -> Route:
    (route,) = routes_of(result, "*", table="app/gw/80")
    return route


def refusal(text: str) -> str:
    """Why the only bad object of ``text`` is refused."""
    (rejected,) = decode_all(parse_documents(text, origin="f.yaml")).rejected
    return str(rejected.problems[0])


# Retry budgets.


def test_a_retry_constraint_has_the_defaults_of_its_specification() -> None:
    result = result_of(PLAIN, "retryConstraint: {}")
    assert route_of(result).retry.budget == RetryBudget("app/p", 20, 10_000, 10, 1_000)


def test_a_retry_constraint_goes_to_the_route_and_to_its_upstreams() -> None:
    result = result_of(
        PLAIN,
        "retry: {attempts: 3}\n  retryConstraint: {budget: {percent: 5, interval: 1m}, "
        "minRetryRate: {count: 1, interval: 10s}}",
    )
    budget = RetryBudget("app/p", 5, 60_000, 1, 10_000)
    assert route_of(result).retry.attempts == 3
    assert route_of(result).retry.budget == budget
    limits = {entry.name: entry.limits for entry in result.snapshot.upstreams}
    assert limits["service/app/v1/9090@app/p"] == ConnectionLimits(retry_budget=budget)


def test_without_a_retry_constraint_there_is_no_budget() -> None:
    assert route_of(result_of(PLAIN, "retry: {attempts: 3}")).retry.budget is None


def test_the_time_for_one_try_has_two_names() -> None:
    for spelled_as in ("perTryTimeout: 2s", "perRetry: {timeout: 2s}"):
        route = route_of(result_of(PLAIN, f"retry: {{{spelled_as}}}"))
        assert route.retry.per_try_timeout_ms == 2_000


# Faults.


def test_faults_of_a_policy() -> None:
    result = result_of(
        PLAIN,
        "faultInjection: {delay: {fixedDelay: 250ms, percentage: 12.5}, "
        "abort: {grpcStatus: 14, percentage: 0.00001}}",
    )
    assert route_of(result).fault == Fault(
        FaultDelay(250, 125_000),
        FaultAbort(grpc_status=14, per_million=1),  # above zero stays above zero
    )


def test_the_status_of_a_policy_says_that_it_injects_faults() -> None:
    def message(policy: str) -> str:
        key = ObjectKey(GROUP, "BackendTrafficPolicy", "app", "p")
        (ancestor,) = result_of(PLAIN, policy).statuses[key].ancestors
        return {entry.type: entry.message for entry in ancestor.conditions}["Accepted"]

    assert message("faultInjection: {abort: {grpcStatus: 14}}") == (
        "calls are delayed or refused on purpose, as spec.faultInjection asks"
    )
    assert message("retry: {}") == ""


def test_a_fault_befalls_all_calls_where_no_percentage_is_given() -> None:
    fault = route_of(result_of(PLAIN, "faultInjection: {abort: {httpStatus: 503}}")).fault
    assert fault == Fault(abort=FaultAbort(http_status=503, per_million=1_000_000))


# Mirrors.


def mirror(ref: str, more: str = "") -> str:
    return f"{{type: RequestMirror, requestMirror: {{backendRef: {ref}{more}}}}}"


def test_mirrors_of_a_rule_with_their_shares() -> None:
    filters = ", ".join(
        (
            mirror("{name: v2, port: 9090}"),
            mirror("{name: v2, port: 9090}", ", percent: 5"),
            mirror("{name: v2, port: 9090}", ", fraction: {numerator: 1, denominator: 3}"),
            mirror("{name: v2, port: 9090}", ", percent: 0"),
        )
    )
    result = result_of(f"{PLAIN}\n    filters: [{filters}]")
    upstream = "service/app/v2/9090"
    assert route_of(result).mirrors == (
        Mirror(upstream, 1_000_000),
        Mirror(upstream, 50_000),
        Mirror(upstream, 333_333),
    )
    assert upstream in {entry.name for entry in result.snapshot.upstreams}
    (parent,) = result.statuses[ROUTE].parents
    assert spelled(parent.conditions) == {
        "Accepted": "True/Accepted",
        "ResolvedRefs": "True/ResolvedRefs",
    }


def test_a_mirror_of_one_backend_is_for_its_calls_alone() -> None:
    filters = f"filters: [{mirror('{name: v2, port: 9090}')}]"
    result = result_of(
        f"  - backendRefs: [{{name: v1, port: 9090, {filters}}}, {{name: v2, port: 9090}}]"
    )
    route = route_of(result)
    assert route.mirrors == ()
    assert isinstance(route.action, Forward)
    assert [entry.mirrors for entry in route.action.destinations] == [
        (Mirror("service/app/v2/9090"),),
        (),
    ]


def test_copies_for_an_import_go_to_its_largest_share_and_name_it() -> None:
    federation = view(
        exports=[export(WEST), export(EAST)],
        services=[resolved(share(WEST, 3_000, EAST), share(EAST, 7_000, WEST))],
    )
    ref = f"{{group: {GROUP}, kind: ServiceImport, name: user-service-import, port: 9090}}"
    result = result_of(f"{PLAIN}\n    filters: [{mirror(ref)}]", federation=federation)
    name = "import/app/user-service/9090/us-east-1"
    assert route_of(result).mirrors == (Mirror(name, destination="app/user-service:9090"),)
    assert name in {entry.upstream for entry in result.snapshot.endpoint_sets}


@pytest.mark.parametrize(
    ("ref", "reason", "message"),
    [
        (
            "{name: gone, port: 9090}",
            "BackendNotFound",
            "spec.rules[0].filters[0].requestMirror.backendRef: Service app/gone does not exist",
        ),
        (
            "{name: v2, namespace: other, port: 9090}",
            "RefNotPermitted",
            "spec.rules[0].filters[0].requestMirror.backendRef: no ReferenceGrant in namespace",
        ),
    ],
)
def test_a_mirror_that_leads_nowhere_is_dropped_and_said(
    ref: str, reason: str, message: str
) -> None:
    result = result_of(f"{PLAIN}\n    filters: [{mirror(ref)}]")
    route = route_of(result)
    assert isinstance(route.action, Forward), "the calls themselves go on"
    assert route.mirrors == ()
    (parent,) = result.statuses[ROUTE].parents
    found = {entry.type: entry for entry in parent.conditions}
    assert found["Accepted"].status == "True"
    assert (found["ResolvedRefs"].status, found["ResolvedRefs"].reason) == ("False", reason)
    assert found["ResolvedRefs"].message.startswith(message)


# Sessions.


def session_of(text: str) -> Session | None:
    return route_of(result_of(f"{PLAIN}\n    sessionPersistence: {text}")).session


def test_sessions_by_cookie_and_header() -> None:
    assert session_of("{sessionName: Sid}") == Session("Sid")
    assert session_of("{sessionName: X-Sid, type: Header, idleTimeout: 1m}") == Session(
        "x-sid", SessionKind.HEADER, idle_ms=60_000
    )
    assert session_of(
        "{sessionName: s, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}"
    ) == Session("s", absolute_ms=3_600_000, permanent=True)


def test_a_session_without_a_name_is_called_by_its_rule() -> None:
    session = session_of("{}")
    assert session is not None
    assert session.name == "federation-session-7dbbd30f"
    assert session_of("{}") == session


# Refusals.


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "retryConstraint: {budget: {percent: 101}}",
            "spec.retryConstraint.budget.percent: must be between 0 and 100, got 101",
        ),
        (
            "retryConstraint: {budget: {interval: 500ms}}",
            "spec.retryConstraint.budget.interval: must be between 1s and 1h, got 500ms",
        ),
        (
            "retryConstraint: {minRetryRate: {interval: 2h}}",
            "spec.retryConstraint.minRetryRate.interval: must be between 1s and 1h, got 2h",
        ),
        (
            "retry: {perTryTimeout: 1s, perRetry: {timeout: 1s}}",
            "perTryTimeout and perRetry.timeout are the same; give one of them",
        ),
        (
            "faultInjection: {}",
            "spec.faultInjection: needs a delay, an abort or both",
        ),
        (
            "faultInjection: {abort: {grpcStatus: 14, httpStatus: 503}}",
            "spec.faultInjection.abort: needs exactly one of httpStatus and grpcStatus",
        ),
        (
            "faultInjection: {abort: {grpcStatus: 17}}",
            "spec.faultInjection.abort.grpcStatus: must be between 0 and 16, got 17",
        ),
        (
            "faultInjection: {delay: {fixedDelay: 1s, percentage: 100.1}}",
            "spec.faultInjection.delay.percentage: must be between 0 and 100, got 100.1",
        ),
        ("faultInjection: {delay: {fixedDelay: 2h}}", "spec.faultInjection.delay.fixedDelay"),
        ("faultInjection: {throttle: {}}", "spec.faultInjection.throttle: unknown field"),
    ],
)
def test_policies_that_are_refused(spec: str, message: str) -> None:
    assert message in refusal(POLICY.removeprefix("\n---\n") + spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{type: Header, cookieConfig: {}}", "cookieConfig is for type Cookie only"),
        (
            "{cookieConfig: {lifetimeType: Permanent}}",
            "cookieConfig.lifetimeType Permanent needs an absoluteTimeout",
        ),
        ("{type: Header, sessionName: Cookie}", "the header cookie has a meaning of its own"),
        ("{sessionName: 'a b'}", "must be usable as the name of a cookie or header"),
        (
            "{idleTimeout: 10ms}",
            "spec.rules[0].sessionPersistence.idleTimeout: must be at least 1s, got 10ms",
        ),
        (
            "{type: Server}",
            "spec.rules[0].sessionPersistence.type: must be one of Cookie, Header",
        ),
    ],
)
def test_sessions_that_are_refused(spec: str, message: str) -> None:
    text = OBJECTS.rpartition("---\n")[2] + PLAIN + f"\n    sessionPersistence: {spec}"
    assert message in refusal(text)
