"""Every metric of the gateway: name, kind, labels and meaning.

Decides: names and labels, for the scrape, the push by OTLP, the rules, the dashboards and the list
in the documentation alike. What is not here is not shown, and what is here always is (perhaps
without samples).
Leaves to others: where the numbers come from (``samples``), how they are written (``text``,
``otlp``), counting (the core).
Invariants: no label has a value that only a client thought up. Services and methods are those that
a route names or reflection knows, all others count as ``other``; every other label is of the
configuration or one of a few words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

PREFIX: Final = "federation_gateway_"

OTHER: Final = "other"
"""The value of labels that stand for everything without a place of its own."""


# `federation.telemetry.catalogue` has the same few fields: the gateway stands without `federation`,
# telemetry knows no `gateway`, and one small value is no reason for a third package in the wheel.
@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric family, by its name as Prometheus shows it."""

    name: str
    """Of a counter with ``_total``."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    """In the order in which samples give their values."""

    unit: str = ""
    """A base unit of Prometheus; empty for plain numbers."""


METHOD_LABELS: Final = ("grpc_service", "grpc_method", "grpc_type")
PLACE_LABELS: Final = (
    "source_cluster",
    "source_region",
    "destination_cluster",
    "destination_region",
)
_CALL = (*METHOD_LABELS, *PLACE_LABELS)
_RULE = ("route", "cluster")

STARTED: Final = MetricSpec(
    "grpc_server_started_total",
    "counter",
    "gRPC calls of clients that began, by where their first try went.",
    _CALL,
)
HANDLED: Final = MetricSpec(
    "grpc_server_handled_total",
    "counter",
    "gRPC calls of clients that ended, by code and by where their last try went.",
    (*_CALL, "grpc_code"),
)
HANDLING: Final = MetricSpec(
    "grpc_server_handling_seconds",
    "histogram",
    "Time from a call's headers to its end, as this gateway saw it.",
    _CALL,
    "seconds",
)
MSG_RECEIVED: Final = MetricSpec(
    "grpc_server_msg_received_total", "counter", "gRPC messages that clients sent.", _CALL
)
MSG_SENT: Final = MetricSpec(
    "grpc_server_msg_sent_total", "counter", "gRPC messages that clients were sent.", _CALL
)


def _counter(name: str, text: str, labels: tuple[str, ...] = (), unit: str = "") -> MetricSpec:
    return MetricSpec(f"{PREFIX}{name}_total", "counter", text, labels, unit)


def _gauge(name: str, text: str, labels: tuple[str, ...] = (), unit: str = "") -> MetricSpec:
    return MetricSpec(f"{PREFIX}{name}", "gauge", text, labels, unit)


PEER_CALLS: Final = _counter(
    "peer_calls",
    "Calls that gateways of other clusters sent here and that ended, by the cluster they stand in.",
    ("source_cluster", "grpc_code"),
)
CALLS: Final = _counter(
    "calls",
    "Requests of every kind that ended, by rule and backend; of HTTP as the gRPC code that fits.",
    (*_RULE, "grpc_code"),
)
CALL_DURATION: Final = MetricSpec(
    f"{PREFIX}call_duration_seconds",
    "histogram",
    "Duration of such requests, by rule and backend.",
    _RULE,
    "seconds",
)
TRIES: Final = _counter(
    "tries",
    "Tries that ended: ok, error (a status that is not OK), connect_failure, refused, reset, "
    "timeout, or abandoned (the call ended first).",
    ("outcome",),
)
RETRIES: Final = _counter(
    "retries",
    "Further tries: unprocessed (nothing had been processed, no policy is needed), or by the "
    "route's policy after error, connect_failure, refused, reset or timeout.",
    ("reason",),
)
EJECTIONS: Final = _counter(
    "ejections",
    "Endpoints taken out of balancing by outlier detection.",
    ("cluster", "reason"),
)
BREAKER_OPENED: Final = _counter(
    "circuit_breaker_open",
    "Times that a bound of a cluster was reached: max_connections, max_pending, max_requests or "
    "retry_budget.",
    ("cluster", "breaker"),
)
BREAKER_FULL: Final = _gauge(
    "circuit_breaker_full",
    "1 while a bound of a cluster is reached.",
    ("cluster", "breaker"),
)
PENDING: Final = _gauge("pending", "Calls that wait for a connection now.", ("cluster",))
RATE_LIMITED: Final = _counter("rate_limited", "Calls that a rate limit refused.", ("limit",))
LIMIT_PASSED: Final = _counter("rate_limit_passed", "Calls that a rate limit let pass.", ("limit",))
LIMIT_SHARED_KEY: Final = _counter(
    "rate_limit_shared_key",
    "Calls counted together because a limit had too many distinct values.",
    ("limit",),
)
LIMIT_SHARE: Final = _gauge(
    "rate_limit_share_ratio",
    "This gateway's share of a global rate limit.",
    ("limit",),
    "ratio",
)
LIMIT_SHARE_AGE: Final = _gauge(
    "rate_limit_share_age_seconds",
    "Time since the agent set the share of a global rate limit.",
    ("limit",),
    "seconds",
)
ACTIVE_TIER: Final = _gauge(
    "active_tier",
    "Lowest tier (priority) of a service that takes traffic from here now; -1 while none can.",
    ("service", "source_cluster"),
)
PANIC: Final = _gauge(
    "panic",
    "1 while too little of a service is healthy and health is ignored.",
    ("service", "source_cluster"),
)
DRAIN_STREAMS: Final = _gauge(
    "drain_streams", "Streams that are still on draining endpoints.", ("cluster",)
)
REGION_CALLS: Final = _counter(
    "region_calls",
    "Calls of clients that ended, by region of this gateway and of the endpoint.",
    ("source_region", "destination_region"),
)
REGION_BYTES: Final = _counter(
    "region_bytes",
    "Bytes of messages between regions for clients' calls; direction is request or response.",
    ("source_region", "destination_region", "direction"),
    "bytes",
)
HANDSHAKES: Final = _counter(
    "tls_handshakes",
    "TLS handshakes; side is client (of a listener) or peer (to another gateway), result ok, "
    "failed or timeout.",
    ("side", "result"),
)
CERTIFICATE_EXPIRY: Final = _gauge(
    "certificate_expiry_timestamp_seconds",
    "When the first certificate of a secret in force ends, in seconds since 1970.",
    ("secret",),
    "seconds",
)
ABUSE: Final = _counter(
    "protocol_abuse",
    "Connections or streams ended because the peer went over a limit against attacks.",
    ("kind",),
)
STATE: Final = _gauge("state", "1 for the present state.", ("state",))
CONFIG_VERSION: Final = _gauge("config_version", "Changes of configuration since the start.")
CONFIG_AGE: Final = _gauge(
    "config_age_seconds",
    "Time since the agent last confirmed the configuration.",
    unit="seconds",
)
REFUSED_RESOURCES: Final = _gauge("refused_resources", "Resources refused now.")
TELEMETRY_ITEMS: Final = _counter(
    "telemetry_items", "Spans and log records made for a collector.", ("collector", "kind")
)
TELEMETRY_DROPPED: Final = _counter(
    "telemetry_dropped",
    "Spans and log records that a collector did not get, since its queue was full.",
    ("collector", "kind"),
)
TELEMETRY_HOMELESS: Final = _counter(
    "telemetry_homeless",
    "Records and lines lost because more collectors and files are named than the core keeps (64).",
)
TELEMETRY_QUEUED: Final = _gauge(
    "telemetry_queued_bytes",
    "Bytes that wait for a collector.",
    ("collector", "kind"),
    "bytes",
)
TELEMETRY_SENT: Final = _counter(
    "telemetry_sent",
    "Spans and log records that a collector has taken.",
    ("collector", "kind"),
)
TELEMETRY_LOST: Final = _counter(
    "telemetry_lost",
    "Spans and log records that were taken from the core and did not reach their collector.",
    ("collector", "kind", "reason"),
)
TELEMETRY_WAITING: Final = _gauge(
    "telemetry_waiting_bytes", "Bytes that wait to be sent.", ("collector",), "bytes"
)
LOG_LINES: Final = _counter("access_log_lines", "Lines written to an access log.", ("file",))
LOG_DROPPED: Final = _counter(
    "access_log_dropped", "Lines that an access log did not get.", ("file",)
)
LOG_FAILING: Final = _gauge(
    "access_log_failing", "1 while an access log cannot be written.", ("file",)
)
TAP_DROPPED: Final = _counter(
    "tap_dropped", "Lines of taps that were not taken in time, or were over their rate."
)
SERIES: Final = _gauge("metric_series", "Series that are labelled by call or cluster now.")
SERIES_LIMITED: Final = _counter(
    "metric_series_limited",
    "Calls counted under labels that are all `other`, since there were too many series.",
)
CLUSTERS_LEFT_OUT: Final = _gauge(
    "metric_clusters_left_out",
    "Clusters without samples of their own in the families by cluster or service, since there were "
    "too many series.",
)
REFLECTION_LEFT_OUT: Final = _counter(
    "reflection_left_out", "Backends that reflection left out of an answer."
)

_GAUGES = {
    "downstream_connections": "Connections of clients that are open now.",
    "passthrough_connections": "Connections passed on without ending TLS that are open now.",
    "buffered_bytes": "Bytes held now that wait for a peer, or that another try may need.",
    "calls_open": "Calls that are open now.",
    "upstream_connections": "Connections to endpoints that are open now.",
}
_COUNTERS = {
    "downstream_accepted": "Connections of clients that were accepted.",
    "downstream_refused": "Connections closed at once because there were too many.",
    "accept_pauses": "Times that the system gave no connection and a listener paused.",
    "downstream_handshake_failures": "Connections of clients that failed before HTTP began.",
    "downstream_idle_closed": "Connections of clients that left because they had no call for long.",
    "downstream_aged": "Connections of clients asked to leave because of their age.",
    "downstream_cut_calls": "Calls ended because the grace of their old connection was over.",
    "passthrough_accepted": "Clients whose TLS is passed on, by server name.",
    "passthrough_unknown_names": "Clients that asked for a server name that nobody has here.",
    "passthrough_connect_failures": "Attempts to connect to an endpoint for them that failed.",
    "passthrough_failed": "Such clients closed because no endpoint could be reached.",
    "passthrough_idle_closed": "Such connections ended because nothing moved for long.",
    "passthrough_bytes_up": "Bytes passed on from clients without ending TLS.",
    "passthrough_bytes_down": "Bytes passed on to clients without ending TLS.",
    "http1_refused": "HTTP/1 requests answered that HTTP/2 is needed.",
    "protocol_errors": "Connections ended because the peer broke the protocol or a limit.",
    "streams_refused": "Streams of clients refused: too many, or after the last GOAWAY.",
    "stream_errors": "Streams of clients reset because they broke a rule.",
    "buffer_overflow_streams": "Streams ended because a worker held too much, theirs the most.",
    "buffer_overflow_connections": "Connections ended for the same reason.",
    "local_replies": "Calls answered by the gateway itself.",
    "calls_shed": "Calls turned away because a worker had more work than it can do.",
    "retries_shed": "Further tries left out for the same reason.",
    "connects": "Connections to endpoints that came up.",
    "connect_failures": "Attempts to connect to an endpoint that failed.",
    "descriptor_shortages": "Connections to endpoints that found no free descriptor.",
    "liveness_deaths": "Connections of either side declared dead by PING.",
    "retries_over_budget": "Tries that a policy would have allowed but the retry budget did not.",
    "pending_overflows": "Calls that failed because too many waited for a connection.",
    "request_overflows": "Calls that failed because too many of their cluster were open.",
    "faults_delayed": "Calls delayed on purpose.",
    "faults_aborted": "Calls refused on purpose.",
    "mirror_copies": "Copies of calls sent to mirrors.",
    "mirror_copies_dropped": "Copies given up: over a bound, or without an endpoint.",
    "mirror_copies_failed": "Copies that their endpoint refused or lost.",
    "deadlines_exceeded": "Deadlines that ended a call.",
    "drained_streams": "Streams ended because their endpoint's drain grace was over.",
    "trace_contexts_refused": "Callers' trace contexts that broke a rule and were not taken.",
    "panics": "Bugs met, each at the cost of a connection.",
}

PLAIN: Final = {
    **{key: _gauge(key, text) for key, text in _GAUGES.items()},
    **{key: _counter(key, text) for key, text in _COUNTERS.items()},
}
"""Numbers of the core without labels, by the core's word."""

_ABUSE = {
    "abuse_resets": "resets",
    "abuse_continuations": "continuations",
    "abuse_pings": "pings",
    "abuse_settings": "settings",
    "abuse_empty_data": "empty_data",
    "abuse_window_updates": "window_updates",
    "abuse_ignored": "ignored_frames",
    "abuse_unread_answers": "unread_answers",
    "downstream_ping_limit_ended": "ping_interval",
    "slow_headers_ended": "slow_headers",
    "header_lists_too_large": "header_list",
}
_OUTCOMES = ("connect_failure", "refused", "reset", "timeout")

LABELLED: Final[dict[str, tuple[MetricSpec, tuple[str, ...]]]] = {
    **{key: (ABUSE, (kind,)) for key, kind in _ABUSE.items()},
    **{f"tries_{word}": (TRIES, (word,)) for word in ("ok", "error", *_OUTCOMES, "abandoned")},
    **{f"retries_{word}": (RETRIES, (word,)) for word in ("error", *_OUTCOMES)},
    "transparent_retries": (RETRIES, ("unprocessed",)),
    **{
        f"tls_{side}_{result}": (HANDSHAKES, (side, result))
        for side in ("client", "peer")
        for result in ("ok", "failed", "timeout")
    },
    "series_limited": (SERIES_LIMITED, ()),
    "reflection_left_out": (REFLECTION_LEFT_OUT, ()),
}
"""Numbers of the core (and of reflection) that are one sample each of a family with labels."""

COUNTED_ELSEWHERE: Final = frozenset({"rate_limited", "upstream_tries", "retries", "ejections"})
"""Numbers of the core that families with labels show in more detail."""

CATALOGUE: Final[tuple[MetricSpec, ...]] = (
    STARTED,
    HANDLED,
    HANDLING,
    MSG_RECEIVED,
    MSG_SENT,
    PEER_CALLS,
    CALLS,
    CALL_DURATION,
    TRIES,
    RETRIES,
    EJECTIONS,
    BREAKER_OPENED,
    BREAKER_FULL,
    PENDING,
    RATE_LIMITED,
    LIMIT_PASSED,
    LIMIT_SHARED_KEY,
    LIMIT_SHARE,
    LIMIT_SHARE_AGE,
    ACTIVE_TIER,
    PANIC,
    DRAIN_STREAMS,
    REGION_CALLS,
    REGION_BYTES,
    HANDSHAKES,
    CERTIFICATE_EXPIRY,
    ABUSE,
    STATE,
    CONFIG_VERSION,
    CONFIG_AGE,
    REFUSED_RESOURCES,
    TELEMETRY_ITEMS,
    TELEMETRY_DROPPED,
    TELEMETRY_HOMELESS,
    TELEMETRY_QUEUED,
    TELEMETRY_SENT,
    TELEMETRY_LOST,
    TELEMETRY_WAITING,
    LOG_LINES,
    LOG_DROPPED,
    LOG_FAILING,
    TAP_DROPPED,
    SERIES,
    SERIES_LIMITED,
    CLUSTERS_LEFT_OUT,
    REFLECTION_LEFT_OUT,
    *PLAIN.values(),
)
