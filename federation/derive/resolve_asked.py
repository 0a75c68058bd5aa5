"""What is asked of each cluster before anything goes wrong.

Decides: the division of a source's traffic by weights of a MultiClusterService, or without one by
preference for the source's own region; a region's part goes over its clusters by ready capacity.
Leaves to others: what becomes of the part of a cluster that is down (``derive.resolve_flow``).
Invariants: ``base_bp`` and ``unplaced_bp`` sum to 10,000; a listed cluster that does not export is
in ``notes`` with its reason and its weight goes to the listed ones that do, in proportion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.derive.resolve_apportion import apportion
from federation.derive.resolve_inputs import ServiceInputs
from federation.model.base import ClusterId, Region
from federation.model.facts import ClusterWeight
from federation.model.resolved import FULL_SHARE_BP, Reason, ReasonCode


@dataclass(frozen=True, slots=True)
class Asked:
    """The division asked for.

    ``asked_bp`` is the policy's word, ``base_bp`` the same over clusters that export.
    ``unplaced_bp`` belongs to nobody: no cluster that is asked for exports. ``siblings`` share a
    region's part. ``refused`` are clusters with an explicit weight of 0.
    """

    base_bp: Mapping[ClusterId, int]
    asked_bp: Mapping[ClusterId, int]
    siblings: Mapping[ClusterId, frozenset[ClusterId]]
    reasons: Mapping[ClusterId, tuple[Reason, ...]]
    notes: tuple[Reason, ...] = ()
    unplaced_bp: int = 0
    unplaced_region: Region | None = None
    refused: frozenset[ClusterId] = frozenset()


@dataclass
class _Tally:
    base_bp: dict[ClusterId, int] = field(default_factory=dict)
    asked_bp: dict[ClusterId, int] = field(default_factory=dict)
    siblings: dict[ClusterId, frozenset[ClusterId]] = field(default_factory=dict)
    reasons: dict[ClusterId, tuple[Reason, ...]] = field(default_factory=dict)

    def add(
        self,
        inputs: ServiceInputs,
        members: tuple[ClusterId, ...],
        *,
        alive: frozenset[ClusterId],
        base_bp: int,
        asked_bp: int,
        reasons: tuple[Reason, ...],
    ) -> None:
        """Add one target's part, divided over the clusters it means."""
        division = _capacities(inputs, members, alive)
        base = apportion(division, base_bp)
        asked = apportion(division, asked_bp)
        for cluster in members:
            self.base_bp[cluster] = self.base_bp.get(cluster, 0) + base[cluster]
            self.asked_bp[cluster] = self.asked_bp.get(cluster, 0) + asked[cluster]
            others = frozenset(members) - {cluster} if asked_bp else frozenset()
            self.siblings[cluster] = self.siblings.get(cluster, frozenset()) | others
            self.reasons[cluster] = (*self.reasons.get(cluster, ()), *reasons)


def by_weights(
    inputs: ServiceInputs, weights: tuple[ClusterWeight, ...], alive: frozenset[ClusterId]
) -> Asked:
    """The division by a MultiClusterService; it is the same for every source."""
    origin = inputs.policy.weights_origin or "the MultiClusterService"
    lines = {line.target: line.weight for line in weights}
    meant = {target: inputs.exporting(target) for target in sorted(lines)}
    asked_bp = apportion(lines, FULL_SHARE_BP)
    backed = {target: weight for target, weight in lines.items() if meant[target]}
    base_bp = apportion(backed, FULL_SHARE_BP)
    tally = _Tally()
    for target, members in meant.items():
        if not members:
            continue
        tally.add(
            inputs,
            members,
            alive=alive,
            base_bp=base_bp[target],
            asked_bp=asked_bp[target],
            reasons=_line_reasons(inputs, target, lines, asked_bp[target], base_bp[target], origin),
        )
    listed = {cluster for target in backed if lines[target] for cluster in meant[target]}
    return Asked(
        base_bp=tally.base_bp,
        asked_bp=tally.asked_bp,
        siblings=tally.siblings,
        reasons=tally.reasons,
        notes=tuple(
            _not_backed(inputs, target, asked_bp[target], origin)
            for target, members in meant.items()
            if not members and lines[target]
        ),
        unplaced_bp=FULL_SHARE_BP - sum(base_bp.values()),
        refused=frozenset(tally.base_bp) - listed,
    )


def by_locality(inputs: ServiceInputs, source: Region, alive: frozenset[ClusterId]) -> Asked:
    """The division without weights: all to the clusters of ``source`` that export."""
    local = tuple(c for c, entry in inputs.constituents.items() if entry.region == source)
    if not local:
        return Asked(
            base_bp={},
            asked_bp={},
            siblings={},
            reasons={},
            notes=(
                Reason(
                    code=ReasonCode.NOT_EXPORTED,
                    message=f"no cluster of {source} exports {inputs.service}",
                ),
            ),
            unplaced_bp=FULL_SHARE_BP,
            unplaced_region=source,
        )
    preferred = Reason(
        code=ReasonCode.LOCAL_PREFERRED,
        message=f"stands in {source} like its callers; no MultiClusterService sets weights",
    )
    reasons = (preferred, _region_share(source)) if len(local) > 1 else (preferred,)
    tally = _Tally()
    tally.add(
        inputs,
        local,
        alive=alive,
        base_bp=FULL_SHARE_BP,
        asked_bp=FULL_SHARE_BP,
        reasons=reasons,
    )
    return Asked(
        base_bp=tally.base_bp,
        asked_bp=tally.asked_bp,
        siblings=tally.siblings,
        reasons=tally.reasons,
    )


def percent(bp: int) -> str:
    """Basis points for people: ``60 %``, ``33.34 %``."""
    whole, rest = divmod(bp, 100)
    return f"{whole} %" if rest == 0 else f"{whole}.{rest:02d} %"


def _capacities(
    inputs: ServiceInputs, members: Iterable[ClusterId], alive: frozenset[ClusterId]
) -> dict[ClusterId, int]:
    """Ready capacity of the living; when none lives, all count alike until their part moves on."""
    capacities = {
        cluster: max(1, inputs.constituents[cluster].capacity) if cluster in alive else 0
        for cluster in members
    }
    return capacities if any(capacities.values()) else dict.fromkeys(capacities, 1)


def _line_reasons(
    inputs: ServiceInputs,
    target: str,
    lines: Mapping[str, int],
    asked_bp: int,
    base_bp: int,
    origin: str,
) -> tuple[Reason, ...]:
    if lines[target] == 0:
        return (
            Reason(
                code=ReasonCode.ZERO_WEIGHT,
                message=f"{origin} sets weight 0 for {target}",
            ),
        )
    found = [
        Reason(
            code=ReasonCode.EXPLICIT_WEIGHT,
            message=f"{origin} sets weight {lines[target]} of {sum(lines.values())} for {target}",
        )
    ]
    if inputs.is_region(target) and len(inputs.exporting(target)) > 1:
        found.append(_region_share(target))
    if base_bp != asked_bp:
        found.append(
            Reason(
                code=ReasonCode.REDISTRIBUTED,
                message=(
                    f"{percent(base_bp)} instead of {percent(asked_bp)} for {target}: "
                    "takes its part of listed weight that no exporting cluster stands behind"
                ),
            )
        )
    return tuple(found)


def _region_share(region: str) -> Reason:
    return Reason(
        code=ReasonCode.REGION_SHARE,
        message=f"the clusters of {region} divide its part by ready capacity",
    )


def _not_backed(inputs: ServiceInputs, target: str, asked_bp: int, origin: str) -> Reason:
    if not inputs.is_known(target):
        return Reason(
            code=ReasonCode.UNKNOWN_CLUSTER,
            message=(
                f"{origin} asks {percent(asked_bp)} for {target}, but no cluster or region has "
                "that name; its weight is redistributed"
            ),
        )
    return Reason(
        code=ReasonCode.NOT_EXPORTED,
        message=(
            f"{origin} asks {percent(asked_bp)} for {target}, but {target} does not export "
            f"{inputs.service}; its weight is redistributed"
        ),
    )
