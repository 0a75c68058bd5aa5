"""Moving traffic from clusters that cannot take their part to those that can.

Decides: two movements, in this order. First the part of each cluster that is down goes to the
first tier behind it that has a living cluster. Then each cluster that is drained or on its way back
gives what it may not have of its present part to the first tier behind it that is whole. So a drain
takes inherited traffic along, on the same ramp.
Leaves to others: what is asked (``derive.resolve_asked``), the tiers (``derive.resolve_tiers``).
Invariants: nothing is lost on the way; each cluster's part moves by itself, so that what happens to
one cluster only gives to the others or only takes from them; if nobody may take traffic, the last
distribution holds; if everybody who may is drained, the drains have no effect on the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.derive.resolve_apportion import apportion
from federation.derive.resolve_asked import Asked, percent
from federation.derive.resolve_inputs import ServiceInputs
from federation.derive.resolve_tiers import tiers_behind
from federation.model.base import ClusterId, Region
from federation.model.resolved import (
    FULL_SHARE_BP,
    DrainPhase,
    Reason,
    ReasonCode,
    SourceResolution,
    Tier,
)

_NOBODY = ClusterId("")
"""Stands for the owner of traffic that no exporting cluster is asked to take."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a source's traffic goes. ``reasons`` say per cluster what it gained or lost, and why.

    ``eligible`` are the clusters that may stand in failover tiers.
    """

    weight_bp: Mapping[ClusterId, int]
    reasons: Mapping[ClusterId, tuple[Reason, ...]]
    eligible: frozenset[ClusterId]
    notes: tuple[Reason, ...] = ()


@dataclass
class _Flowing:
    """The movements under way for one source."""

    inputs: ServiceInputs
    asked: Asked
    source: Region
    weight_bp: dict[ClusterId, int]
    reasons: dict[ClusterId, list[Reason]] = field(default_factory=dict)

    def explain(self, cluster: ClusterId, reason: Reason) -> None:
        self.reasons.setdefault(cluster, []).append(reason)

    def tiers(self, owner: ClusterId, eligible: frozenset[ClusterId]) -> tuple[Tier, ...]:
        if owner == _NOBODY:
            region, cluster = self.asked.unplaced_region, None
        else:
            region, cluster = self.inputs.constituents[owner].region, owner
        return tiers_behind(
            cluster, region=region, inputs=self.inputs, asked=self.asked, eligible=eligible
        )

    def move(self, owner: ClusterId, bp: int, eligible: frozenset[ClusterId]) -> bool:
        """Give ``bp`` of ``owner`` to the first tier behind it; false if there is none."""
        tiers = self.tiers(owner, eligible)
        if tiers:
            weights = {member.cluster: member.weight for member in tiers[0].members}
            reason = tiers[0].reason
        else:
            weights = {c: w for c, w in self.weight_bp.items() if c in eligible and c != owner}
            reason = _LAST_RESORT
        if not any(weights.values()):
            return False
        for cluster, gained_bp in apportion(weights, bp).items():
            self.weight_bp[cluster] = self.weight_bp.get(cluster, 0) + gained_bp
            if gained_bp:
                self.explain(cluster, self._gained(owner, gained_bp, reason))
        return True

    def flow(self, eligible: frozenset[ClusterId], notes: tuple[Reason, ...] = ()) -> Flow:
        return Flow(
            weight_bp=dict(sorted(self.weight_bp.items())),
            reasons={cluster: tuple(found) for cluster, found in self.reasons.items()},
            eligible=eligible,
            notes=notes,
        )

    def _gained(self, owner: ClusterId, bp: int, reason: Reason) -> Reason:
        behind = owner or f"callers in {self.source}"
        return Reason(
            code=reason.code, message=f"takes {percent(bp)} of {behind}: {reason.message}"
        )


def flow(
    inputs: ServiceInputs, asked: Asked, source: Region, previous: SourceResolution | None
) -> Flow:
    """Where the traffic of ``source`` goes, given what is asked and who can take it."""
    alive = inputs.alive(source)
    flowing = _without_the_dead(inputs, asked, source, alive)
    if flowing is None:
        return _last_known(inputs, asked, source, previous)
    holding = inputs.holding(source)
    if not holding:
        return flowing.flow(alive, (_ALL_DRAINED,))
    _give_up(flowing, _kept(inputs, source, alive, holding), holding)
    return flowing.flow(holding)


def _without_the_dead(
    inputs: ServiceInputs, asked: Asked, source: Region, alive: frozenset[ClusterId]
) -> _Flowing | None:
    """Move the parts of clusters that are down; ``None`` when nobody may take them."""
    living = {c: bp for c, bp in asked.base_bp.items() if c in alive}
    flowing = _Flowing(inputs, asked, source, weight_bp=living)
    displaced = {c: bp for c, bp in asked.base_bp.items() if c not in alive}
    if asked.unplaced_bp:
        displaced[_NOBODY] = asked.unplaced_bp
    stranded = 0
    for owner in sorted(displaced, key=lambda c: (c == _NOBODY, c)):
        if owner != _NOBODY:
            flowing.weight_bp[owner] = 0
            trouble = inputs.trouble(owner, source)
            assert trouble is not None
            flowing.explain(owner, trouble)
        if displaced[owner] and not flowing.move(owner, displaced[owner], alive):
            stranded += displaced[owner]
    if stranded == FULL_SHARE_BP or not any(flowing.weight_bp.values()):
        return None
    for cluster, bp in apportion(flowing.weight_bp, stranded).items():
        flowing.weight_bp[cluster] += bp
    return flowing


def _kept(
    inputs: ServiceInputs,
    source: Region,
    alive: frozenset[ClusterId],
    holding: frozenset[ClusterId],
) -> dict[ClusterId, int]:
    """How much of its part each living cluster keeps, in basis points.

    Of those that may take traffic the one that keeps most counts as whole: nobody could relieve it.
    """
    returned = {entry.cluster: entry.returned_bp for entry in inputs.standings.get(source, ())}
    kept = {
        cluster: min(
            inputs.constituents[cluster].drain.remaining_bp, returned.get(cluster, FULL_SHARE_BP)
        )
        for cluster in sorted(alive)
    }
    most_bp = max(kept[cluster] for cluster in holding) or 1
    return {
        cluster: bp * FULL_SHARE_BP // most_bp if cluster in holding else bp
        for cluster, bp in kept.items()
    }


def _give_up(
    flowing: _Flowing, kept: Mapping[ClusterId, int], holding: frozenset[ClusterId]
) -> None:
    """Move what clusters do not keep to the ones that are whole."""
    whole = frozenset(cluster for cluster in holding if kept[cluster] == FULL_SHARE_BP)
    for cluster, held_bp in sorted(flowing.weight_bp.items()):
        if cluster not in kept:
            continue
        drain = flowing.inputs.constituents[cluster].drain
        if drain.visible is not None:
            flowing.explain(
                cluster,
                _drained(cluster, drain.visible.drain, drain.remaining_bp, drain.visible.phase),
            )
        elif kept[cluster] < FULL_SHARE_BP:
            flowing.explain(cluster, _returning(cluster, kept[cluster]))
        given_up_bp = held_bp - held_bp * kept[cluster] // FULL_SHARE_BP
        if given_up_bp and flowing.move(cluster, given_up_bp, whole - {cluster}):
            flowing.weight_bp[cluster] -= given_up_bp


def _last_known(
    inputs: ServiceInputs, asked: Asked, source: Region, previous: SourceResolution | None
) -> Flow:
    """What was last in force, over the clusters that still export; else what is asked."""
    last = {
        share.cluster: share.weight_bp
        for share in (previous.shares if previous else ())
        if share.cluster in inputs.constituents and share.weight_bp
    }
    weight_bp = apportion(last or asked.base_bp, FULL_SHARE_BP)
    flowing = _Flowing(
        inputs, asked, source, weight_bp={**dict.fromkeys(asked.base_bp, 0), **weight_bp}
    )
    for cluster in flowing.weight_bp:
        trouble = inputs.trouble(cluster, source)
        if trouble is not None:
            flowing.explain(cluster, trouble)
        flowing.explain(cluster, _LAST_KNOWN)
    everybody = frozenset(inputs.constituents)
    return flowing.flow(everybody, (_LAST_KNOWN,) if any(weight_bp.values()) else ())


_LAST_KNOWN = Reason(
    code=ReasonCode.LAST_KNOWN,
    message="no cluster that may take the traffic looks healthy; the last distribution holds",
)
_ALL_DRAINED = Reason(
    code=ReasonCode.DRAINING,
    message="every healthy cluster is drained; the drains have no effect on the weights",
)
_LAST_RESORT = Reason(
    code=ReasonCode.REDISTRIBUTED, message="no tier behind it has a healthy cluster"
)


def _drained(cluster: ClusterId, drain: str, remaining_bp: int, phase: DrainPhase) -> Reason:
    if phase is DrainPhase.RAMPING:
        return Reason(
            code=ReasonCode.DRAINING,
            message=f"drain {drain} leaves {cluster} {percent(remaining_bp)} of its part",
        )
    return Reason(code=ReasonCode.DRAINED, message=f"drain {drain} has taken all from {cluster}")


def _returning(cluster: ClusterId, kept_bp: int) -> Reason:
    return Reason(
        code=ReasonCode.RETURNING,
        message=f"{cluster} is back; it has {percent(kept_bp)} of its part, and more with time",
    )
