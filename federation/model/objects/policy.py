"""BackendTrafficPolicy (the federation's kind): how calls to a route's backends behave.

Decides: its fields, bounds and defaults, and what is wrong in one policy by itself.
Leaves to others: which policy holds a route (``derive.compile``: one per route, the oldest),
failover order (``derive.resolve``), the data plane's behaviour.
Invariants: a part that is ``None`` was not asked for; durations are milliseconds; ``attempts``
counts retries after the first try.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from federation.model.duration import DurationMs
from federation.model.objects.gateway import GATEWAY_GROUP
from federation.model.objects.metadata import ApiObject, Name, OptionalText, Part

RETRY_ATTEMPTS_MAX = 10
"""More tries than this turn an outage into a storm; gRPC's own bound is five (gRFC A6)."""

Count = Annotated[int, Field(ge=1, le=4_294_967_295)]
"""A limit or threshold; Envoy keeps them in 32 bits."""


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


class PolicyTargetReference(Part):
    """What a policy speaks about, in its own namespace; ``section_name`` picks a rule."""

    group: str
    kind: str
    name: Name
    section_name: str | None = None


class Backoff(Part):
    """Waits between tries: random up to the base, doubled each time up to the maximum."""

    default_duration_ms: DurationMs = Field(default=25, alias="defaultDuration", ge=1)
    max_duration_ms: DurationMs | None = Field(default=None, alias="maxDuration", ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Backoff:
        if self.max_duration_ms is not None and self.max_duration_ms < self.default_duration_ms:
            raise ValueError("maxDuration must not be shorter than defaultDuration")
        return self


class Retry(Part):
    """When and how often a call is tried again; an empty ``retry_on`` takes the default events.

    ``retry_on_status_codes``: from 100 HTTP statuses, 0 to 16 gRPC codes; they count only with
    ``retriable-status-codes`` in ``retry_on``, or with an empty one.
    """

    retry_on: tuple[RetryOn, ...] = ()
    retry_on_status_codes: tuple[int, ...] = Field(default=(), max_length=64)
    attempts: int = Field(default=2, ge=0, le=RETRY_ATTEMPTS_MAX)
    backoff: Backoff = Backoff()
    per_try_timeout_ms: DurationMs | None = Field(default=None, alias="perTryTimeout", ge=1)

    @field_validator("retry_on_status_codes")
    @classmethod
    def _codes_exist(cls, codes: tuple[int, ...]) -> tuple[int, ...]:
        for code in codes:
            if not (0 <= code <= 16 or 100 <= code <= 599):
                raise ValueError(f"must be gRPC codes 0 to 16 or HTTP statuses, got {code}")
        return codes


class ConnectionPool(Part):
    """Caps on concurrent work towards one backend; ``None`` takes the gateway's default."""

    max_connections: Count | None = None
    max_pending_requests: Count | None = None
    max_requests_per_connection: Count | None = None
    max_parallel_requests: Count | None = None


class CircuitBreaker(Part):
    """Ejection of endpoints by their results; ``None`` takes the gateway's default."""

    consecutive_failures: Count | None = None
    consecutive_gateway_failures: Count | None = None
    interval_ms: DurationMs | None = Field(default=None, alias="interval", ge=1)
    base_ejection_time_ms: DurationMs | None = Field(default=None, alias="baseEjectionTime", ge=1)
    max_ejection_percent: int | None = Field(default=None, ge=0, le=100)


class TcpTimeout(Part):
    """Time-outs of connections."""

    connect_timeout_ms: DurationMs | None = Field(default=None, alias="connectTimeout", ge=1)


class HttpTimeout(Part):
    """Time-outs of calls; zero switches one off, ``None`` leaves it at its default."""

    request_timeout_ms: DurationMs | None = Field(default=None, alias="requestTimeout")
    max_stream_duration_ms: DurationMs | None = Field(default=None, alias="maxStreamDuration")
    stream_idle_timeout_ms: DurationMs | None = Field(default=None, alias="streamIdleTimeout")


class Timeout(Part):
    """All time-outs of a policy."""

    tcp: TcpTimeout | None = None
    http: HttpTimeout | None = None


class GrpcHealthCheck(Part):
    """The service name asked for (grpc.health.v1); empty asks for the whole server."""

    service: OptionalText = ""


class ActiveHealthCheck(Part):
    """Probes by the gateway itself."""

    interval_ms: DurationMs = Field(default=3_000, alias="interval", ge=1)
    timeout_ms: DurationMs = Field(default=1_000, alias="timeout", ge=1)
    unhealthy_threshold: Count = 3
    healthy_threshold: Count = 1
    grpc: GrpcHealthCheck = GrpcHealthCheck()


class HealthCheck(Part):
    """Health checks of a policy."""

    active: ActiveHealthCheck | None = None


class FailoverStrategy(StrEnum):
    """Ways to fail over."""

    REGION_FAILOVER = "RegionFailover"


class RegionFailover(Part):
    """Traffic meant for ``source`` goes to ``target`` while ``source`` cannot take it."""

    source: Name = Field(alias="from")
    target: Name = Field(alias="to")

    @model_validator(mode="after")
    def _elsewhere(self) -> RegionFailover:
        if self.source == self.target:
            raise ValueError(
                f'from and to are both "{self.source}"; a region cannot fail over to itself'
            )
        return self


class Failover(Part):
    """Where traffic goes when its own target is gone; order of entries is order of preference."""

    strategy: FailoverStrategy = FailoverStrategy.REGION_FAILOVER
    region_failover: tuple[RegionFailover, ...] = Field(min_length=1, max_length=256)


class HeaderSelector(Part):
    """A header by which callers are told apart; each value counts for itself if none is given."""

    name: str
    type: str = "Exact"
    value: str | None = None


class ClientSelector(Part):
    """A group of callers."""

    headers: tuple[HeaderSelector, ...] = ()


class RateLimitUnit(StrEnum):
    """Units of rate limits."""

    SECOND = "Second"
    MINUTE = "Minute"
    HOUR = "Hour"
    DAY = "Day"


class RateLimitValue(Part):
    """A number of calls in a time."""

    requests_per_unit: int = Field(ge=0)
    unit: RateLimitUnit


class RateLimitRule(Part):
    """One limit for the callers selected."""

    client_selectors: tuple[ClientSelector, ...] = ()
    limit: RateLimitValue


class RateLimitRules(Part):
    """Limits that all apply."""

    rules: tuple[RateLimitRule, ...] = Field(min_length=1)


class RateLimitType(StrEnum):
    """Where calls are counted."""

    GLOBAL = "Global"
    LOCAL = "Local"


class RateLimit(Part):
    """Rate limits; the field of the type's name holds the rules."""

    type: RateLimitType
    global_: RateLimitRules | None = Field(default=None, alias="global")
    local: RateLimitRules | None = None


class BackendTrafficPolicySpec(Part):
    """What a policy asks for."""

    target_ref: PolicyTargetReference
    retry: Retry | None = None
    connection_pool: ConnectionPool | None = None
    circuit_breaker: CircuitBreaker | None = None
    timeout: Timeout | None = None
    failover: Failover | None = None
    health_check: HealthCheck | None = None
    rate_limit: RateLimit | None = None


class BackendTrafficPolicy(ApiObject):
    """The federation's BackendTrafficPolicy."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "BackendTrafficPolicy"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1alpha3",)

    api_version: str = f"{GATEWAY_GROUP}/v1alpha3"
    kind: str = "BackendTrafficPolicy"
    spec: BackendTrafficPolicySpec
