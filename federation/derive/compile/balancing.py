"""What a policy says about balancing and ejection, as settings of its upstreams.

Decides: defaults field by field.
Leaves to others: which policy holds a route (``policies``), spelling (``wire.xds_balancing``).
Invariants: pure; without a policy upstreams have the defaults of ``model.balancing``.
"""

from __future__ import annotations

from federation.model.balancing import (
    DEFAULT_BALANCING,
    Balancing,
    BalancingPolicy,
    FailurePercentage,
    HashKey,
    HashSource,
    OutlierDetection,
    SlowStart,
)
from federation.model.objects import (
    BackendTrafficPolicy,
    CircuitBreaker,
    ConsistentHash,
    HashAlgorithm,
    LoadBalancerType,
)

DEFAULT_OUTLIER = OutlierDetection()

_POLICIES = {
    LoadBalancerType.LEAST_REQUEST: BalancingPolicy.LEAST_REQUEST,
    LoadBalancerType.ROUND_ROBIN: BalancingPolicy.ROUND_ROBIN,
    LoadBalancerType.PEAK_EWMA: BalancingPolicy.PEAK_EWMA,
}
_ALGORITHMS = {
    HashAlgorithm.MAGLEV: BalancingPolicy.MAGLEV,
    HashAlgorithm.RING_HASH: BalancingPolicy.RING_HASH,
}


def balancing_of(policy: BackendTrafficPolicy | None) -> Balancing:
    """How endpoints are chosen."""
    spec = policy.spec.load_balancer if policy is not None else None
    if spec is None:
        return DEFAULT_BALANCING
    if spec.consistent_hash is not None:
        return Balancing(
            policy=_ALGORITHMS[spec.consistent_hash.algorithm],
            hash_on=_keys(spec.consistent_hash),
            table_size=spec.consistent_hash.table_size,
        )
    slow = spec.slow_start
    return Balancing(
        policy=_POLICIES[spec.type],
        slow_start=SlowStart(slow.window_ms, slow.min_weight_percent) if slow is not None else None,
    )


def _keys(spec: ConsistentHash) -> tuple[HashKey, ...]:
    headers = [*spec.headers, *([spec.header] if spec.header is not None else [])]
    if headers:
        names = dict.fromkeys(header.name.lower() for header in headers)
        return tuple(HashKey(HashSource.HEADER, name) for name in names)
    if spec.cookie is not None:
        return (HashKey(HashSource.COOKIE, spec.cookie.name),)
    return (HashKey(HashSource.SOURCE_IP),)


def outlier_of(policy: BackendTrafficPolicy | None) -> OutlierDetection:
    """When endpoints are ejected; a policy changes the defaults field by field."""
    spec = policy.spec.circuit_breaker if policy is not None else None
    return DEFAULT_OUTLIER if spec is None else _outlier(spec)


def _outlier(spec: CircuitBreaker) -> OutlierDetection:
    default = DEFAULT_OUTLIER
    base_ms = spec.base_ejection_time_ms or default.base_ejection_ms
    percent = spec.max_ejection_percent
    share = spec.failure_percentage
    return OutlierDetection(
        consecutive_failures=spec.consecutive_failures or default.consecutive_failures,
        consecutive_gateway_failures=(
            spec.consecutive_gateway_failures or default.consecutive_gateway_failures
        ),
        failure_percentage=FailurePercentage(
            share.threshold, share.request_volume, share.minimum_hosts
        )
        if share is not None
        else None,
        interval_ms=spec.interval_ms or default.interval_ms,
        base_ejection_ms=base_ms,
        max_ejection_ms=spec.max_ejection_time_ms or max(default.max_ejection_ms, base_ms),
        max_ejection_percent=default.max_ejection_percent if percent is None else percent,
    )
