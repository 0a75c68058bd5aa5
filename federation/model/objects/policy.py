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

from federation.model.duration import DurationMs, format_duration
from federation.model.objects.balancing import LoadBalancer
from federation.model.objects.fault import FaultInjection
from federation.model.objects.gateway import GATEWAY_GROUP
from federation.model.objects.metadata import ApiObject, Name, OptionalText, Part, Rule
from federation.model.objects.retry import Retry, RetryConstraint

Count = Annotated[int, Field(ge=1, le=4_294_967_295)]
"""A limit or threshold; Envoy keeps them in 32 bits."""


REQUEST_VOLUME_MAX = 1_000_000
"""Data planes count the results of an interval up to here."""

BASE_EJECTION_MS = 30_000
"""How long an endpoint is out the first time, where no policy says."""


class PolicyTargetReference(Part):
    """What a policy speaks about, in its own namespace; ``section_name`` picks a rule."""

    group: str
    """API group of the target: `gateway.networking.k8s.io`."""
    kind: str
    """Kind of the target: GRPCRoute or HTTPRoute."""
    name: Name
    """Name of the target, in the namespace of the policy."""
    section_name: str | None = None
    """A single rule of the route; not supported yet, so a policy with it is not accepted."""


class ConnectionPool(Part):
    """Caps on concurrent work towards one backend; ``None`` takes the gateway's default."""

    max_connections: Count | None = None
    """Connections that each worker thread of a gateway opens to one endpoint."""
    max_pending_requests: Count | None = None
    """Calls that may wait for a connection; more fail at once with UNAVAILABLE."""
    max_requests_per_connection: Count | None = None
    """Calls after which a connection is replaced by a new one."""
    max_parallel_requests: Count | None = None
    """Calls that may be open towards one backend at a time."""


class FailurePercentage(Part):
    """Ejection by the share of failures in an interval, for failures that are not in a row.

    Judged are endpoints with ``request_volume`` results or more, where there are ``minimum_hosts``.
    """

    threshold: int = Field(default=85, ge=1, le=100)
    """Percent of failures in an interval from which on an endpoint is ejected."""
    request_volume: int = Field(default=50, ge=1, le=REQUEST_VOLUME_MAX)
    """Results in an interval that an endpoint needs to be judged."""
    minimum_hosts: Count = 5
    """Endpoints with so many results that there must be for any to be judged."""


class CircuitBreaker(Part):
    """Ejection of endpoints by their results; ``None`` takes the gateway's default.

    An endpoint is out for the base time, times the number of its ejections, up to the maximum.
    """

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.maxEjectionTime) || duration(self.maxEjectionTime) >= "
            "duration(has(self.baseEjectionTime) ? self.baseEjectionTime : "
            f"'{format_duration(BASE_EJECTION_MS)}')",
            "maxEjectionTime must not be shorter than baseEjectionTime",
        ),
    )

    consecutive_failures: Count | None = None
    """Failures in a row (5xx, or their gRPC codes) after which an endpoint is ejected."""
    consecutive_gateway_failures: Count | None = None
    """Failures in a row of connections and gateways (502 to 504, UNAVAILABLE) after which an
    endpoint is ejected."""
    interval_ms: DurationMs | None = Field(default=None, alias="interval", ge=1)
    """Time between two looks at percentages and at ejections that have ended."""
    base_ejection_time_ms: DurationMs | None = Field(default=None, alias="baseEjectionTime", ge=1)
    """How long an endpoint is out the first time."""
    max_ejection_time_ms: DurationMs | None = Field(default=None, alias="maxEjectionTime", ge=1)
    """Longest time that an endpoint is out, however often it was."""
    max_ejection_percent: int | None = Field(default=None, ge=0, le=100)
    """Percent of the endpoints that may be out at a time."""
    failure_percentage: FailurePercentage | None = None
    """Ejection by the share of failures, beside failures in a row."""

    @model_validator(mode="after")
    def _ordered(self) -> CircuitBreaker:
        base_ms = self.base_ejection_time_ms or BASE_EJECTION_MS
        if self.max_ejection_time_ms is not None and self.max_ejection_time_ms < base_ms:
            raise ValueError("maxEjectionTime must not be shorter than baseEjectionTime")
        return self


class TcpTimeout(Part):
    """Time-outs of connections."""

    connect_timeout_ms: DurationMs | None = Field(default=None, alias="connectTimeout", ge=1)
    """How long opening a connection to an endpoint may take."""


class HttpTimeout(Part):
    """Time-outs of calls; zero switches one off, ``None`` leaves it at its default."""

    request_timeout_ms: DurationMs | None = Field(default=None, alias="requestTimeout")
    """How long a call may take, all its tries together."""
    max_stream_duration_ms: DurationMs | None = Field(default=None, alias="maxStreamDuration")
    """How long a stream may last, however busy it is."""
    stream_idle_timeout_ms: DurationMs | None = Field(default=None, alias="streamIdleTimeout")
    """How long a stream may be without a byte in either direction."""


class Timeout(Part):
    """All time-outs of a policy."""

    tcp: TcpTimeout | None = None
    """Time-outs of connections to endpoints."""
    http: HttpTimeout | None = None
    """Time-outs of calls and streams."""


class GrpcHealthCheck(Part):
    """The service name asked for (grpc.health.v1); empty asks for the whole server."""

    service: OptionalText = ""
    """The service asked for; left out, the whole server."""


class ActiveHealthCheck(Part):
    """Probes by the gateway itself."""

    interval_ms: DurationMs = Field(default=3_000, alias="interval", ge=1)
    """Time between two probes of an endpoint."""
    timeout_ms: DurationMs = Field(default=1_000, alias="timeout", ge=1)
    """How long the answer to a probe may take."""
    unhealthy_threshold: Count = 3
    """Failed probes in a row after which an endpoint gets no more calls."""
    healthy_threshold: Count = 1
    """Good probes in a row after which it gets calls again."""
    grpc: GrpcHealthCheck = GrpcHealthCheck()
    """What is asked by grpc.health.v1."""


class HealthCheck(Part):
    """Health checks of a policy."""

    active: ActiveHealthCheck | None = None
    """Probes that gateways send to every endpoint."""


class FailoverStrategy(StrEnum):
    """Ways to fail over."""

    REGION_FAILOVER = "RegionFailover"


class RegionFailover(Part):
    """Traffic meant for ``source`` goes to ``target`` while ``source`` cannot take it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.from != self.to",
            "from and to are the same; a region cannot fail over to itself",
            says="'from and to are both \"' + self.from"
            " + '\"; a region cannot fail over to itself'",
        ),
    )

    source: Name = Field(alias="from")
    """The region or cluster whose traffic is moved."""
    target: Name = Field(alias="to")
    """The region or cluster that takes it over."""

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
    """RegionFailover is the only strategy: rules from region to region."""
    region_failover: tuple[RegionFailover, ...] = Field(min_length=1, max_length=256)
    """The rules; of several for one source the first whose target can serve is taken."""


class HeaderSelectorType(StrEnum):
    """How a header selects callers."""

    EXACT = "Exact"
    REGULAR_EXPRESSION = "RegularExpression"
    DISTINCT = "Distinct"


class HeaderSelector(Part):
    """A header that callers are told apart by.

    ``Exact`` and ``RegularExpression`` select callers whose header has (matches as a whole)
    ``value``. ``Distinct`` selects all that send the header, and counts each value apart. Without
    ``type`` and ``value`` it is ``Distinct``.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$", max_length=256)
    """Name of the header; case does not matter."""
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.type) || has(self.value) == (self.type != 'Distinct')",
            "Exact and RegularExpression need a value, Distinct takes none",
            says="'type ' + self.type + (has(self.value) ? ' takes no value' : ' needs a value')",
        ),
    )

    type: HeaderSelectorType = Field(
        default=HeaderSelectorType.EXACT, json_schema_extra={"default": None}
    )
    """How the value is compared; left out, Exact with a `value` and Distinct without."""
    value: str | None = Field(default=None, max_length=1024)
    """The value, or the regular expression for the whole of it."""

    @model_validator(mode="before")
    @classmethod
    def _distinct_by_default(cls, fields: object) -> object:
        if isinstance(fields, dict) and "type" not in fields and fields.get("value") is None:
            return {**fields, "type": HeaderSelectorType.DISTINCT}
        return fields

    @model_validator(mode="after")
    def _value_fits(self) -> HeaderSelector:
        if (self.value is None) != (self.type is HeaderSelectorType.DISTINCT):
            needs = "takes no value" if self.value is not None else "needs a value"
            raise ValueError(f"type {self.type} {needs}")
        return self


DISTINCT_MAX = 4
"""Headers of one rule whose values are counted apart."""


class ClientSelector(Part):
    """A condition on callers; all its headers must fit."""

    headers: tuple[HeaderSelector, ...] = Field(default=(), max_length=16)
    """Conditions on headers; all must fit."""


class RateLimitUnit(StrEnum):
    """Units of rate limits."""

    SECOND = "Second"
    MINUTE = "Minute"
    HOUR = "Hour"
    DAY = "Day"

    @property
    def seconds(self) -> int:
        """Its length."""
        match self:
            case RateLimitUnit.SECOND:
                return 1
            case RateLimitUnit.MINUTE:
                return 60
            case RateLimitUnit.HOUR:
                return 3_600
            case RateLimitUnit.DAY:
                return 86_400


REQUESTS_PER_SECOND_MAX = 10_000_000
"""More than a route sees; below it gateways can tell apart when each call is free."""

REQUESTS_MAX = 4_294_967_295
"""Envoy keeps them in 32 bits."""


class RateLimitValue(Part):
    """A number of calls in a time; they may also come at once."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.requestsPerUnit <= (self.unit == 'Second' ? {REQUESTS_PER_SECOND_MAX} : "
            f"self.unit == 'Minute' ? {REQUESTS_PER_SECOND_MAX * 60} : {REQUESTS_MAX})",
            f"requestsPerUnit must be at most {REQUESTS_PER_SECOND_MAX} a second",
            says="'requestsPerUnit must be between 1 and ' + (self.unit == 'Second' ? "
            f"'{REQUESTS_PER_SECOND_MAX}' : self.unit == 'Minute' ? "
            f"'{REQUESTS_PER_SECOND_MAX * 60}' : '{REQUESTS_MAX}') + ' for unit ' + self.unit",
        ),
    )

    requests_per_unit: int = Field(ge=1)
    """Calls in each unit of time."""
    unit: RateLimitUnit
    """The unit of time: Second, Minute, Hour or Day."""

    @model_validator(mode="after")
    def _countable(self) -> RateLimitValue:
        most = min(REQUESTS_PER_SECOND_MAX * self.unit.seconds, REQUESTS_MAX)
        if self.requests_per_unit > most:
            raise ValueError(
                f"requestsPerUnit must be between 1 and {most} for unit {self.unit}, "
                f"got {self.requests_per_unit}"
            )
        return self


class RateLimitRule(Part):
    """One limit for the callers that fit all ``client_selectors``; without any: for all."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.clientSelectors) || self.clientSelectors.map(s, has(s.headers) ? s.headers"
            ".filter(h, (has(h.type) && h.type == 'Distinct') || (!has(h.type) && !has(h.value)))"
            f".size() : 0).sum() <= {DISTINCT_MAX}",
            f"clientSelectors: at most {DISTINCT_MAX} headers may be Distinct",
        ),
    )

    client_selectors: tuple[ClientSelector, ...] = Field(default=(), max_length=8)
    """Callers that the limit is for; all selectors must fit, and without any it is for all."""
    limit: RateLimitValue
    """How many calls in which time."""

    @model_validator(mode="after")
    def _few_distinct(self) -> RateLimitRule:
        distinct = [h for h in self.headers if h.type is HeaderSelectorType.DISTINCT]
        if len(distinct) > DISTINCT_MAX:
            raise ValueError(
                f"clientSelectors: at most {DISTINCT_MAX} headers may be Distinct, "
                f"got {len(distinct)}"
            )
        return self

    @property
    def headers(self) -> tuple[HeaderSelector, ...]:
        """The headers of all selectors."""
        return tuple(header for selector in self.client_selectors for header in selector.headers)


class RateLimitRules(Part):
    """Limits that all apply: a call is counted by each rule that selects it."""

    rules: tuple[RateLimitRule, ...] = Field(min_length=1, max_length=64)
    """The limits; a call must pass all that select it."""


class RateLimitType(StrEnum):
    """Where calls are counted: over all gateways, or by each gateway for itself."""

    GLOBAL = "Global"
    LOCAL = "Local"


class RateLimit(Part):
    """Rate limits; the field of the type's name holds the rules."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type == 'Global' ? has(self.global) && !has(self.local)"
            " : has(self.local) && !has(self.global)",
            "the rules stand in the field of the type's name, and in no other",
            says="self.type == 'Global'"
            " ? (has(self.global) ? 'local: would be without effect beside type Global'"
            " : 'type Global needs global.rules')"
            " : (has(self.local) ? 'global: would be without effect beside type Local'"
            " : 'type Local needs local.rules')",
        ),
    )

    type: RateLimitType
    """Global counts over all gateways together, Local each gateway for itself."""
    global_: RateLimitRules | None = Field(default=None, alias="global")
    """The limits of type Global."""
    local: RateLimitRules | None = None
    """The limits of type Local."""

    @model_validator(mode="after")
    def _rules_of_the_type(self) -> RateLimit:
        own, other = ("global", "local") if self.shared else ("local", "global")
        given = {"global": self.global_, "local": self.local}
        if given[own] is None:
            raise ValueError(f"type {self.type} needs {own}.rules")
        if given[other] is not None:
            raise ValueError(f"{other}: would be without effect beside type {self.type}")
        return self

    @property
    def shared(self) -> bool:
        """Whether all gateways count together."""
        return self.type is RateLimitType.GLOBAL

    @property
    def rules(self) -> tuple[RateLimitRule, ...]:
        """The rules of the type."""
        chosen = self.global_ if self.shared else self.local
        return chosen.rules if chosen is not None else ()


class BackendTrafficPolicySpec(Part):
    """What a policy asks for."""

    target_ref: PolicyTargetReference
    """The route whose calls the policy is about."""
    retry: Retry | None = None
    """When a failed call is tried again."""
    retry_constraint: RetryConstraint | None = None
    """A bound on all retries of the route together."""
    load_balancer: LoadBalancer | None = None
    """How an endpoint is chosen for a call."""
    connection_pool: ConnectionPool | None = None
    """Limits on connections and on calls that are open at a time."""
    circuit_breaker: CircuitBreaker | None = None
    """When endpoints are ejected for their failures."""
    timeout: Timeout | None = None
    """How long connections, calls and streams may take."""
    failover: Failover | None = None
    """Where traffic goes while its own region cannot take it."""
    health_check: HealthCheck | None = None
    """Probes of endpoints by the gateways."""
    rate_limit: RateLimit | None = None
    """How many calls are let through."""
    fault_injection: FaultInjection | None = None
    """Delays and refusals on purpose, for drills and tests."""


class BackendTrafficPolicy(ApiObject):
    """The federation's BackendTrafficPolicy."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "BackendTrafficPolicy"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1alpha3",)

    api_version: str = f"{GATEWAY_GROUP}/v1alpha3"
    kind: str = "BackendTrafficPolicy"
    spec: BackendTrafficPolicySpec
