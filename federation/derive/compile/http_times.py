"""Time-outs and retries that rules of HTTPRoutes ask for themselves (GEP-1742, GEP-1731).

Decides: how they go together with a policy's: what the rule says holds, the rest is the policy's.
Leaves to others: policies by themselves (``policies``).
Invariants: a GRPCRoute has neither; a time-out of zero is none.
"""

from __future__ import annotations

from dataclasses import replace

from federation.model.objects import AnyRule, HTTPRouteRule, RetryOn
from federation.model.snapshot import Retry, Timeouts

DEFAULT_ATTEMPTS = 2
"""Tries after the first where a retry names no number, as in a BackendTrafficPolicy."""

DEFAULT_BACKOFF_MS = 25
MAX_BACKOFF_FACTOR = 10
"""The longest wait as a multiple of the first (Envoy's own default)."""

_EVENTS = (
    RetryOn.CONNECT_FAILURE.value,
    RetryOn.REFUSED_STREAM.value,
    RetryOn.RESET.value,
)
"""Failed connections in any way, which a retry always covers."""


def http_timeouts(rule: AnyRule, of_policy: Timeouts) -> Timeouts:
    """Limits of the rule's requests."""
    spec = rule.timeouts if isinstance(rule, HTTPRouteRule) else None
    if spec is None or spec.request_ms is None:
        return of_policy
    return replace(of_policy, request_ms=spec.request_ms or None)


def http_retry(rule: AnyRule, of_policy: Retry) -> Retry:
    """When the rule's requests are tried again, and how long one try may take."""
    if not isinstance(rule, HTTPRouteRule):
        return of_policy
    retry = of_policy
    if rule.retry is not None:
        spec = rule.retry
        base_ms = spec.backoff_ms or DEFAULT_BACKOFF_MS
        retry = replace(
            of_policy,
            on=(*_EVENTS, *((RetryOn.RETRIABLE_STATUS_CODES.value,) if spec.codes else ())),
            attempts=DEFAULT_ATTEMPTS if spec.attempts is None else spec.attempts,
            base_ms=base_ms,
            max_ms=base_ms * MAX_BACKOFF_FACTOR,
            http_codes=tuple(sorted(set(spec.codes))),
            grpc_codes=(),
        )
    if rule.timeouts is not None and rule.timeouts.backend_request_ms is not None:
        retry = replace(retry, per_try_timeout_ms=rule.timeouts.backend_request_ms or None)
    return retry
