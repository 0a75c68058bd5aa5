"""Everything that one service's resolution depends on, gathered from a view.

Decides: which policy rules (the oldest by create_revision), which regions there are, what a name
means (a name that is both a region and a cluster means the region), which clusters are alive.
Leaves to others: what is asked (``derive.resolve_asked``), where it goes (``derive.resolve_flow``).
Invariants: equal inputs give equal resolutions, so that callers may keep a result as long as its
inputs compare equal; a cluster without heartbeat looks like any other (silence moves nothing).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from federation.derive.drain import NO_EFFECT, DrainEffect, effect
from federation.derive.resolve_return import ReturnPace, advance_standings
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import DrainState
from federation.model.facts import ClusterWeight, ExportFact, FailoverRule, ServicePolicyFact
from federation.model.resolved import Reason, ReasonCode, ResolvedService, Standing
from federation.model.view import FederationView


@dataclass(frozen=True, slots=True)
class Constituent:
    """One cluster's part of a service: what counts for its share."""

    cluster: ClusterId
    region: Region
    ready: bool
    capacity: int
    has_gateway: bool
    drain: DrainEffect = NO_EFFECT


@dataclass(frozen=True, slots=True)
class Policy:
    """What rules for a service. ``weights`` ``None``: no MultiClusterService speaks of it."""

    weights: tuple[ClusterWeight, ...] | None = None
    weights_origin: str = ""
    failover: tuple[FailoverRule, ...] = ()
    failover_origin: str = ""


@dataclass(frozen=True, slots=True)
class ServiceInputs:
    """Inputs of one service's resolution. ``regions`` has every known cluster, exporting or not.

    ``standings`` say for each source how much of its part each cluster has back.
    """

    service: ServiceName
    constituents: Mapping[ClusterId, Constituent]
    regions: Mapping[ClusterId, Region]
    policy: Policy
    standings: Mapping[Region, tuple[Standing, ...]] = field(default_factory=dict)

    def says_the_same(self, other: ServiceInputs) -> bool:
        """Whether the facts are the same, standings aside."""
        return (
            self.constituents == other.constituents
            and self.policy == other.policy
            and self.regions == other.regions
        )

    @property
    def sources(self) -> tuple[Region, ...]:
        """The regions whose callers' traffic is divided."""
        return tuple(sorted({*self.regions.values()}))

    def is_region(self, name: str) -> bool:
        """Whether ``name`` is a region of any known cluster."""
        return name in self.regions.values()

    def is_known(self, name: str) -> bool:
        """Whether ``name`` is a known region or cluster."""
        return name in self.regions or self.is_region(name)

    def exporting(self, name: str) -> tuple[ClusterId, ...]:
        """The exporting clusters that ``name`` means."""
        if self.is_region(name):
            return tuple(c for c, entry in self.constituents.items() if entry.region == name)
        return (ClusterId(name),) if name in self.constituents else ()

    def alive(self, source: Region) -> frozenset[ClusterId]:
        """Clusters that callers in ``source`` can be sent to."""
        return frozenset(
            cluster for cluster in self.constituents if self.trouble(cluster, source) is None
        )

    def holding(self, source: Region) -> frozenset[ClusterId]:
        """Those of the living that no drain holds."""
        return frozenset(
            cluster
            for cluster in self.alive(source)
            if not self.constituents[cluster].drain.draining
        )

    def trouble(self, cluster: ClusterId, source: Region) -> Reason | None:
        """Why ``cluster`` cannot take calls from ``source``; ``None`` if it can."""
        entry = self.constituents[cluster]
        if not entry.ready:
            return Reason(
                code=ReasonCode.NO_READY_ENDPOINTS,
                message=f"{cluster} has no ready endpoint of {self.service}",
            )
        if not entry.has_gateway and not self._stands_alone(cluster, source):
            return Reason(
                code=ReasonCode.NO_GATEWAY,
                message=f"{cluster} has no gateway through which {source} could reach it",
            )
        return None

    def _stands_alone(self, cluster: ClusterId, source: Region) -> bool:
        """Whether the callers of ``source`` all stand in ``cluster`` and need no entrance to it."""
        return all(
            other == cluster for other, region in self.regions.items() if region == source
        ) and (self.regions[cluster] == source)


def inputs_of(
    view: FederationView, service: ServiceName, states: Iterable[DrainState]
) -> ServiceInputs:
    """Gather what ``view`` and the progress of drains say about ``service``."""
    states = tuple(states)
    exports = view.exports.get(service, {})
    constituents = {
        cluster: _constituent(view, exports[cluster], states) for cluster in sorted(exports)
    }
    return ServiceInputs(
        service=service,
        constituents=constituents,
        regions=_regions(view, exports),
        policy=ruling_policy(view.policies.get(service, {}).values()),
    )


def with_standings(
    inputs: ServiceInputs, *, previous: ResolvedService | None, pace: ReturnPace, now_ms: int
) -> ServiceInputs:
    """``inputs`` with the standings that follow at ``now_ms`` from those in ``previous``."""
    before = {entry.region: entry.standings for entry in (previous.sources if previous else ())}
    standings = {
        source: advance_standings(
            before.get(source, ()),
            able=inputs.alive(source),
            receiving=inputs.holding(source),
            known=inputs.regions,
            pace=pace,
            now_ms=now_ms,
        )
        for source in inputs.sources
    }
    return replace(inputs, standings=standings)


def ruling_policy(facts: Iterable[ServicePolicyFact]) -> Policy:
    """Weights of the oldest fact that has weights, failover of the oldest that has failover."""
    by_age = sorted(facts, key=lambda fact: (fact.create_revision, fact.cluster, fact.import_name))
    weights = next((fact for fact in by_age if fact.weights is not None), None)
    failover = next((fact for fact in by_age if fact.failover), None)
    return Policy(
        weights=weights.weights if weights else None,
        weights_origin=weights.weights_origin if weights else "",
        failover=failover.failover if failover else (),
        failover_origin=failover.failover_origin if failover else "",
    )


def _constituent(
    view: FederationView, fact: ExportFact, states: tuple[DrainState, ...]
) -> Constituent:
    entrances = view.gateways.get(fact.cluster)
    region = _region(view, fact)
    return Constituent(
        cluster=fact.cluster,
        region=region,
        ready=fact.ready > 0,
        capacity=fact.capacity if fact.ready > 0 else 0,
        has_gateway=entrances is not None and bool(entrances.gateways),
        drain=effect(states, cluster=fact.cluster, region=region, service=fact.service),
    )


def _region(view: FederationView, fact: ExportFact) -> Region:
    """The member's region; the fact's own while the member entry is not seen yet."""
    member = view.members.get(fact.cluster)
    return member.region if member else fact.region


def _regions(
    view: FederationView, exports: Mapping[ClusterId, ExportFact]
) -> dict[ClusterId, Region]:
    found = {cluster: fact.region for cluster, fact in exports.items()}
    found.update((cluster, member.region) for cluster, member in view.members.items())
    return dict(sorted(found.items()))
