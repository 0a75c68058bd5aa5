"""How a cluster chooses endpoints and takes them out by their results.

Decides: which of Envoy's balancing policies and detectors this gateway acts on, with the defaults
that xDS has.
Leaves to others: the rest of a cluster (``clusters``), the choice (the core).
Invariants: what a call is hashed on is read from the cluster's own metadata, so a hashing policy
without it is refused instead of being balanced by something else.
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2, outlier_detection_pb2

from gateway.xds_translate.fields import (
    UnsupportedFieldError,
    join,
    only,
    optional_ms,
    optional_value,
    own_metadata,
)

_Cluster = cluster_pb2.Cluster

_POLICIES = {
    _Cluster.ROUND_ROBIN: "round_robin",
    _Cluster.LEAST_REQUEST: "least_request",
    _Cluster.RING_HASH: "ring_hash",
    _Cluster.MAGLEV: "maglev",
}
_HASHING = frozenset({"ring_hash", "maglev"})

FIELDS = (
    "lb_policy",
    "least_request_lb_config",
    "round_robin_lb_config",
    "ring_hash_lb_config",
    "maglev_lb_config",
    "outlier_detection",
)
"""The fields of a cluster that are read here."""

_OWN = "metadata.federation.gateway"


def read_balancing(cluster: cluster_pb2.Cluster) -> dict[str, Any]:
    """The core's fields on balancing; those at its defaults are left out."""
    if cluster.lb_policy not in _POLICIES:
        raise UnsupportedFieldError(
            "lb_policy", "must be LEAST_REQUEST, ROUND_ROBIN, RING_HASH or MAGLEV"
        )
    policy = _POLICIES[cluster.lb_policy]
    own = own_metadata(cluster)
    match own.get("load_balancer"):
        case None:
            pass
        case "peak_ewma" if policy == "least_request":
            policy = "peak_ewma"
        case other:
            raise UnsupportedFieldError(
                join(_OWN, "load_balancer"),
                f"must be peak_ewma, with lb_policy LEAST_REQUEST, got {other!r}",
            )
    body: dict[str, Any] = {"lb": policy}
    if policy in _HASHING:
        body["hash_on"] = _hash_on(own.get("hash_on"))
    only(
        cluster.ring_hash_lb_config,
        "ring_hash_lb_config",
        reads=(),
        ignores=("minimum_ring_size", "maximum_ring_size", "hash_function"),
    )
    only(cluster.maglev_lb_config, "maglev_lb_config", reads=("table_size",))
    table_size = optional_value(cluster.maglev_lb_config, "table_size")
    if policy == "maglev" and table_size is not None:
        body["table_size"] = table_size
    slow_start = _slow_start(cluster)
    return body if slow_start is None else body | {"slow_start": slow_start}


def _hash_on(own: Any) -> list[dict[str, Any]]:
    path = join(_OWN, "hash_on")
    if own is None:
        raise UnsupportedFieldError(
            path, "must list what RING_HASH and MAGLEV hash: a route's hash_policy is not read"
        )
    entries = [dict(entry.items()) for entry in own]
    for index, entry in enumerate(entries):
        if len(entry) != 1 or not entry.keys() <= {"header", "cookie", "source"}:
            raise UnsupportedFieldError(
                f"{path}[{index}]", f"must be one of header, cookie and source, got {entry!r}"
            )
    return entries


def _slow_start(cluster: cluster_pb2.Cluster) -> dict[str, int] | None:
    only(
        cluster.least_request_lb_config,
        "least_request_lb_config",
        reads=("slow_start_config",),
        ignores=("choice_count", "active_request_bias"),
    )
    only(cluster.round_robin_lb_config, "round_robin_lb_config", reads=("slow_start_config",))
    holders = {
        _Cluster.LEAST_REQUEST: "least_request_lb_config",
        _Cluster.ROUND_ROBIN: "round_robin_lb_config",
    }
    holder = holders.get(cluster.lb_policy)
    if holder is None or not getattr(cluster, holder).HasField("slow_start_config"):
        return None
    path, config = join(holder, "slow_start_config"), getattr(cluster, holder).slow_start_config
    only(config, path, reads=("slow_start_window", "min_weight_percent"))
    window = optional_ms(config, "slow_start_window")
    if not window:
        raise UnsupportedFieldError(join(path, "slow_start_window"), "must be above zero")
    percent = optional_value(config, "min_weight_percent")
    return {"window_ms": window, "min_percent": 10 if percent is None else round(percent)}


def read_outlier(cluster: cluster_pb2.Cluster) -> dict[str, Any] | None:
    """Ejection; ``None`` when the cluster has none."""
    if not cluster.HasField("outlier_detection"):
        return None
    path, outlier = "outlier_detection", cluster.outlier_detection
    only(
        outlier,
        path,
        reads=(
            "consecutive_5xx",
            "consecutive_gateway_failure",
            "interval",
            "base_ejection_time",
            "max_ejection_time",
            "max_ejection_percent",
            "failure_percentage_threshold",
            "failure_percentage_request_volume",
            "failure_percentage_minimum_hosts",
            "enforcing_consecutive_5xx",
            "enforcing_consecutive_gateway_failure",
            "enforcing_success_rate",
            "enforcing_failure_percentage",
        ),
        # Local failures (connect, reset) are told apart by the core in any case.
        ignores=(
            "split_external_local_origin_errors",
            "consecutive_local_origin_failure",
            "enforcing_consecutive_local_origin_failure",
            "enforcing_local_origin_success_rate",
            "enforcing_failure_percentage_local_origin",
            "always_eject_one_host",
            "max_ejection_time_jitter",
        ),
    )
    base = optional_ms(outlier, "base_ejection_time") or 30_000
    longest = optional_ms(outlier, "max_ejection_time") or 300_000
    percent = optional_value(outlier, "max_ejection_percent")
    body = {
        "consecutive_failures": _detector(outlier, "consecutive_5xx", on_by_default=True),
        "consecutive_gateway_failures": _detector(
            outlier, "consecutive_gateway_failure", on_by_default=False
        ),
        "interval_ms": optional_ms(outlier, "interval") or 10_000,
        "base_ejection_ms": base,
        "max_ejection_ms": max(base, longest),
        "max_ejection_percent": 10 if percent is None else percent,
    }
    share = _failure_percentage(outlier)
    return body if share is None else body | {"failure_percentage": share}


def _failure_percentage(
    outlier: outlier_detection_pb2.OutlierDetection,
) -> dict[str, int] | None:
    if not _enforced(outlier, "failure_percentage", on_by_default=False):
        return None

    def given(name: str, default: int) -> int:
        value = optional_value(outlier, f"failure_percentage_{name}")
        return default if value is None else int(value)

    return {
        "threshold_percent": given("threshold", 85),
        "request_volume": given("request_volume", 50),
        "minimum_hosts": given("minimum_hosts", 5),
    }


def _detector(
    outlier: outlier_detection_pb2.OutlierDetection, name: str, *, on_by_default: bool
) -> int | None:
    """A detector's count, or ``None`` when it is switched off (enforced on 0 % of ejections)."""
    enforced = _enforced(outlier, name, on_by_default=on_by_default)
    count = optional_value(outlier, name)
    count = 5 if count is None else count
    return count if enforced and count else None


def _enforced(
    outlier: outlier_detection_pb2.OutlierDetection, name: str, *, on_by_default: bool
) -> bool:
    percent = optional_value(outlier, f"enforcing_{name}")
    if percent not in (None, 0, 100):
        raise UnsupportedFieldError(
            f"outlier_detection.enforcing_{name}", f"must be 0 or 100, got {percent}"
        )
    return on_by_default if percent is None else bool(percent)
