"""Retries: ``envoy.config.route.v3.RetryPolicy``.

Decides: which conditions and limits this gateway acts on. The list of retried gRPC codes that Envoy
has no field for comes with our own metadata.
Leaves to others: when to retry and where to (the core). It never goes back to an endpoint already
tried while there is another, and leaves a member cluster at its second failure, which is what the
predicates of previous hosts and priorities ask for.
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2
from google.protobuf import struct_pb2

from gateway.xds_translate.fields import (
    UnsupportedFieldError,
    join,
    only,
    optional_ms,
    optional_value,
    whole,
)
from gateway.xds_translate.traffic import retry_budget

CONDITIONS = frozenset(
    {
        "5xx",
        "gateway-error",
        "connect-failure",
        "refused-stream",
        "reset",
        "retriable-status-codes",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    }
)
BASE_MS = 25
"""xDS's default back-off; the longest wait is ten times the base where none is given."""

_PREVIOUS_PRIORITIES = "envoy.retry_priorities.previous_priorities"
_PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"


def translate_retry(
    policy: route_components_pb2.RetryPolicy, own: dict[str, Any], path: str
) -> dict[str, Any]:
    """A retry policy as the core reads it."""
    only(
        policy,
        path,
        reads=(
            "retry_on",
            "num_retries",
            "per_try_timeout",
            "retriable_status_codes",
            "retry_back_off",
            "retry_host_predicate",
            "retry_priority",
        ),
        ignores=("host_selection_retry_max_attempts",),
    )
    for index, predicate in enumerate(policy.retry_host_predicate):
        if predicate.name != _PREVIOUS_HOSTS:
            raise UnsupportedFieldError(
                f"{path}.retry_host_predicate[{index}]", f"must be {_PREVIOUS_HOSTS}"
            )
    if policy.retry_priority.name not in ("", _PREVIOUS_PRIORITIES):
        raise UnsupportedFieldError(join(path, "retry_priority"), f"must be {_PREVIOUS_PRIORITIES}")
    attempts = optional_value(policy, "num_retries")
    base = optional_ms(policy.retry_back_off, "base_interval") or BASE_MS
    longest = optional_ms(policy.retry_back_off, "max_interval") or base * 10
    return {
        "on": _conditions(policy.retry_on, join(path, "retry_on")),
        "http_codes": list(policy.retriable_status_codes),
        "grpc_codes": _grpc_codes(own.get("grpc_codes", ())),
        "attempts": 1 if attempts is None else attempts,
        "base_ms": base,
        "max_ms": max(base, longest),
        "per_try_timeout_ms": optional_ms(policy, "per_try_timeout") or None,
        **retry_budget(own),
    }


def _grpc_codes(codes: Any) -> list[int]:
    path = "metadata.federation.gateway.grpc_codes"
    if not isinstance(codes, tuple | struct_pb2.ListValue):
        raise UnsupportedFieldError(path, f"must be a list, got {codes!r}")
    return [whole(code, path) for code in codes]


def _conditions(retry_on: str, path: str) -> list[str]:
    conditions = [word.strip() for word in retry_on.split(",") if word.strip()]
    unknown = [word for word in conditions if word not in CONDITIONS]
    if unknown:
        raise UnsupportedFieldError(path, f"does not know {', '.join(unknown)}")
    return conditions
