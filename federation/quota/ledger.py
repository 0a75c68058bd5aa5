"""The book of one cluster's shared limits: what each gateway was asked for, what it may let pass.

Decides: when a gateway still counts, how demand fades, which keys are named.
Leaves to others: the arithmetic of shares (``derive.quota``), streams and time (``service``).
Invariants: the shares of all gateways, those that vanished among them, are never more than the
cluster's part of a limit, and what one has used stays with it until it has flowed back; the number
of keys is bounded, except for those that a gateway that vanished may go on with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.derive.quota import divide, is_calm
from federation.model.quota import Assignment, Bucket, SharedLimit, Usage
from federation.quota.settings import QuotaSettings

_MILLI = 1_000


@dataclass(slots=True)
class _Demand:
    """Calls a second at a moment."""

    rate: float
    at_s: float

    def faded(self, now_s: float, half_life_s: float) -> float:
        return float(self.rate * 0.5 ** (max(0.0, now_s - self.at_s) / half_life_s))


@dataclass(slots=True)
class _Gateway:
    """``gone_s``: when it vanished. ``told`` is what it was told last. ``used``: calls that passed
    and have not flowed back, as they were at the last division."""

    gone_s: float | None = None
    used: dict[Bucket, float] = field(default_factory=dict)
    demand: dict[Bucket, _Demand] = field(default_factory=dict)
    shares: dict[Bucket, int] = field(default_factory=dict)
    told: dict[Bucket, int] = field(default_factory=dict)


class Ledger:
    """Owned by one task; told the time."""

    def __init__(self, settings: QuotaSettings) -> None:
        self._settings = settings
        self._limits: Mapping[str, SharedLimit] = {}
        self._gateways: dict[str, _Gateway] = {}
        self._parts: Mapping[Bucket, int] | None = None
        self._divided_s: float | None = None

    def __repr__(self) -> str:
        return f"Ledger(limits={len(self._limits)}, gateways={sorted(self._gateways)})"

    @property
    def limits(self) -> Mapping[str, SharedLimit]:
        """What is divided, by name."""
        return self._limits

    def set_limits(self, limits: Iterable[SharedLimit]) -> None:
        """Divide these from now on."""
        self._limits = {limit.name: limit for limit in limits}
        for gateway in self._gateways.values():
            gateway.demand = {b: d for b, d in gateway.demand.items() if b.limit in self._limits}
            gateway.used = {b: used for b, used in gateway.used.items() if b.limit in self._limits}

    def set_parts(self, parts: Mapping[Bucket, int] | None) -> None:
        """What this cluster has of each bucket; ``None``: all. A bucket that is not named has what
        its limit has."""
        self._parts = parts

    def join(self, gateway: str) -> None:
        """A gateway is here; it is told all its shares anew, and says what it has used."""
        known = self._gateways.setdefault(gateway, _Gateway())
        known.gone_s = None
        known.told, known.used = {}, {}

    def leave(self, gateway: str) -> None:
        """A gateway took its leave: its shares are the others'."""
        self._gateways.pop(gateway, None)

    def vanish(self, gateway: str, now_s: float) -> None:
        """A gateway was lost; it may go on."""
        if (known := self._gateways.get(gateway)) is not None:
            known.gone_s = now_s
            known.demand = {}

    def report(self, gateway: str, usages: Iterable[Usage], now_s: float) -> None:
        """What was asked of a gateway. Buckets of unknown limits are passed over."""
        known_gateway = self._gateways.get(gateway)
        if known_gateway is None:
            return
        demand, used = known_gateway.demand, known_gateway.used
        for usage in usages:
            limit = self._limits.get(usage.bucket.limit)
            if limit is None or bool(usage.bucket.key) != limit.keyed:
                continue
            if not usage.elapsed_ms:
                used[usage.bucket] = usage.passed
                continue
            if usage.passed:
                used[usage.bucket] = used.get(usage.bucket, 0) + usage.passed
            rate = (usage.passed + usage.refused) * _MILLI / max(1, usage.elapsed_ms)
            known = demand.get(usage.bucket)
            faded = known.faded(now_s, self._settings.half_life_s) if known is not None else 0.0
            demand[usage.bucket] = _Demand(max(rate, faded), now_s)

    def demand(self, now_s: float) -> dict[Bucket, int]:
        """What all gateways together are asked for, in thousandths of a call a second."""
        total: dict[Bucket, int] = {}
        for gateway in self._gateways.values():
            for bucket, rate in self._rates(gateway, now_s).items():
                total[bucket] = total.get(bucket, 0) + rate
        return _most_wanted(total, self._settings.keys_max)

    def used(self) -> dict[Bucket, int]:
        """What all gateways together have used, as it was at the last division."""
        total: dict[Bucket, float] = {}
        for gateway in self._gateways.values():
            for bucket, used in gateway.used.items():
                total[bucket] = total.get(bucket, 0) + used
        rounded = {bucket: math.ceil(used) for bucket, used in total.items()}
        return _most_wanted(rounded, self._settings.keys_max)

    def divide(self, now_s: float) -> None:
        """Bring the shares to what is asked for now."""
        self._flow_back(now_s)
        hold_s = self._settings.hold_s
        for name, gateway in list(self._gateways.items()):
            if gateway.gone_s is not None and now_s - gateway.gone_s >= hold_s:
                del self._gateways[name]
        rates = {name: self._rates(it, now_s) for name, it in self._gateways.items()}
        named = {b for b in self.demand(now_s) if b.key} | self._overdrawn()
        # Of a key that another cluster is asked for this one has less than an even part.
        named.update(b for b in self._parts or () if b.key and b.limit in self._limits)
        for gateway in self._gateways.values():
            if gateway.gone_s is not None:
                # It may go on with a share of a key that nobody else asks for.
                named.update(b for b in gateway.shares if b.key)
        before = {name: gateway.shares for name, gateway in self._gateways.items()}
        for gateway in self._gateways.values():
            if gateway.gone_s is None:
                gateway.shares = {}
        for limit in self._limits.values():
            keys = sorted(bucket for bucket in named if bucket.limit == limit.name)
            self._share_out(Bucket(limit.name), {} if limit.keyed else rates, before)
            for bucket in keys:
                self._share_out(bucket, rates, before)

    def news(self, gateway: str) -> list[Assignment]:
        """What a gateway has to be told, and now counts as told."""
        known = self._gateways[gateway]
        changed = [
            Assignment(bucket, share)
            for bucket, share in known.shares.items()
            if known.told.get(bucket) != share
        ]
        unnamed = [Assignment(b, None) for b in known.told if b not in known.shares]
        known.told = dict(known.shares)
        return [*changed, *unnamed]

    def _share_out(
        self,
        bucket: Bucket,
        rates: Mapping[str, Mapping[Bucket, int]],
        before: Mapping[str, Mapping[Bucket, int]],
    ) -> None:
        limit = self._limits[bucket.limit]
        here = [name for name, gateway in self._gateways.items() if gateway.gone_s is None]
        held = sum(
            gateway.shares.get(bucket, gateway.shares.get(Bucket(limit.name), 0))
            for gateway in self._gateways.values()
            if gateway.gone_s is not None
        )
        part = max(0, self._part(bucket) - held)
        asked = {name: rates.get(name, {}).get(bucket, 0) for name in here}
        shares = {name: before[name][bucket] for name in here if bucket in before[name]}
        if not is_calm(part, shares, divide(part, asked)):
            used = {name: math.ceil(self._gateways[name].used.get(bucket, 0)) for name in here}
            shares = divide(part, asked, used)
        for name, share in shares.items():
            self._gateways[name].shares[bucket] = share

    def _flow_back(self, now_s: float) -> None:
        """Bring what was used to now: each share flows back once in the limit's unit."""
        elapsed_s = now_s - (now_s if self._divided_s is None else self._divided_s)
        self._divided_s = now_s
        for gateway in self._gateways.values():
            left: dict[Bucket, float] = {}
            for bucket, used in gateway.used.items():
                share = gateway.shares.get(bucket, gateway.shares.get(Bucket(bucket.limit), 0))
                rest = used - share * elapsed_s / self._limits[bucket.limit].unit.seconds
                if rest > 0:
                    left[bucket] = rest
            if len(left) > self._settings.used_max:
                most = sorted(left, key=lambda bucket: (-left[bucket], bucket))
                left = {bucket: left[bucket] for bucket in most[: self._settings.used_max]}
            gateway.used = left

    def _overdrawn(self) -> set[Bucket]:
        """Keys of which a gateway has used more than it would have if they were not named; as many
        of each limit as may be named, those overdrawn most."""
        over: dict[Bucket, int] = {}
        for gateway in self._gateways.values():
            for bucket, used in gateway.used.items():
                even = gateway.shares.get(Bucket(bucket.limit), 0)
                if bucket.key and used > even:
                    over[bucket] = max(over.get(bucket, 0), int(used - even) + 1)
        return set(_most_wanted(over, self._settings.keys_max))

    def _part(self, bucket: Bucket) -> int:
        whole = self._limits[bucket.limit].requests
        if self._parts is None:
            return whole
        return min(whole, self._parts.get(bucket, self._parts.get(Bucket(bucket.limit), whole)))

    def _rates(self, gateway: _Gateway, now_s: float) -> dict[Bucket, int]:
        """In thousandths; what has faded to nothing is forgotten."""
        half_life_s = self._settings.half_life_s
        rates = {
            bucket: int(demand.faded(now_s, half_life_s) * _MILLI)
            for bucket, demand in gateway.demand.items()
        }
        gateway.demand = {b: d for b, d in gateway.demand.items() if rates[b]}
        return {bucket: rate for bucket, rate in rates.items() if rate}


def _most_wanted(demand: Mapping[Bucket, int], keys_max: int) -> dict[Bucket, int]:
    """``demand`` without the keys of each limit that are too many, those asked for least."""
    by_limit: dict[str, list[Bucket]] = {}
    for bucket in demand:
        if bucket.key:
            by_limit.setdefault(bucket.limit, []).append(bucket)
    dropped: set[Bucket] = set()
    for keys in by_limit.values():
        if len(keys) > keys_max:
            dropped.update(sorted(keys, key=lambda key: (-demand[key], key))[keys_max:])
    return {bucket: rate for bucket, rate in demand.items() if bucket not in dropped}
