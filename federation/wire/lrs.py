"""Envoy's Load Reporting Service (``envoy.service.load_stats.v3``), read and answered.

Decides: which reports are of traffic that clients bring: clusters of imports and of own Services,
by the names that this federation gives them. What a peer's gateway hands over counts there, and
what is no traffic (collectors, agents) nowhere. A locality is a member cluster as in EDS.
Latencies come as metrics named by the upper bound of their bucket in microseconds
(``latency_us.5000``), which our gateways send and a stock Envoy does not.
Leaves to others: streams (``discovery.load_stats``), adding up (``derive.traffic``).
Invariants: what is not understood is passed over: a report is never refused for what is in it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import load_report_pb2
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf import json_format

from federation.derive.compile.upstreams import UpstreamKind
from federation.model.base import ClusterId, Region
from federation.model.load import FlowKey, FlowLoad, GatewayLoad
from federation.model.traffic_report import GatewayTraffic

SERVICE = "envoy.service.load_stats.v3.LoadReportingService"
METHOD = "StreamLoadStats"

LATENCY_METRIC = "latency_us."

FLOWS_MAX = 4_096
"""Flows of one gateway; more are added up as flows of no service."""


def asked(interval_ms: int) -> lrs_pb2.LoadStatsResponse:
    """What a gateway is asked for: reports of everything at this interval."""
    response = lrs_pb2.LoadStatsResponse(send_all_clusters=True)
    response.load_reporting_interval.FromMilliseconds(interval_ms)
    return response


def read_gateway(node: base_pb2.Node) -> GatewayTraffic:
    """What a node says about itself; a stock Envoy has a name alone."""
    said = json_format.MessageToDict(node.metadata).get("traffic")
    facts = said if isinstance(said, dict) else {}
    return GatewayTraffic(
        name=node.id,
        state=_text(facts, "state"),
        config_version=int(_number(facts, "config_version")),
        config_age_s=round(_number(facts, "config_age_s"), 1),
        calls_open=int(_number(facts, "calls_open")),
        connections=int(_number(facts, "connections")),
        admin=_text(facts, "admin"),
    )


def read_load(message: lrs_pb2.LoadStatsRequest, gateway: GatewayTraffic) -> GatewayLoad:
    """What ``gateway`` reports."""
    sums: dict[FlowKey, _Sum] = {}
    interval_ms = 1
    for stats in message.cluster_stats:
        interval = stats.load_report_interval
        interval_ms = max(interval_ms, interval.seconds * 1000 + interval.nanos // 1_000_000)
        identity = _service_of(stats.cluster_name)
        if identity is None:
            continue
        for locality in stats.upstream_locality_stats:
            _sum_at(sums, _key(identity, locality)).add(locality)
        if stats.total_dropped_requests:
            nowhere = FlowKey(*identity, ClusterId(""), Region(""))
            _sum_at(sums, nowhere).failed += stats.total_dropped_requests
    flows = {key: total.load() for key, total in sums.items()}
    return GatewayLoad(gateway, interval_ms, flows)


@dataclass(slots=True)
class _Sum:
    succeeded: int = 0
    failed: int = 0
    open: int = 0
    latencies: Counter[float] = field(default_factory=Counter)

    def add(self, stats: load_report_pb2.UpstreamLocalityStats) -> None:
        self.succeeded += stats.total_successful_requests
        self.failed += stats.total_error_requests
        self.open += stats.total_requests_in_progress
        for metric in stats.load_metric_stats:
            bound_us = metric.metric_name.removeprefix(LATENCY_METRIC)
            if bound_us != metric.metric_name and bound_us.isascii() and bound_us.isdigit():
                self.latencies[int(bound_us) / 1000] += metric.num_requests_finished_with_metric

    def load(self) -> FlowLoad:
        return FlowLoad(self.succeeded, self.failed, self.open, dict(self.latencies))


def _sum_at(sums: dict[FlowKey, _Sum], key: FlowKey) -> _Sum:
    if key not in sums and len(sums) >= FLOWS_MAX:
        key = FlowKey("", key.imported, key.to_cluster, key.to_region)
    return sums.setdefault(key, _Sum())


def _key(identity: tuple[str, bool], locality: load_report_pb2.UpstreamLocalityStats) -> FlowKey:
    place = locality.locality
    return FlowKey(
        *identity, ClusterId(place.zone or place.region), Region(place.region), locality.priority
    )


def _service_of(cluster: str) -> tuple[str, bool] | None:
    """Service and whether it is imported, by the name of an ``Upstream``; ``None``: no traffic of
    clients. A name that ends after the kind is of many services."""
    kind, _, path = cluster.partition("/")
    if kind not in (UpstreamKind.IMPORT, UpstreamKind.SERVICE):
        return None
    parts = path.split("/")
    service = f"{parts[0]}/{parts[1]}" if len(parts) > 2 else ""
    return service, kind == UpstreamKind.IMPORT


def _text(facts: dict[str, Any], name: str) -> str:
    value = facts.get(name)
    return value[:256] if isinstance(value, str) else ""


def _number(facts: dict[str, Any], name: str) -> float:
    value = facts.get(name)
    # A Struct carries every number as a double; it may be none at all.
    return value if isinstance(value, float | int) and 0 <= value < 2**53 else 0.0
