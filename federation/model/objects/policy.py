"""BackendTrafficPolicy (the federation's kind): how calls to a route's backends behave.

Decides: its fields, bounds and defaults, and what is wrong in one policy by itself.
Leaves to others: which policy holds a route (``derive.compile``: one per route, the oldest),
failover order (``derive.resolve``), the data plane's behaviour.
Retries are in ``retry``, faults on purpose in ``fault``.
Invariants: a part that is ``None`` was not asked for; durations are milliseconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from federation.model.duration import DurationMs
from federation.model.objects.fault import FaultInjection
from federation.model.objects.gateway import GATEWAY_GROUP
from federation.model.objects.metadata import ApiObject, Name, OptionalText, Part
from federation.model.objects.retry import Retry, RetryConstraint

Count = Annotated[int, Field(ge=1, le=4_294_967_295)]
"""A limit or threshold; Envoy keeps them in 32 bits."""


class PolicyTargetReference(Part):
    """What a policy speaks about, in its own namespace; ``section_name`` picks a rule."""

    group: str
    kind: str
    name: Name
    section_name: str | None = None


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
    retry_constraint: RetryConstraint | None = None
    connection_pool: ConnectionPool | None = None
    circuit_breaker: CircuitBreaker | None = None
    timeout: Timeout | None = None
    failover: Failover | None = None
    health_check: HealthCheck | None = None
    rate_limit: RateLimit | None = None
    fault_injection: FaultInjection | None = None


class BackendTrafficPolicy(ApiObject):
    """The federation's BackendTrafficPolicy."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "BackendTrafficPolicy"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1alpha3",)

    api_version: str = f"{GATEWAY_GROUP}/v1alpha3"
    kind: str = "BackendTrafficPolicy"
    spec: BackendTrafficPolicySpec
