"""The order in which other clusters take over from one cluster.

Decides: the tiers behind a share. First where a RegionFailover of the very cluster sends it, then
the clusters with which it shares a region's part, then where a RegionFailover of its region sends
it, then all others that are asked for by their weights, last the rest by ready capacity.
Leaves to others: who may take traffic (``eligible``), how much moves (``derive.resolve_flow``).
Invariants: a cluster stands in one tier at most and never behind itself; no tier is empty; a
cluster with an explicit weight of 0 takes over only where a RegionFailover names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.derive.resolve_apportion import reduced
from federation.derive.resolve_asked import Asked
from federation.derive.resolve_inputs import ServiceInputs
from federation.model.base import ClusterId, Region
from federation.model.facts import FailoverRule
from federation.model.resolved import Reason, ReasonCode, Tier, TierMember


@dataclass
class _Ladder:
    inputs: ServiceInputs
    free: set[ClusterId]
    tiers: list[Tier] = field(default_factory=list)

    def add(
        self, clusters: Iterable[ClusterId], weights: Mapping[ClusterId, int], reason: Reason
    ) -> None:
        """One more tier of those among ``clusters`` that stand in none yet."""
        members = {c: weights.get(c, 0) for c in clusters if c in self.free}
        if not members:
            return
        self.free -= members.keys()
        self.tiers.append(
            Tier(
                members=tuple(
                    TierMember(cluster=c, weight=weight) for c, weight in reduced(members).items()
                ),
                reason=reason,
            )
        )


def tiers_behind(
    cluster: ClusterId | None,
    *,
    region: Region | None,
    inputs: ServiceInputs,
    asked: Asked,
    eligible: frozenset[ClusterId],
) -> tuple[Tier, ...]:
    """The tiers behind ``cluster``; ``None``: behind callers in ``region`` without a cluster."""
    capacity = {c: entry.capacity for c, entry in inputs.constituents.items()}
    ladder = _Ladder(inputs, free=set(eligible) - {cluster})
    if cluster is not None:
        if not inputs.is_region(cluster):
            _add_rules(ladder, cluster, capacity)
        ladder.add(asked.siblings.get(cluster, ()), capacity, _same_region(region))
    if region is not None:
        _add_rules(ladder, region, capacity)
    if inputs.policy.weights is not None:
        listed = [c for c, bp in sorted(asked.base_bp.items()) if bp > 0]
        ladder.add(listed, asked.base_bp, _BY_WEIGHT)
    rest = [c for c in inputs.constituents if c not in asked.refused]
    ladder.add(rest, capacity, _BY_CAPACITY)
    return tuple(ladder.tiers)


_BY_WEIGHT = Reason(
    code=ReasonCode.REDISTRIBUTED, message="the other weighted clusters, by their weights"
)
_BY_CAPACITY = Reason(
    code=ReasonCode.REMAINING_CAPACITY, message="all other exporting clusters, by ready capacity"
)


def _add_rules(ladder: _Ladder, source: str, capacity: Mapping[ClusterId, int]) -> None:
    for rule in ladder.inputs.policy.failover:
        if rule.source == source:
            reason = _by_rule(rule, ladder.inputs.policy.failover_origin)
            ladder.add(ladder.inputs.exporting(rule.target), capacity, reason)


def _by_rule(rule: FailoverRule, origin: str) -> Reason:
    said_by = f" of {origin}" if origin else ""
    return Reason(
        code=ReasonCode.REGION_FAILOVER,
        message=f"RegionFailover {rule.source} -> {rule.target}{said_by}",
    )


def _same_region(region: Region | None) -> Reason:
    return Reason(
        code=ReasonCode.REGION_SHARE,
        message=f"the other clusters of {region}, by ready capacity",
    )
