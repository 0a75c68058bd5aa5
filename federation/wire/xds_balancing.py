"""Balancing and ejection of clusters (CDS), and the keys that routes (RDS) hash, as Envoy has them.

Decides: their spelling.
Leaves to others: the numbers (``derive.compile``), the rest of a cluster (``xds_clusters``).
Invariants: Envoy reads keys from routes, our gateway from the cluster's metadata, so both are
written; peak EWMA is none of Envoy's own policies: a stock Envoy balances by open requests instead.
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2, outlier_detection_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import wrappers_pb2

from federation.model.balancing import (
    Balancing,
    BalancingPolicy,
    HashKey,
    HashSource,
    OutlierDetection,
    SlowStart,
)
from federation.wire.xds_values import duration

_Cluster = cluster_pb2.Cluster
_HashPolicy = route_components_pb2.RouteAction.HashPolicy

_POLICIES = {
    BalancingPolicy.LEAST_REQUEST: _Cluster.LEAST_REQUEST,
    BalancingPolicy.ROUND_ROBIN: _Cluster.ROUND_ROBIN,
    BalancingPolicy.PEAK_EWMA: _Cluster.LEAST_REQUEST,
    BalancingPolicy.RING_HASH: _Cluster.RING_HASH,
    BalancingPolicy.MAGLEV: _Cluster.MAGLEV,
}


def set_balancing(message: cluster_pb2.Cluster, balancing: Balancing) -> None:
    """Have ``message`` balance as asked."""
    message.lb_policy = _POLICIES[balancing.policy]
    if balancing.table_size is not None:
        message.maglev_lb_config.table_size.value = balancing.table_size
    if balancing.slow_start is not None:
        by_turn = balancing.policy is BalancingPolicy.ROUND_ROBIN
        config = message.round_robin_lb_config if by_turn else message.least_request_lb_config
        config.slow_start_config.CopyFrom(_slow_start(balancing.slow_start))


def _slow_start(slow: SlowStart) -> cluster_pb2.Cluster.SlowStartConfig:
    return _Cluster.SlowStartConfig(
        slow_start_window=duration(slow.window_ms),
        min_weight_percent=percent_pb2.Percent(value=slow.min_percent),
    )


def balancing_notes(balancing: Balancing) -> dict[str, Any]:
    """What of it stands in the cluster's metadata."""
    notes: dict[str, Any] = {}
    if balancing.policy is BalancingPolicy.PEAK_EWMA:
        notes["load_balancer"] = balancing.policy.value
    if balancing.hash_on:
        notes["hash_on"] = [
            {key.source.value: True if key.source is HashSource.SOURCE_IP else key.name}
            for key in balancing.hash_on
        ]
    return notes


def hash_policies(keys: tuple[HashKey, ...]) -> list[route_components_pb2.RouteAction.HashPolicy]:
    """The keys of a route's calls; Envoy joins those that a call has, as our gateway does."""
    return [_hash_policy(key) for key in keys]


def _hash_policy(key: HashKey) -> route_components_pb2.RouteAction.HashPolicy:
    match key.source:
        case HashSource.HEADER:
            return _HashPolicy(header=_HashPolicy.Header(header_name=key.name))
        case HashSource.COOKIE:
            return _HashPolicy(cookie=_HashPolicy.Cookie(name=key.name))
        case HashSource.SOURCE_IP:
            properties = _HashPolicy.ConnectionProperties(source_ip=True)
            return _HashPolicy(connection_properties=properties)


def outlier_detection(outlier: OutlierDetection) -> outlier_detection_pb2.OutlierDetection:
    """Ejection; what is not asked for is switched off, since Envoy's defaults switch it on."""

    def count(value: int | None) -> wrappers_pb2.UInt32Value:
        return wrappers_pb2.UInt32Value(value=value or 0)

    def enforced(asked: object) -> wrappers_pb2.UInt32Value:
        return wrappers_pb2.UInt32Value(value=0 if asked is None else 100)

    message = outlier_detection_pb2.OutlierDetection(
        consecutive_5xx=count(outlier.consecutive_failures),
        enforcing_consecutive_5xx=enforced(outlier.consecutive_failures),
        consecutive_gateway_failure=count(outlier.consecutive_gateway_failures),
        enforcing_consecutive_gateway_failure=enforced(outlier.consecutive_gateway_failures),
        enforcing_success_rate=wrappers_pb2.UInt32Value(value=0),
        enforcing_failure_percentage=enforced(outlier.failure_percentage),
        interval=duration(outlier.interval_ms),
        base_ejection_time=duration(outlier.base_ejection_ms),
        max_ejection_time=duration(outlier.max_ejection_ms),
        max_ejection_percent=wrappers_pb2.UInt32Value(value=outlier.max_ejection_percent),
    )
    if (share := outlier.failure_percentage) is not None:
        message.failure_percentage_threshold.value = share.threshold_percent
        message.failure_percentage_request_volume.value = share.request_volume
        message.failure_percentage_minimum_hosts.value = share.minimum_hosts
    return message
