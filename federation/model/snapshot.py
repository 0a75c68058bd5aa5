"""The routing snapshot of one cluster: everything its gateways need, in our words, free of xDS.

Decides: the shape of compiled routing: listeners, route tables, upstreams, endpoints, secrets.
Leaves to others: how it follows from objects (``derive.compile``) and how it is spelled for the
gateways (``wire.xds``); a member cluster is called cluster, what Envoy calls a cluster is an
``Upstream``.
Invariants: immutable and self-consistent (every name that is referred to is there); sorted, so that
equal inputs give equal snapshots; routes stand in order of precedence, first match wins; priorities
of an endpoint set start at 0 and have no gaps; private keys never show in ``repr``.
"""

# style: longer than 400 lines, since one reads a snapshot's values together

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from federation.model.balancing import DEFAULT_BALANCING, Balancing, HashKey, OutlierDetection
from federation.model.base import ClusterId, Region
from federation.model.http import Cors, QueryMatch, Redirect, Rewrite
from federation.model.telemetry import RouteTracing, Telemetry
from federation.model.traffic import Fault, Mirror, RetryBudget, Session

MAX_WEIGHT = 1_000_000
"""Largest weight of one weighted destination (the Gateway API's bound of a backendRef's weight)."""


IDENTITY_SECRET = "federation/identity"  # noqa: S105 - the name of a secret, not one
"""A gateway's own certificate: a secret that each gateway brings along, not sent by the agent."""

TRUST_SECRET = "federation/trust-bundle"  # noqa: S105 - the name of a secret, not one
"""The clusterset's certificate authorities, brought along like the identity."""

DESTINATION_HEADER = "x-federation-destination"
"""Header that names to a peer's gateway the service meant: ``NAMESPACE/SERVICE:PORT``."""


class ListenerKind(StrEnum):
    """Whom a listener serves: clients, or the gateways of other clusters."""

    INGRESS = "ingress"
    EAST_WEST = "east_west"


@dataclass(frozen=True, slots=True)
class TlsTermination:
    """The gateway's side of TLS: ``certificates`` are names of secrets in the snapshot.

    Clients show certificates signed by the authorities of the secret ``client_ca`` (empty: they are
    asked for none); with ``client_optional`` everybody is let in all the same.
    """

    certificates: tuple[str, ...]
    client_ca: str = ""
    client_optional: bool = False


@dataclass(frozen=True, slots=True)
class PeerTls:
    """Mutual TLS between gateways with the gateway's own identity.

    ``allowed_spiffe`` are the identities accepted from the other side; ``sni`` is what a calling
    gateway asks for (empty on a listener).
    """

    allowed_spiffe: tuple[str, ...]
    sni: str = ""


@dataclass(frozen=True, slots=True)
class FilterChain:
    """One entrance of a listener, chosen by TLS server name; no ``hostnames``: any name or none.

    With ``passthrough`` connections go to these destinations by weight: with their TLS, or, where
    ``tls`` ends it here, what is in it.
    """

    name: str
    hostnames: tuple[str, ...] = ()
    tls: TlsTermination | PeerTls | None = None
    passthrough: tuple[Weighted, ...] = ()


@dataclass(frozen=True, slots=True)
class PingLimit:
    """PINGs of clients: the least time between two, whether also without calls, and how many early
    ones are forgiven."""

    min_interval_ms: int
    without_calls: bool
    strikes: int


@dataclass(frozen=True, slots=True)
class ConnectionLife:
    """How long clients' connections live; ``None`` sets no bound (``model.keepalive``)."""

    max_idle_ms: int | None = None
    max_age_ms: int | None = None
    max_age_grace_ms: int | None = None
    ping_after_ms: int | None = None
    ping_timeout_ms: int | None = None
    ping_limit: PingLimit | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that gateways open. All chains that do not pass TLS through share one route table,
    named ``route_table``.

    ``gateway`` is ``NAMESPACE/NAME`` of the Gateway that it belongs to, empty where it is none's;
    ``sections`` are the names of the Gateway's listeners that it serves; ``life`` bounds clients'
    connections. A ``plain`` one has no TLS, no calls and no table: its single chain passes on every
    connection, and none of the bytes is looked at. ``telemetry`` is what is told about calls.
    """

    name: str
    kind: ListenerKind
    port: int
    chains: tuple[FilterChain, ...]
    route_table: str
    gateway: str = ""
    sections: tuple[str, ...] = ()
    life: ConnectionLife | None = None
    plain: bool = False
    telemetry: Telemetry | None = None


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """Changes of headers: ``set`` overwrites, ``add`` appends, ``remove`` drops (lower case)."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to change."""
        return bool(self.set or self.add or self.remove)


NO_CHANGES = HeaderChanges()
"""Headers stay as they are."""


class MatchKind(StrEnum):
    """How a text is compared; ``REGEX`` is RE2 and matches the whole text.

    ``SEGMENTS`` is a prefix of a path by whole segments, without ``/`` at its end.
    """

    EXACT = "exact"
    PREFIX = "prefix"
    SEGMENTS = "segments"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """Match of the request path, ``/package.Service/Method``."""

    kind: MatchKind
    value: str


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """Match of one header, its name in lower case."""

    name: str
    kind: MatchKind
    value: str


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """What a route takes: path and all ``headers``; ``grpc`` asks for gRPC's content type.

    An empty ``method`` takes every one.
    """

    path: PathMatch
    headers: tuple[HeaderMatch, ...] = ()
    grpc: bool = True
    query: tuple[QueryMatch, ...] = ()
    method: str = ""


@dataclass(frozen=True, slots=True)
class Weighted:
    """A destination with its weight; weight 0 takes no new request but keeps open streams alive.

    Its ``mirrors`` come to those of the route, for the requests that it gets.
    """

    upstream: str
    weight: int
    request_headers: HeaderChanges = NO_CHANGES
    response_headers: HeaderChanges = NO_CHANGES
    mirrors: tuple[Mirror, ...] = ()


@dataclass(frozen=True, slots=True)
class Forward:
    """Send the request to one of ``destinations`` by weight; the weights' sum is above 0."""

    destinations: tuple[Weighted, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer at once with ``status`` of HTTP, to gRPC with what it means there (503: UNAVAILABLE);
    ``message`` says which rule and why.
    """

    message: str
    status: int = 503


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often to try again; ``attempts`` counts tries after the first.

    Without a ``budget`` only ``attempts`` bound retries.
    """

    on: tuple[str, ...]
    attempts: int
    base_ms: int
    max_ms: int
    http_codes: tuple[int, ...] = ()
    grpc_codes: tuple[int, ...] = ()
    per_try_timeout_ms: int | None = None
    budget: RetryBudget | None = None


class LimitUnit(StrEnum):
    """A unit of time."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        """Its length."""
        match self:
            case LimitUnit.SECOND:
                return 1
            case LimitUnit.MINUTE:
                return 60
            case LimitUnit.HOUR:
                return 3_600
            case LimitUnit.DAY:
                return 86_400


WHOLE_SHARE_PPM = 1_000_000
"""All of a limit, in parts per million."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``requests`` calls in a ``unit`` of those whose headers fit all of ``headers``.

    Each combination of values of the ``distinct`` headers (lower case; a call must have them all)
    is counted for itself. ``shared``: ``requests`` are for all gateways together; each has a share,
    ``first_share_ppm`` until it is told one. Routes that repeat a limit share it by its ``name``.
    """

    name: str
    requests: int
    unit: LimitUnit
    headers: tuple[HeaderMatch, ...] = ()
    distinct: tuple[str, ...] = ()
    shared: bool = False
    first_share_ppm: int = WHOLE_SHARE_PPM


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one call; ``None`` sets none. The caller's own deadline always holds."""

    request_ms: int | None = None
    max_stream_ms: int | None = None
    idle_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One match of one rule with its action. ``rule`` names the rule for people and access logs.

    ``reason`` is not empty where a part of the rule's requests is answered UNAVAILABLE because of
    an invalid reference; it says which and why.
    """

    name: str
    rule: str
    match: RouteMatch
    action: Forward | Refuse | Redirect
    request_headers: HeaderChanges = NO_CHANGES
    response_headers: HeaderChanges = NO_CHANGES
    timeouts: Timeouts = Timeouts()
    retry: Retry | None = None
    fault: Fault | None = None
    mirrors: tuple[Mirror, ...] = ()
    session: Session | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    hash_on: tuple[HashKey, ...] = ()
    rewrite: Rewrite | None = None
    cors: Cors | None = None
    tracing: RouteTracing | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """Routes of a host name: exact, ``*.suffix`` (one label or more), or ``*`` for all others."""

    hostname: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Virtual hosts of one listener, of distinct host names."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds towards one upstream; ``None`` leaves the gateway's own bound.

    ``retry_budget`` is for data planes that count retries by upstream; ours has it in ``Retry``.
    """

    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_requests: int | None = None
    retry_budget: RetryBudget | None = None


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Active gRPC health check; an empty ``service`` asks for the server as a whole.

    ``destination`` (empty: none) is sent as ``x-federation-destination``, so that a peer's gateway
    passes the check on to the servers behind it.
    """

    interval_ms: int
    timeout_ms: int
    unhealthy_threshold: int
    healthy_threshold: int
    service: str = ""
    destination: str = ""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Liveness of a connection: a PING every ``interval_ms``, dead ``timeout_ms`` without one."""

    interval_ms: int
    timeout_ms: int


class Protocol(StrEnum):
    """What endpoints speak: HTTP/2, without TLS by prior knowledge, HTTP/1.1, or anything over TCP.

    An upstream of ``TCP`` gets connections only, never calls.
    """

    HTTP1 = "http1"
    HTTP2 = "http2"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A group of endpoints under one set of rules.

    ``peer_tls`` and ``peer_keepalive`` hold for endpoints that are peers' gateways; ``peers_first``
    is whether the first priority consists of such. Servers of applications are not pinged: many
    close connections that ping them more often than they allow. ``protocol`` is what servers speak;
    gateways speak HTTP/2 to each other whatever it says. ``empty_status`` is what a request that is
    not gRPC is answered while there are no endpoints.
    """

    name: str
    connect_timeout_ms: int
    protocol: Protocol = Protocol.HTTP2
    balancing: Balancing = DEFAULT_BALANCING
    outlier: OutlierDetection | None = None
    limits: ConnectionLimits = ConnectionLimits()
    health_check: HealthCheck | None = None
    peer_tls: PeerTls | None = None
    peer_keepalive: Keepalive | None = None
    peers_first: bool = False
    empty_status: int = 503


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that serves; a ``peer`` is a gateway of another cluster, reached by mutual TLS.

    A ``draining`` endpoint gets no new call; its open streams end ``drain_grace_ms`` after the
    gateway learns of it (``None``: they may go on).
    """

    host: str
    port: int
    peer: bool = False
    draining: bool = False
    drain_grace_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LocalityEndpoints:
    """Endpoints of one member cluster at one priority, ``weight`` relative to the same priority."""

    cluster: ClusterId
    region: Region
    priority: int
    weight: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """The endpoints of the upstream of the same name."""

    upstream: str
    localities: tuple[LocalityEndpoints, ...]


@dataclass(frozen=True, slots=True)
class TlsSecret:
    """A certificate chain with its key, in PEM; never printed."""

    name: str
    certificate_pem: bytes = field(repr=False)
    private_key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CaSecret:
    """Authorities to check client certificates against, in PEM."""

    name: str
    ca_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the gateways of ``cluster`` route by, each part sorted by name."""

    cluster: ClusterId
    listeners: tuple[Listener, ...] = ()
    route_tables: tuple[RouteTable, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    endpoint_sets: tuple[EndpointSet, ...] = ()
    secrets: tuple[TlsSecret | CaSecret, ...] = ()
