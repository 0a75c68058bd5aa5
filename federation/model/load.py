"""Load as one gateway reports it: counts of one interval, before anything is added up.

Decides: what a gateway tells, and the buckets that latencies are counted in.
Leaves to others: the protocol (``wire.lrs``), adding up (``derive.traffic``).
Invariants: counts are of one interval and never negative; ``open`` is of its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.model.base import ClusterId, Region
from federation.model.traffic_report import GatewayTraffic


@dataclass(frozen=True, slots=True, order=True)
class FlowKey:
    """What tells the flows of a gateway apart; the fields are those of a ``Flow``."""

    service: str
    imported: bool
    to_cluster: ClusterId
    to_region: Region
    tier: int = 0


@dataclass(frozen=True, slots=True)
class FlowLoad:
    """Tries of one flow. ``latencies`` counts those that ended, by the upper bound of their bucket
    in milliseconds; it may count fewer than ended (a stock Envoy tells none)."""

    succeeded: int = 0
    failed: int = 0
    open: int = 0
    latencies: Mapping[float, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """One gateway's newest report; ``interval_ms`` is the time that its counts are of."""

    gateway: GatewayTraffic
    interval_ms: int
    flows: Mapping[FlowKey, FlowLoad] = field(default_factory=dict)
