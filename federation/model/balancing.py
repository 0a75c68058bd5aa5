"""How an upstream of the snapshot balances calls and takes out endpoints by their results.

Decides: the shape of these parts.
Leaves to others: how they follow from objects (``derive.compile``), their spelling (``wire.xds``).
Invariants: immutable; durations are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BalancingPolicy(StrEnum):
    """How an endpoint is chosen among those of a locality."""

    LEAST_REQUEST = "least_request"
    ROUND_ROBIN = "round_robin"
    PEAK_EWMA = "peak_ewma"
    RING_HASH = "ring_hash"
    MAGLEV = "maglev"


class HashSource(StrEnum):
    """Where a part of a call's key comes from."""

    HEADER = "header"
    COOKIE = "cookie"
    SOURCE_IP = "source"


@dataclass(frozen=True, slots=True)
class HashKey:
    """A part of a call's key; a header's ``name`` is in lower case, an address has none."""

    source: HashSource
    name: str = ""


@dataclass(frozen=True, slots=True)
class SlowStart:
    """New endpoints take ``min_percent`` of their share, growing to all of it in ``window_ms``."""

    window_ms: int
    min_percent: int = 10


@dataclass(frozen=True, slots=True)
class Balancing:
    """``hash_on`` and ``table_size`` (``None``: the data plane's own) are of hashing policies."""

    policy: BalancingPolicy = BalancingPolicy.LEAST_REQUEST
    hash_on: tuple[HashKey, ...] = ()
    table_size: int | None = None
    slow_start: SlowStart | None = None


DEFAULT_BALANCING = Balancing()
"""Of upstreams that no policy says anything about."""


@dataclass(frozen=True, slots=True)
class FailurePercentage:
    """Ejects at ``threshold_percent`` failures among at least ``request_volume`` results of an
    interval, in upstreams of at least ``minimum_hosts`` endpoints.
    """

    threshold_percent: int = 85
    request_volume: int = 50
    minimum_hosts: int = 5


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """Passive ejection; a ``None`` detector is switched off."""

    consecutive_failures: int | None = 5
    consecutive_gateway_failures: int | None = 5
    failure_percentage: FailurePercentage | None = None
    interval_ms: int = 10_000
    base_ejection_ms: int = 30_000
    max_ejection_ms: int = 300_000
    max_ejection_percent: int = 50
