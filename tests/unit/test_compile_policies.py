"""BackendTrafficPolicies: one for each route, its settings, its statuses."""

from __future__ import annotations

import pytest

from federation.derive.compile import Compiled
from federation.model.conditions import Condition
from federation.model.objects import ObjectKey
from federation.model.snapshot import Route, Timeouts, Upstream
from tests.testkit.routing import (
    EAST,
    EVEN,
    WEST,
    compiled,
    export,
    parse,
    routes_of,
    service,
    view,
)

GROUP = "gateway.networking.k8s.io"

ROUTE = f"""
apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: gw, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: grpc, port: 80, protocol: HTTP}}]
---
apiVersion: {GROUP}/v1
kind: GRPCRoute
metadata: {{name: users, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
  - backendRefs: [{{name: user-service, port: 9090}}]
---
"""
IMPORT = f"""
apiVersion: {GROUP}/v1beta1
kind: ServiceImport
metadata: {{name: user-service-import, namespace: app}}
spec: {{ports: [{{port: 9090}}]}}
---
"""
OF_IMPORT = ROUTE.replace(
    "{name: user-service,", f"{{group: {GROUP}, kind: ServiceImport, name: user-service-import,"
)


def policy(body: str, name: str = "first", target: str = "kind: GRPCRoute, name: users") -> str:
    return f"""
apiVersion: {GROUP}/v1alpha3
kind: BackendTrafficPolicy
metadata: {{name: {name}, namespace: app, generation: 6}}
spec:
  targetRef: {{group: {GROUP}, {target}}}
{body}
---
"""


def result_of(text: str) -> Compiled:
    return compiled([*parse(text), *service("app/user-service")], EVEN)


def conditions(result: Compiled, name: str = "first") -> dict[str, Condition]:
    (ancestor,) = result.statuses[ObjectKey(GROUP, "BackendTrafficPolicy", "app", name)].ancestors
    assert ancestor.controller_name == "federation.dev/gateway-controller"
    return {entry.type: entry for entry in ancestor.conditions}


def compiled_route(result: Compiled) -> Route:
    (route,) = routes_of(result, "*", table="app/gw/80")
    return route


def upstream(result: Compiled, prefix: str = "service/") -> Upstream:
    (found,) = [entry for entry in result.snapshot.upstreams if entry.name.startswith(prefix)]
    return found


def test_the_older_policy_holds_the_route() -> None:
    result = result_of(
        ROUTE + policy("  retry: {attempts: 1}", "z-older") + policy("  retry: {attempts: 9}")
    )
    assert conditions(result, "z-older")["Accepted"].status == "True"
    accepted = conditions(result)["Accepted"]
    assert (accepted.status, accepted.reason, accepted.message) == (
        "False",
        "Conflicted",
        (
            "BackendTrafficPolicy app/z-older is older and holds GRPCRoute app/users; "
            "a route takes one policy, so merge the two or target another route"
        ),
    )
    assert set(conditions(result)) == {"Accepted"}
    retry = compiled_route(result).retry
    assert retry is not None
    assert retry.attempts == 1
    assert upstream(result).name == "service/app/user-service/9090@app/z-older"


@pytest.mark.parametrize(
    ("target", "reason", "message"),
    [
        (
            "kind: GRPCRoute, name: gone",
            "TargetNotFound",
            "spec.targetRef: GRPCRoute app/gone does not exist",
        ),
        (
            "kind: Gateway, name: gw",
            "Invalid",
            "spec.targetRef: kind Gateway cannot be targeted, use a GRPCRoute or an HTTPRoute",
        ),
        (
            "kind: GRPCRoute, name: users, sectionName: one",
            "Invalid",
            "spec.targetRef.sectionName: single rules cannot be targeted yet",
        ),
    ],
)
def test_targets(target: str, reason: str, message: str) -> None:
    accepted = conditions(result_of(ROUTE + policy("  retry: {}", target=target)))["Accepted"]
    assert (accepted.reason, accepted.message) == (reason, message)
    assert accepted.observed_generation == 6


def test_defaults() -> None:
    result = result_of(ROUTE)
    route, found = compiled_route(result), upstream(result)
    assert route.timeouts == Timeouts()
    assert route.retry is not None
    assert route.retry.on == ("connect-failure", "refused-stream")
    assert found.outlier is not None
    assert (found.outlier.consecutive_failures, found.outlier.max_ejection_percent) == (5, 50)
    assert found.connect_timeout_ms == 5_000
    assert found.health_check is None


def test_retries() -> None:
    body = """
  retry:
    retryOn: [5xx, connect-failure, retriable-status-codes]
    retryOnStatusCodes: [503, 14, 0]
    attempts: 3
    backoff: {defaultDuration: 100ms, maxDuration: 5s}
    perTryTimeout: 2s
"""
    retry = compiled_route(result_of(ROUTE + policy(body))).retry
    assert retry is not None
    assert retry.on == ("5xx", "connect-failure", "retriable-status-codes")
    assert (retry.http_codes, retry.grpc_codes) == ((503,), (14,))
    assert (retry.attempts, retry.base_ms, retry.max_ms) == (3, 100, 5_000)
    assert retry.per_try_timeout_ms == 2_000


def test_limits_ejection_timeouts_and_checks() -> None:
    body = """
  connectionPool: {maxConnections: 1000, maxPendingRequests: 500, maxRequestsPerConnection: 100}
  circuitBreaker: {consecutiveGatewayFailures: 3, baseEjectionTime: 10m, maxEjectionPercent: 0}
  timeout:
    tcp: {connectTimeout: 5s}
    http: {requestTimeout: 30s, maxStreamDuration: 0s, streamIdleTimeout: 1h}
  healthCheck: {active: {interval: 1s}}
"""
    result = result_of(ROUTE.replace("port: 80,", "port: 80,") + policy(body))
    assert compiled_route(result).timeouts == Timeouts(request_ms=30_000, idle_ms=3_600_000)
    found = upstream(result)
    assert found.connect_timeout_ms == 5_000
    assert (found.limits.max_connections, found.limits.max_pending_requests) == (1000, 500)
    assert found.outlier is not None
    assert found.outlier.consecutive_failures == 5
    assert found.outlier.consecutive_gateway_failures == 3
    assert found.outlier.max_ejection_percent == 0
    assert found.outlier.max_ejection_ms == 600_000
    assert found.health_check is not None
    assert (found.health_check.interval_ms, found.health_check.destination) == (1_000, "")


def test_checks_of_peers_name_their_destination() -> None:
    body = "  healthCheck: {active: {}}"
    result = result_of(IMPORT + OF_IMPORT + policy(body))
    found = upstream(result, "import/app/user-service/9090/us-east-1")
    assert found.health_check is not None
    assert found.health_check.destination == "app/user-service:9090"
    assert found.connect_timeout_ms == 1_000
    assert found.peers_first


def failover(source: str, target: str) -> str:
    return f"  failover: {{regionFailover: [{{from: {source}, to: {target}}}]}}"


def test_failover_is_ready() -> None:
    found = conditions(result_of(IMPORT + OF_IMPORT + policy(failover(WEST, EAST))))
    assert found["FailoverReady"].status == "True"


WHERE = "spec.failover.regionFailover[0]"


@pytest.mark.parametrize(
    ("source", "target", "reason", "message"),
    [
        (
            WEST,
            "mars",
            "NoAlternative",
            f"{WHERE}.to: no cluster has the region or name mars; regions: us-east-1, us-west-1",
        ),
        (
            "mars",
            EAST,
            "NoLocality",
            f"{WHERE}.from: no cluster has the region or name mars; regions: us-east-1, us-west-1",
        ),
    ],
)
def test_failover_to_nowhere(source: str, target: str, reason: str, message: str) -> None:
    found = conditions(result_of(IMPORT + OF_IMPORT + policy(failover(source, target))))
    assert (found["FailoverReady"].reason, found["FailoverReady"].message) == (reason, message)
    assert found["Accepted"].status == "True"


def test_failover_to_a_cluster_that_cannot_serve() -> None:
    federation = view(exports=(export(WEST),))
    result = compiled(parse(IMPORT + OF_IMPORT + policy(failover(WEST, EAST))), federation)
    found = conditions(result)["FailoverReady"]
    assert (found.reason, found.message) == (
        "NoAlternative",
        f"{WHERE}.to: us-east-1 does not export app/user-service",
    )


def test_failover_of_a_service_that_stays_here() -> None:
    found = conditions(result_of(ROUTE + policy(failover(WEST, EAST))))["FailoverReady"]
    assert found.reason == "NoAlternative"
    assert "a Service stays here" in found.message


AFFECTED = f"{GROUP}/BackendTrafficPolicyAffected"
OTHER = ROUTE.partition("---")[2].replace("name: users", "name: other")


def affected(result: Compiled) -> dict[str, Condition]:
    """The routes that say that a policy holds them (GEP-713)."""
    return {
        key.name: entry
        for key, status in result.statuses.items()
        for parent in status.parents
        for entry in parent.conditions
        if entry.type == AFFECTED
    }


def test_a_held_route_says_so_until_the_policy_goes() -> None:
    found = affected(result_of(ROUTE + OTHER + policy("  retry: {attempts: 1}")))
    assert list(found) == ["users"]
    assert (found["users"].status, found["users"].reason) == ("True", "PolicyAffected")
    assert found["users"].message == "BackendTrafficPolicy app/first holds the calls of this route"
    assert not affected(result_of(ROUTE + OTHER))


def test_a_policy_that_holds_nothing_affects_nothing() -> None:
    two = policy("  retry: {attempts: 1}") + policy("  retry: {attempts: 2}", "second")
    assert affected(result_of(ROUTE + two))["users"].message.startswith(
        "BackendTrafficPolicy app/first"
    )
    section = policy(
        "  retry: {attempts: 1}", target="kind: GRPCRoute, name: users, sectionName: x"
    )
    assert not affected(result_of(ROUTE + section))
