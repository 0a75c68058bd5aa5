"""Resolution: for every service and source region the clusters, their weights and their failover.

Decides: how the pieces fit: what is asked (``resolve_asked``), what moves because clusters are
down, drained or on their way back (``resolve_flow``, ``resolve_return``), who takes over in which
order (``resolve_tiers``).
Leaves to others: facts (``derive.exports``), the course of drains (``derive.drain``), storing the
result (the leading resolver), making it routes (``derive.compile``).
Invariants: shares of a source sum to 10,000 or there are none; equal inputs give equal results in
equal order; the previous resolution matters only while clusters come back, and when everything is
unhealthy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from federation.derive.resolve_asked import Asked, by_locality, by_weights
from federation.derive.resolve_flow import Flow, flow
from federation.derive.resolve_inputs import ServiceInputs, inputs_of, with_standings
from federation.derive.resolve_return import ReturnPace, wait_ms
from federation.derive.resolve_tiers import tiers_behind
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import DrainState
from federation.model.resolved import (
    ClusterShare,
    Reason,
    ReasonCode,
    ResolvedService,
    SourceResolution,
)
from federation.model.view import FederationView

DEFAULT_PACE = ReturnPace()


@dataclass(frozen=True, slots=True)
class Resolution:
    """All resolved services. ``inputs`` lets the next resolution reuse what did not change.

    ``waits`` has the milliseconds until a service changes by time alone; the others rest.
    """

    services: Mapping[ServiceName, ResolvedService] = field(default_factory=dict)
    inputs: Mapping[ServiceName, ServiceInputs] = field(default_factory=dict)
    waits: Mapping[ServiceName, int] = field(default_factory=dict)


def resolve(
    view: FederationView,
    *,
    drains: Mapping[str, DrainState],
    previous: Mapping[ServiceName, ResolvedService],
    now_ms: int,
    pace: ReturnPace = DEFAULT_PACE,
    before: Resolution | None = None,
) -> Resolution:
    """Resolve every service that is exported or that a policy speaks of.

    ``previous`` is what is in force; clusters that come back get their part at ``pace``. ``before``
    may hand over the caller's last resolution: a service that rests and whose facts are the same is
    not computed again, since its result would be the same.
    """
    last = before or Resolution()
    states = tuple(drains[name] for name in sorted(drains))
    services: dict[ServiceName, ResolvedService] = {}
    gathered: dict[ServiceName, ServiceInputs] = {}
    waits: dict[ServiceName, int] = {}
    for service in sorted({*view.exports, *view.policies}, key=str):
        facts = inputs_of(view, service, states)
        if not facts.constituents and facts.policy.weights is None:
            continue
        known, of_known = last.services.get(service), last.inputs.get(service)
        if known and of_known and service not in last.waits and of_known.says_the_same(facts):
            services[service], gathered[service] = known, of_known
            continue
        in_force = previous.get(service)
        inputs = with_standings(facts, previous=in_force, pace=pace, now_ms=now_ms)
        gathered[service] = inputs
        services[service] = (
            known if known and of_known == inputs else resolve_service(inputs, previous=in_force)
        )
        wait = wait_ms(chain.from_iterable(inputs.standings.values()), pace, now_ms)
        if wait is not None:
            waits[service] = wait
    return Resolution(services, gathered, waits)


def resolve_service(inputs: ServiceInputs, *, previous: ResolvedService | None) -> ResolvedService:
    """Resolve one service for every region there is."""
    return ResolvedService(
        service=inputs.service,
        sources=tuple(
            _resolve_source(inputs, region, previous.source(region) if previous else None)
            for region in inputs.sources
        ),
        drains=tuple(
            entry.drain.visible
            for entry in inputs.constituents.values()
            if entry.drain.visible is not None
        ),
    )


def _resolve_source(
    inputs: ServiceInputs, source: Region, previous: SourceResolution | None
) -> SourceResolution:
    if not inputs.constituents:
        nobody = Reason(
            code=ReasonCode.NOT_EXPORTED, message=f"no cluster exports {inputs.service}"
        )
        return SourceResolution(
            region=source, shares=(), reasons=(nobody,), standings=inputs.standings.get(source, ())
        )
    alive = inputs.alive(source)
    weights = inputs.policy.weights
    asked = (
        by_locality(inputs, source, alive)
        if weights is None
        else by_weights(inputs, weights, alive)
    )
    flowed = flow(inputs, asked, source, previous)
    shares = tuple(_share(inputs, asked, flowed, cluster) for cluster in _shown(asked, flowed))
    return SourceResolution(
        region=source,
        shares=shares if any(share.weight_bp for share in shares) else (),
        reasons=(*asked.notes, *flowed.notes),
        standings=inputs.standings.get(source, ()),
    )


def _shown(asked: Asked, flowed: Flow) -> list[ClusterId]:
    """Clusters that are asked for, or have traffic, or are explicitly refused."""
    active = {c for c, bp in (*asked.asked_bp.items(), *flowed.weight_bp.items()) if bp}
    return sorted(active | asked.refused)


def _share(inputs: ServiceInputs, asked: Asked, flowed: Flow, cluster: ClusterId) -> ClusterShare:
    region = inputs.constituents[cluster].region
    return ClusterShare(
        cluster=cluster,
        region=region,
        weight_asked_bp=asked.asked_bp.get(cluster, 0),
        weight_bp=flowed.weight_bp.get(cluster, 0),
        failover=tiers_behind(
            cluster, region=region, inputs=inputs, asked=asked, eligible=flowed.eligible
        ),
        reasons=(*asked.reasons.get(cluster, ()), *flowed.reasons.get(cluster, ())),
    )
