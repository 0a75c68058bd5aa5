"""BackendTrafficPolicies: which one holds a route, and what it asks of the gateway.

Decides: one policy for each route (the oldest; the others are ``Conflicted``), and its translation
into retries, time-outs, limits and health checks.
Leaves to others: failover order (``derive.resolve``), its readiness (``failover``), rate limits
(``limits``), balancing and ejection (``balancing``).
Invariants: what a policy does not say keeps the defaults of this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from federation.derive.compile.index import Index
from federation.derive.compile.limits import rate_limit_fault
from federation.derive.compile.problem import Problem
from federation.derive.compile.traffic import budget_of
from federation.model.objects import (
    BackendTrafficPolicy,
    GRPCRoute,
    HealthCheck,
    HTTPRoute,
    ObjectKey,
    RetryOn,
)
from federation.model.objects import Retry as RetrySpec
from federation.model.snapshot import (
    ConnectionLimits,
    Retry,
    Timeouts,
)
from federation.model.snapshot import HealthCheck as Probe

DEFAULT_RETRY = Retry(
    on=(RetryOn.CONNECT_FAILURE.value, RetryOn.REFUSED_STREAM.value),
    attempts=2,
    base_ms=25,
    max_ms=250,
)
"""Tries that never reached the application; repeating them is safe for every method (gRFC A6)."""

_DEFAULT_EVENTS = (RetryOn.CONNECT_FAILURE, RetryOn.REFUSED_STREAM, RetryOn.UNAVAILABLE)
"""Events of a retry policy that names none."""

_ROUTES = frozenset((kind.GROUP, kind.KIND) for kind in (GRPCRoute, HTTPRoute))

MAX_BACKOFF_FACTOR = 10
"""The longest wait where none is given, as a multiple of the base (Envoy's own default)."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy that holds each route, and the problem of each policy that holds none."""

    by_route: Mapping[ObjectKey, BackendTrafficPolicy]
    problems: Mapping[ObjectKey, Problem]


def assign_policies(index: Index) -> Policies:
    """Give each route at most one policy: the oldest."""
    holders: dict[ObjectKey, BackendTrafficPolicy] = {}
    problems: dict[ObjectKey, Problem] = {}
    for policy in index.objects.of(BackendTrafficPolicy):
        target = target_key(policy)
        problem = _target_problem(index, policy, target) or _own_problem(policy)
        if problem is None and holders.setdefault(target, policy) is not policy:
            problem = Problem(
                "Conflicted",
                f"{holders[target].key} is older and holds {target}; a route takes one policy, "
                "so merge the two or target another route",
            )
        if problem is not None:
            problems[policy.key] = problem
    return Policies(by_route=holders, problems=problems)


def target_key(policy: BackendTrafficPolicy) -> ObjectKey:
    """The object that the policy speaks about, in its own namespace."""
    ref = policy.spec.target_ref
    return ObjectKey(ref.group, ref.kind, policy.metadata.namespace, ref.name)


def _target_problem(
    index: Index, policy: BackendTrafficPolicy, target: ObjectKey
) -> Problem | None:
    if (target.group, target.kind) not in _ROUTES:
        kinds = f"use a {GRPCRoute.KIND} or an {HTTPRoute.KIND}"
        message = f"spec.targetRef: kind {target.kind} cannot be targeted, {kinds}"
        return Problem("Invalid", message)
    if policy.spec.target_ref.section_name is not None:
        message = "spec.targetRef.sectionName: single rules cannot be targeted yet"
        return Problem("Invalid", message)
    if target not in index.objects.objects:
        return Problem("TargetNotFound", f"spec.targetRef: {target} does not exist")
    return None


def _own_problem(policy: BackendTrafficPolicy) -> Problem | None:
    fault = rate_limit_fault(policy)
    return Problem("Invalid", fault) if fault else None


def retry_of(policy: BackendTrafficPolicy | None) -> Retry:
    """When calls of the policy's route are tried again."""
    spec = policy.spec.retry if policy is not None else None
    if spec is None:
        return replace(DEFAULT_RETRY, budget=budget_of(policy))
    backoff = spec.backoff
    longest = backoff.max_duration_ms or backoff.default_duration_ms * MAX_BACKOFF_FACTOR
    events = spec.retry_on or _DEFAULT_EVENTS
    retry = Retry(
        on=tuple(dict.fromkeys(event.value for event in events)),
        attempts=spec.attempts,
        base_ms=backoff.default_duration_ms,
        max_ms=longest,
        per_try_timeout_ms=spec.try_timeout_ms,
        budget=budget_of(policy),
    )
    return _with_codes(retry, spec)


def _with_codes(retry: Retry, spec: RetrySpec) -> Retry:
    codes = sorted(set(spec.retry_on_status_codes))
    asked = RetryOn.RETRIABLE_STATUS_CODES.value
    if not codes or (spec.retry_on and asked not in retry.on):
        return retry
    return replace(
        retry,
        on=tuple(dict.fromkeys((*retry.on, asked))),
        http_codes=tuple(code for code in codes if code >= 100),
        # 0 is success; a policy that lists it by mistake must not repeat successful calls.
        grpc_codes=tuple(code for code in codes if 0 < code < 100),
    )


def timeouts_of(policy: BackendTrafficPolicy | None) -> Timeouts:
    """Limits of each call of the policy's route; a zero in the policy is no limit."""
    http = policy.spec.timeout.http if policy is not None and policy.spec.timeout else None
    if http is None:
        return Timeouts()
    return Timeouts(
        request_ms=http.request_timeout_ms or None,
        max_stream_ms=http.max_stream_duration_ms or None,
        idle_ms=http.stream_idle_timeout_ms or None,
    )


def connect_timeout_of(policy: BackendTrafficPolicy | None, default_ms: int) -> int:
    """How long a connection may take to open."""
    tcp = policy.spec.timeout.tcp if policy is not None and policy.spec.timeout else None
    return (tcp.connect_timeout_ms if tcp is not None else None) or default_ms


def limits_of(policy: BackendTrafficPolicy | None) -> ConnectionLimits:
    """Caps on connections and calls towards one upstream."""
    pool = policy.spec.connection_pool if policy is not None else None
    budget = budget_of(policy)
    if pool is None:
        return ConnectionLimits(retry_budget=budget)
    return ConnectionLimits(
        max_connections=pool.max_connections,
        max_pending_requests=pool.max_pending_requests,
        max_requests_per_connection=pool.max_requests_per_connection,
        max_requests=pool.max_parallel_requests,
        retry_budget=budget,
    )


def probe_of(policy: BackendTrafficPolicy | None) -> Probe | None:
    """The active health check that the policy asks for."""
    check: HealthCheck | None = policy.spec.health_check if policy is not None else None
    if check is None or check.active is None:
        return None
    active = check.active
    return Probe(
        interval_ms=active.interval_ms,
        timeout_ms=active.timeout_ms,
        unhealthy_threshold=active.unhealthy_threshold,
        healthy_threshold=active.healthy_threshold,
        service=active.grpc.service,
    )
