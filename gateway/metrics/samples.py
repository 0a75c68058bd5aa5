"""The samples of every family, from the core's counters and the gateway's state.

Decides: which number is a sample of which family, and the spelling of label values.
Leaves to others: names (``catalogue``), forms (``text``, ``otlp``).
Invariants: one family for each entry of the catalogue, in its order; a number that the core does
not give yet leaves its family without samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.metrics import catalogue as c
from gateway.metrics.catalogue import CATALOGUE, MetricSpec
from gateway.status import State, Status

Stats = Mapping[str, Any]

CODE_NAMES: Final = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
"""gRPC codes as grpc-go spells them, and with it go-grpc-prometheus; the position is the number."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram's state: ``counts`` has one more entry than ``bounds``, for what is above."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True)
class Point:
    """One sample: values of the family's labels in their order, and the number."""

    labels: tuple[str, ...]
    value: float | Distribution


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one metric."""

    spec: MetricSpec
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the gateway knew at one moment."""

    stats: Stats
    status: Status
    certificates: Mapping[str, float]
    """When the first certificate of a secret in force ends, in Unix seconds, by its name."""


def families(reading: Reading) -> list[Family]:
    """Every family of the catalogue with the samples of the moment."""
    points: dict[str, list[Point]] = {spec.name: [] for spec in CATALOGUE}
    for source in _SOURCES:
        for spec, labels, value in source(reading):
            points[spec.name].append(Point(labels, value))
    return [Family(spec, tuple(points[spec.name])) for spec in CATALOGUE]


def code_name(code: str) -> str:
    """The name of a code's number; codes that gRPC does not have are ``other``."""
    return CODE_NAMES[int(code)] if code.isdigit() and int(code) < len(CODE_NAMES) else c.OTHER


_Samples = Iterator[tuple[MetricSpec, tuple[str, ...], "float | Distribution"]]


def _numbers(reading: Reading) -> _Samples:
    numbers: Mapping[str, int] = reading.stats.get("numbers", {})
    for key, value in numbers.items():
        if key in c.PLAIN:
            yield c.PLAIN[key], (), value
        elif key in c.LABELLED:
            spec, labels = c.LABELLED[key]
            yield spec, labels, value


def _calls(reading: Reading) -> _Samples:
    stats = reading.stats
    bounds = tuple(bound / 1000 for bound in stats.get("latency_bounds_ms", ()))
    for entry in stats.get("rpc", ()):
        labels = (
            entry["service"],
            entry["method"],
            entry["type"],
            *_source(reading),
            entry["destination_cluster"],
            entry["destination_region"],
        )
        yield c.STARTED, labels, entry["started"]
        yield c.MSG_RECEIVED, labels, entry["msg_received"]
        yield c.MSG_SENT, labels, entry["msg_sent"]
        yield c.HANDLING, labels, _distribution(bounds, entry)
        yield from _by_code(c.HANDLED, labels, entry["codes"])
    for entry in stats.get("calls", ()):
        rule = (entry["route"], entry["cluster"])
        yield c.CALL_DURATION, rule, _distribution(bounds, entry)
        yield from _by_code(c.CALLS, rule, entry["codes"])
    for entry in stats.get("peer_calls", ()):
        yield from _by_code(c.PEER_CALLS, (entry["source_cluster"],), entry["codes"])


def _distribution(bounds: tuple[float, ...], entry: Mapping[str, Any]) -> Distribution:
    return Distribution(bounds, tuple(entry["latency"]), entry["latency_us_sum"] / 1e6)


def _by_code(spec: MetricSpec, labels: tuple[str, ...], codes: Mapping[str, int]) -> _Samples:
    for code, count in codes.items():
        yield spec, (*labels, code_name(code)), count


def _source(reading: Reading) -> tuple[str, str]:
    return reading.status.cluster, reading.status.region


def _regions(reading: Reading) -> _Samples:
    _, here = _source(reading)
    for entry in reading.stats.get("regions", ()):
        pair = (here, entry["region"])
        yield c.REGION_CALLS, pair, entry["calls"]
        yield c.REGION_BYTES, (*pair, "request"), entry["request_bytes"]
        yield c.REGION_BYTES, (*pair, "response"), entry["response_bytes"]


def _clusters(reading: Reading) -> _Samples:
    here, _ = _source(reading)
    for entry in reading.stats.get("clusters", ()):
        name = entry["name"]
        yield c.ACTIVE_TIER, (name, here), entry["tier"]
        yield c.PANIC, (name, here), entry["panic"]
        yield c.PENDING, (name,), entry["pending"]
        yield c.DRAIN_STREAMS, (name,), entry["drain_streams"]
        for reason, count in entry["ejections"].items():
            yield c.EJECTIONS, (name, reason), count
        for breaker, state in entry["breakers"].items():
            yield c.BREAKER_OPENED, (name, breaker), state["opened"]
            yield c.BREAKER_FULL, (name, breaker), state["full"]


def _limits(reading: Reading) -> _Samples:
    for entry in reading.stats.get("rate_limits", ()):
        limit = (entry["name"],)
        yield c.LIMIT_PASSED, limit, entry["passed"]
        yield c.RATE_LIMITED, limit, entry["refused"]
        yield c.LIMIT_SHARED_KEY, limit, entry["shared_key"]
        if entry["global"]:
            yield c.LIMIT_SHARE, limit, entry["share_per_million"] / 1e6
            if entry["share_age_ms"] is not None:
                yield c.LIMIT_SHARE_AGE, limit, entry["share_age_ms"] / 1e3


def _telemetry(reading: Reading) -> _Samples:
    for entry in reading.stats.get("telemetry", ()):
        if "file" in entry:
            file = (entry["file"],)
            yield c.LOG_LINES, file, entry["lines"]
            yield c.LOG_DROPPED, file, entry["dropped"]
            yield c.LOG_FAILING, file, entry["failing"] is not None
        else:
            queue = (entry["collector"], entry["kind"])
            yield c.TELEMETRY_ITEMS, queue, entry["items"]
            yield c.TELEMETRY_DROPPED, queue, entry["dropped"]
            yield c.TELEMETRY_QUEUED, queue, entry["queued_bytes"]
    if "telemetry_homeless" in reading.stats:
        yield c.TELEMETRY_HOMELESS, (), reading.stats["telemetry_homeless"]
    if "tap" in reading.stats:
        yield c.TAP_DROPPED, (), reading.stats["tap"]["dropped"]


def _exports(reading: Reading) -> _Samples:
    for entry in reading.stats.get("exports", ()):
        collector = entry["collector"]
        yield c.TELEMETRY_WAITING, (collector,), entry["queued_bytes"]
        for kind, items in entry["sent"].items():
            yield c.TELEMETRY_SENT, (collector, kind), items
        for kind, reasons in entry["dropped"].items():
            for reason, items in reasons.items():
                yield c.TELEMETRY_LOST, (collector, kind, reason), items


def _own(reading: Reading) -> _Samples:
    status = reading.status
    for candidate in State:
        yield c.STATE, (str(candidate),), candidate is status.state
    yield c.CONFIG_VERSION, (), status.version
    yield c.CONFIG_AGE, (), status.age_s or 0.0
    yield c.REFUSED_RESOURCES, (), len(status.refused)
    for secret, ends_s in reading.certificates.items():
        yield c.CERTIFICATE_EXPIRY, (secret,), ends_s
    series = reading.stats.get("series", {})
    for spec, key in (
        (c.SERIES, "used"),
        (c.CLUSTERS_LEFT_OUT, "clusters_left_out"),
    ):
        if key in series:
            yield spec, (), series[key]


_SOURCES: Sequence[Callable[[Reading], Iterable[Any]]] = (
    _calls,
    _regions,
    _clusters,
    _limits,
    _telemetry,
    _exports,
    _own,
    _numbers,
)
