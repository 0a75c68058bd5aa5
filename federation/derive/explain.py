"""Why calls go where they go: the resolution in force, with the facts behind it, for people.

Decides: which service a name means to a person, and what is said about each exporting cluster.
Leaves to others: the numbers and reasons themselves (``derive.resolve``; what is stored is what is
shown, nothing is resolved anew), layout (``cli``).
Invariants: pure; every exporting cluster has a row with at least one reason, also those without
traffic; rows are in the order of weight in force, then name.
"""

from __future__ import annotations

from federation.derive.imports import IMPORT_SUFFIX
from federation.derive.resolve_inputs import ruling_policy
from federation.model.base import ClusterId, Region, ServiceName, Value
from federation.model.drain import DrainState
from federation.model.resolved import (
    ClusterDrain,
    ClusterShare,
    Reason,
    ReasonCode,
    SourceResolution,
    Tier,
)
from federation.model.view import FederationView


class ExplainedCluster(Value):
    """One exporting cluster as callers of the source see it. ``failover`` is who takes over."""

    cluster: ClusterId
    region: Region
    ready: int
    total: int
    stale: bool
    weight_asked_bp: int
    weight_bp: int
    failover: tuple[Tier, ...]
    drain: ClusterDrain | None
    reasons: tuple[Reason, ...]


class Explanation(Value):
    """All about one service for callers in one region.

    ``reasons`` hold for the source as a whole. ``resolved_by`` names the resolver whose word is in
    force; ``None`` means that none has spoken yet.
    """

    service: ServiceName
    source: Region
    imports: tuple[str, ...]
    weights_origin: str
    failover_origin: str
    clusters: tuple[ExplainedCluster, ...]
    reasons: tuple[Reason, ...]
    resolved_by: str | None = None
    term: int | None = None


def find_service(view: FederationView, name: ServiceName) -> ServiceName | None:
    """The service that ``name`` means: a service's own name, or an import's."""
    known = {*view.exports, *view.policies, *view.resolved}
    if name in known:
        return name
    by_import = sorted(
        (
            service
            for service, facts in view.policies.items()
            if service.namespace == name.namespace
            and any(fact.import_name == name.name for fact in facts.values())
        ),
        key=str,
    )
    if by_import:
        return by_import[0]
    short = ServiceName(namespace=name.namespace, name=name.name.removesuffix(IMPORT_SUFFIX))
    return short if short in known else None


def find_region(view: FederationView, name: str) -> Region | None:
    """The region that ``name`` means: a region's name, or a cluster's."""
    if any(member.region == name for member in view.members.values()):
        return Region(name)
    member = view.members.get(ClusterId(name))
    return member.region if member else None


def explain(view: FederationView, service: ServiceName, source: Region) -> Explanation:
    """What is in force for ``service`` at gateways in ``source``, and why."""
    resolved = view.resolved.get(service)
    entry = resolved.source(source) if resolved else None
    facts = view.policies.get(service, {}).values()
    policy = ruling_policy(facts)
    manifest = view.resolved_manifest
    return Explanation(
        service=service,
        source=source,
        imports=tuple(sorted({fact.import_name for fact in facts})),
        weights_origin=policy.weights_origin,
        failover_origin=policy.failover_origin,
        clusters=_clusters(view, service, entry),
        reasons=entry.reasons if entry else (_unresolved(service, source),),
        resolved_by=manifest.resolver if manifest else None,
        term=manifest.term if manifest else None,
    )


def drain_words(state: DrainState | None) -> str:
    """The progress of a drain in a word."""
    if state is None:
        return "Pending"
    if state.refusal is not None:
        return state.refusal.code.value
    if state.expired and not state.returning:
        return "Expired"
    return "Returning" if state.returning else state.phase.value


def _clusters(
    view: FederationView, service: ServiceName, entry: SourceResolution | None
) -> tuple[ExplainedCluster, ...]:
    shares = {share.cluster: share for share in (entry.shares if entry else ())}
    resolved = view.resolved.get(service)
    drains = {drain.cluster: drain for drain in (resolved.drains if resolved else ())}
    rows = []
    for cluster, fact in view.exports.get(service, {}).items():
        share = shares.get(cluster)
        rows.append(
            ExplainedCluster(
                cluster=cluster,
                region=fact.region,
                ready=fact.ready,
                total=fact.total,
                stale=cluster not in view.heartbeats,
                weight_asked_bp=share.weight_asked_bp if share else 0,
                weight_bp=share.weight_bp if share else 0,
                failover=share.failover if share else (),
                drain=drains.get(cluster),
                reasons=share.reasons if share else _standing_by(cluster, shares),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.weight_bp, row.cluster)))


def _standing_by(cluster: ClusterId, shares: dict[ClusterId, ClusterShare]) -> tuple[Reason, ...]:
    """Where a cluster without a share of its own takes over."""
    found = tuple(
        Reason(
            code=tier.reason.code,
            message=f"stands in tier {level} behind {share.cluster}: {tier.reason.message}",
        )
        for _, share in sorted(shares.items())
        for level, tier in enumerate(share.failover, start=1)
        if any(member.cluster == cluster for member in tier.members)
    )
    return found or (
        Reason(
            code=ReasonCode.ZERO_WEIGHT,
            message="nothing is asked of it, and it takes over from nobody now",
        ),
    )


def _unresolved(service: ServiceName, source: Region) -> Reason:
    return Reason(
        code=ReasonCode.LAST_KNOWN,
        message=(
            f"no resolver has resolved {service} for {source} yet; each gateway sends calls to "
            "its own cluster"
        ),
    )
