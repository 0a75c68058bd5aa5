"""Prometheus metrics of the gateway, made from the core's counters when they are asked for.

Decides: names and labels. Labels are of the configuration (route, cluster, cluster_id, limit, gRPC
code), never of a request, so their number is bounded by it.
Leaves to others: counting (the core).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.status import State, Status

PREFIX = "federation_gateway"
_GAUGES = frozenset(
    {
        "downstream_connections",
        "calls_open",
        "upstream_connections",
        "passthrough_connections",
        "buffered_bytes",
    }
)


class GatewayCollector(Collector):
    """Reads counters and status at every scrape."""

    def __init__(
        self, stats: Callable[[], Mapping[str, Any]], status: Callable[[], Status]
    ) -> None:
        self._stats = stats
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        stats = self._stats()
        for name, value in stats.get("numbers", {}).items():
            kind = GaugeMetricFamily if name in _GAUGES else CounterMetricFamily
            yield kind(f"{PREFIX}_{name}", name.replace("_", " "), value=value)
        yield from _calls(stats)
        yield from _limits(stats)
        answered = CounterMetricFamily(
            f"{PREFIX}_answered", "calls answered by a member cluster", labels=["cluster_id"]
        )
        for cluster_id, count in stats.get("answered", {}).items():
            answered.add_metric([cluster_id], count)
        yield answered
        yield from _status(self._status())


def exposition(collector: GatewayCollector) -> bytes:
    """The text format that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _calls(stats: Mapping[str, Any]) -> Iterator[Metric]:
    labels = ["route", "cluster"]
    calls = CounterMetricFamily(
        f"{PREFIX}_calls", "finished calls by gRPC code", labels=[*labels, "grpc_code"]
    )
    duration = HistogramMetricFamily(
        f"{PREFIX}_call_duration_seconds", "duration of finished calls", labels=labels
    )
    bounds = [str(bound / 1000) for bound in stats.get("latency_bounds_ms", ())] + ["+Inf"]
    for entry in stats.get("calls", ()):
        where = [entry["route"], entry["cluster"]]
        for code, count in entry["codes"].items():
            calls.add_metric([*where, code], count)
        total = 0
        buckets = []
        for bound, count in zip(bounds, entry["latency"], strict=True):
            total += count
            buckets.append((bound, float(total)))
        duration.add_metric(where, buckets, entry["latency_us_sum"] / 1e6)
    yield calls
    yield duration


def _limits(stats: Mapping[str, Any]) -> Iterator[Metric]:
    prefix = f"{PREFIX}_rate_limit"
    counters = {
        "passed": "calls that a rate limit let pass",
        "refused": "calls that a rate limit refused",
        "shared_key": "calls counted together because a limit had too many distinct values",
    }
    limits = stats.get("rate_limits", ())
    for name, text in counters.items():
        counter = CounterMetricFamily(f"{prefix}_{name}", text, labels=["limit"])
        for entry in limits:
            counter.add_metric([entry["name"]], entry[name])
        yield counter
    share = GaugeMetricFamily(
        f"{prefix}_share_ratio", "this gateway's share of a global rate limit", labels=["limit"]
    )
    age = GaugeMetricFamily(
        f"{prefix}_share_age_seconds", "time since the agent set the share", labels=["limit"]
    )
    for entry in limits:
        if entry["global"]:
            share.add_metric([entry["name"]], entry["share_per_million"] / 1e6)
            if entry["share_age_ms"] is not None:
                age.add_metric([entry["name"]], entry["share_age_ms"] / 1e3)
    yield share
    yield age


def _status(status: Status) -> Iterator[Metric]:
    state = GaugeMetricFamily(f"{PREFIX}_state", "1 for the present state", labels=["state"])
    for candidate in State:
        state.add_metric([candidate], float(candidate is status.state))
    yield state
    yield GaugeMetricFamily(
        f"{PREFIX}_config_version", "changes applied since start", value=status.version
    )
    yield GaugeMetricFamily(
        f"{PREFIX}_config_age_seconds",
        "time since the agent last confirmed the configuration",
        value=status.age_s or 0.0,
    )
    yield GaugeMetricFamily(
        f"{PREFIX}_refused_resources", "resources refused now", value=len(status.refused)
    )
