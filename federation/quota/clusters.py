"""A limit over clusters: what each cluster has of it, from what all wrote on the board.

Decides: the own cluster's parts. Every agent reads the same pages and divides alike, so that the
parts of all clusters are never more than the limit, without anyone in the lead.
Leaves to others: the arithmetic (``derive.quota``), the board (a ``QuotaBoard``).
Invariants: without a page that has this cluster's own entry its parts stay as they are; a cluster
that is missing keeps its part for a while, since it may go on with it.
"""

from __future__ import annotations

from collections.abc import Mapping

from federation.derive.quota import divide, is_calm
from federation.model.quota import Bucket, Claim, SharedLimit
from federation.quota.settings import QuotaSettings
from federation.wire import quota_board
from federation.wire.quota_board import Entry

_NOTHING = Claim()


class ClusterParts:
    """Owned by one task; told the time."""

    def __init__(self, settings: QuotaSettings, *, cluster: str) -> None:
        self._settings = settings
        self._cluster = cluster
        self._seen: dict[str, tuple[float, Entry]] = {}
        self._parts: dict[Bucket, int] = {}

    @property
    def parts(self) -> Mapping[Bucket, int]:
        """What this cluster has; of a key that is not named, what it has of the limit."""
        return self._parts

    def begin(self, limits: Mapping[str, SharedLimit], clusters: int) -> None:
        """Parts of limits that no page has told of yet: even ones."""
        self._parts = {b: part for b, part in self._parts.items() if b.limit in limits}
        for limit in limits.values():
            even = limit.requests // max(1, clusters)
            self._parts.setdefault(Bucket(limit.name), even)

    def entry(self, demand: Mapping[Bucket, int], used: Mapping[Bucket, int]) -> Entry:
        """What this cluster writes."""
        limits = {bucket for bucket in self._parts if not bucket.key}
        buckets = {*limits, *demand, *used}
        return {
            bucket: Claim(demand.get(bucket, 0), used.get(bucket, 0), self._part(bucket))
            for bucket in buckets
            if Bucket(bucket.limit) in limits
        }

    def take(
        self, page: Mapping[str, bytes], limits: Mapping[str, SharedLimit], now_s: float
    ) -> None:
        """Bring the parts to what the page says."""
        entries = {
            cluster: entry
            for cluster, raw in page.items()
            if (entry := quota_board.from_bytes(raw)) is not None
        }
        self._seen.update({cluster: (now_s, entry) for cluster, entry in entries.items()})
        hold_s = self._settings.hold_s
        self._seen = {c: seen for c, seen in self._seen.items() if now_s - seen[0] < hold_s}
        if self._cluster not in entries:
            return
        lost = [entry for c, (_, entry) in self._seen.items() if c not in entries]
        named = {bucket for entry in (*entries.values(), *lost) for bucket in entry}
        named.update(bucket for bucket in self._parts if not bucket.key)
        self._parts = {
            bucket: self._own(limits[bucket.limit], bucket, entries, lost)
            for bucket in sorted(named)
            if bucket.limit in limits
        }

    def _own(
        self, limit: SharedLimit, bucket: Bucket, entries: Mapping[str, Entry], lost: list[Entry]
    ) -> int:
        whole = max(0, limit.requests - sum(_part_of(entry, bucket) for entry in lost))
        claims = {cluster: entry.get(bucket, _NOTHING) for cluster, entry in entries.items()}
        # Of a limit with keys the limit itself stands for those that are not named.
        even = limit.keyed and not bucket.key
        asked = {cluster: 0 if even else claim.demand for cluster, claim in claims.items()}
        parts = {cluster: _part_of(entry, bucket) for cluster, entry in entries.items()}
        if not is_calm(whole, parts, divide(whole, asked)):
            used = {cluster: 0 if even else claim.used for cluster, claim in claims.items()}
            parts = divide(whole, asked, used)
        return parts[self._cluster]

    def _part(self, bucket: Bucket) -> int:
        return self._parts.get(bucket, self._parts.get(Bucket(bucket.limit), 0))


def _part_of(entry: Entry, bucket: Bucket) -> int:
    return entry.get(bucket, entry.get(Bucket(bucket.limit), _NOTHING)).part
