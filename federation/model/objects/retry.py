"""Retries in a policy: which failures, how often, how soon, and how many in all.

Decides: fields, bounds and defaults of `retry` and of `retryConstraint` (GEP-3388).
Leaves to others: what each word of `retryOn` covers (the data plane; docs/semantics.md has the
table), which policy holds a route (``derive.compile``).
Invariants: durations are milliseconds; ``attempts`` counts tries after the first.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from federation.model.duration import DurationMs
from federation.model.objects.metadata import Part, Rule

RETRY_ATTEMPTS_MAX = 10
"""More tries than this turn an outage into a storm; gRPC's own bound is five (gRFC A6)."""

BUDGET_INTERVAL_MS_MIN, BUDGET_INTERVAL_MS_MAX = 1_000, 3_600_000
"""Bounds of the intervals of a budget (GEP-3388)."""


class RetryOn(StrEnum):
    """Events that are worth another try, by Envoy's names."""

    FIVE_XX = "5xx"
    GATEWAY_ERROR = "gateway-error"
    RESET = "reset"
    CONNECT_FAILURE = "connect-failure"
    REFUSED_STREAM = "refused-stream"
    RETRIABLE_STATUS_CODES = "retriable-status-codes"
    CANCELLED = "cancelled"
    DEADLINE_EXCEEDED = "deadline-exceeded"
    INTERNAL = "internal"
    RESOURCE_EXHAUSTED = "resource-exhausted"
    UNAVAILABLE = "unavailable"


class Backoff(Part):
    """Waits between tries: random up to the base, doubled each time up to the maximum."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.maxDuration)"
            " || duration(self.maxDuration) >= duration(self.defaultDuration)",
            "maxDuration must not be shorter than defaultDuration",
        ),
    )

    default_duration_ms: DurationMs = Field(default=25, alias="defaultDuration", ge=1)
    """The first wait is random up to this, and the bound doubles with each try."""
    max_duration_ms: DurationMs | None = Field(default=None, alias="maxDuration", ge=1)
    """Longest wait; left out, ten times `defaultDuration`."""

    @model_validator(mode="after")
    def _ordered(self) -> Backoff:
        if self.max_duration_ms is not None and self.max_duration_ms < self.default_duration_ms:
            raise ValueError("maxDuration must not be shorter than defaultDuration")
        return self


class PerRetry(Part):
    """Limits of single tries, as Envoy Gateway spells them; the same as ``perTryTimeout``."""

    timeout_ms: DurationMs = Field(alias="timeout", ge=1)
    """How long one try may take; the same as `perTryTimeout`."""


class Retry(Part):
    """When and how often a call is tried again; an empty ``retry_on`` takes the default events.

    ``retry_on_status_codes``: from 100 HTTP statuses, 0 to 16 gRPC codes; they count only with
    ``retriable-status-codes`` in ``retry_on``, or with an empty one.
    """

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.retryOnStatusCodes) || self.retryOnStatusCodes.all("
            "c, (c >= 0 && c <= 16) || (c >= 100 && c <= 599))",
            "must be gRPC codes 0 to 16 or HTTP statuses",
            field="retryOnStatusCodes",
        ),
        Rule(
            "!has(self.perRetry) || !has(self.perTryTimeout)",
            "perTryTimeout and perRetry.timeout are the same; give one of them",
        ),
    )

    retry_on: tuple[RetryOn, ...] = ()
    """Failures that are worth another try; left out: connect-failure, refused-stream,
    unavailable."""
    retry_on_status_codes: tuple[int, ...] = Field(default=(), max_length=64)
    """gRPC codes (0 to 16) and HTTP statuses (from 100) that are worth another try, with
    `retriable-status-codes` in `retryOn` or with `retryOn` left out."""
    attempts: int = Field(default=2, ge=0, le=RETRY_ATTEMPTS_MAX)
    """Tries after the first one; 0 switches retries off."""
    backoff: Backoff = Backoff()
    """Waits between tries."""
    per_try_timeout_ms: DurationMs | None = Field(default=None, alias="perTryTimeout", ge=1)
    """How long one try may take before it is given up and tried again."""
    per_retry: PerRetry | None = None
    """Limits of single tries, as Envoy Gateway spells them."""

    @property
    def try_timeout_ms(self) -> int | None:
        """The time for one try, under whichever of its two names it was given."""
        return self.per_retry.timeout_ms if self.per_retry is not None else self.per_try_timeout_ms

    @field_validator("retry_on_status_codes")
    @classmethod
    def _codes_exist(cls, codes: tuple[int, ...]) -> tuple[int, ...]:
        for code in codes:
            if not (0 <= code <= 16 or 100 <= code <= 599):
                raise ValueError(f"must be gRPC codes 0 to 16 or HTTP statuses, got {code}")
        return codes

    @model_validator(mode="after")
    def _one_try_timeout(self) -> Retry:
        if self.per_retry is not None and self.per_try_timeout_ms is not None:
            raise ValueError("perTryTimeout and perRetry.timeout are the same; give one of them")
        return self


class RetryBudget(Part):
    """Retries as a share of the calls of the last ``interval``."""

    percent: int = Field(default=20, ge=0, le=100)
    """Retries in percent of the calls."""
    interval_ms: DurationMs = Field(
        default=10_000,
        alias="interval",
        ge=BUDGET_INTERVAL_MS_MIN,
        le=BUDGET_INTERVAL_MS_MAX,
    )
    """The time over which calls are counted."""


class MinRetryRate(Part):
    """Retries that the budget always allows: ``count`` in each ``interval``."""

    count: int = Field(default=10, ge=1, le=1_000_000)
    """Retries that are always allowed in an interval."""
    interval_ms: DurationMs = Field(
        default=1_000,
        alias="interval",
        ge=BUDGET_INTERVAL_MS_MIN,
        le=BUDGET_INTERVAL_MS_MAX,
    )
    """The time in which they are counted."""


class RetryConstraint(Part):
    """A bound on all retries of a route's calls (GEP-3388); over it a call is not retried."""

    budget: RetryBudget = RetryBudget()
    """Retries as a share of all calls."""
    min_retry_rate: MinRetryRate = MinRetryRate()
    """Retries that are allowed however few calls there are."""
