"""What rules and policies ask for besides a destination: retry budget, faults, sessions.

Decides: their numbers and names.
Leaves to others: retries and time-outs (``policies``), mirrors (``mirrors``), drawing and counting
(the gateway).
Invariants: a share above 0 never becomes 0; a session's default name depends on its rule alone, so
it outlives changes of everything else.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

from federation.model.objects import (
    BackendTrafficPolicy,
    CookieLifetime,
    SessionPersistence,
    SessionPersistenceType,
)
from federation.model.objects import FaultAbort as AbortSpec
from federation.model.objects import FaultDelay as DelaySpec
from federation.model.traffic import (
    MILLION,
    Fault,
    FaultAbort,
    FaultDelay,
    RetryBudget,
    Session,
    SessionKind,
)

SESSION_PREFIX = "federation-session-"
"""Sessions without a name of their own are called by it and a hash of their rule."""


def budget_of(policy: BackendTrafficPolicy | None) -> RetryBudget | None:
    """The bound on all retries of the policy's route; ``None`` without a ``retryConstraint``."""
    spec = policy.spec.retry_constraint if policy is not None else None
    if policy is None or spec is None:
        return None
    return RetryBudget(
        name=policy.key.qualified_name,
        percent=spec.budget.percent,
        interval_ms=spec.budget.interval_ms,
        min_retries=spec.min_retry_rate.count,
        min_retries_interval_ms=spec.min_retry_rate.interval_ms,
    )


def fault_of(policy: BackendTrafficPolicy | None) -> Fault | None:
    """Faults on purpose for the calls of the policy's route."""
    spec = policy.spec.fault_injection if policy is not None else None
    if spec is None:
        return None
    return Fault(
        delay=_delay(spec.delay) if spec.delay is not None else None,
        abort=_abort(spec.abort) if spec.abort is not None else None,
    )


def fault_note(policy: BackendTrafficPolicy) -> str:
    """What a person who looks at the policy must not overlook; empty without faults."""
    if policy.spec.fault_injection is None:
        return ""
    return "calls are delayed or refused on purpose, as spec.faultInjection asks"


def _delay(spec: DelaySpec) -> FaultDelay:
    return FaultDelay(ms=spec.fixed_delay_ms, per_million=share_of(Fraction(spec.percentage)))


def _abort(spec: AbortSpec) -> FaultAbort:
    return FaultAbort(
        http_status=spec.http_status,
        grpc_status=spec.grpc_status,
        per_million=share_of(Fraction(spec.percentage)),
    )


def share_of(percent: Fraction) -> int:
    """``percent`` in a million; a share above 0 never becomes 0."""
    exact = percent * MILLION / 100
    return max(1, round(exact)) if exact else 0


def session_of(spec: SessionPersistence | None, *, rule: str) -> Session | None:
    """The session of a rule; ``rule`` is the rule's identity, ``NAMESPACE/ROUTE/NAME``."""
    if spec is None:
        return None
    is_header = spec.type is SessionPersistenceType.HEADER
    name = spec.session_name or SESSION_PREFIX + hashlib.sha256(rule.encode()).hexdigest()[:8]
    cookie = spec.cookie_config
    return Session(
        name=name.lower() if is_header else name,
        kind=SessionKind.HEADER if is_header else SessionKind.COOKIE,
        absolute_ms=spec.absolute_timeout_ms,
        idle_ms=spec.idle_timeout_ms,
        permanent=cookie is not None and cookie.lifetime_type is CookieLifetime.PERMANENT,
    )
