"""The federation at a glance: members and their age, who leads, drains, quarantines, services.

Decides: what belongs into a summary and its order.
Leaves to others: reading the store, layout (``cli``), one service in depth (``derive.explain``).
Invariants: pure: ages are counted to the ``now_ms`` given; what is unknown is ``None``, not 0.
"""

from __future__ import annotations

from federation.derive.explain import drain_words
from federation.model.base import ClusterId, Region, ServiceName, Value
from federation.model.drain import DrainTargetKind
from federation.model.facts import Quarantine
from federation.model.view import FederationView


class LeaderStatus(Value):
    """The leading resolver and its term."""

    resolver: str
    term: int


class MemberStatus(Value):
    """One cluster. ``stale_age_s`` is how long it has been silent, if a resolver saw it go;
    ``degraded`` what its agent says it does without."""

    cluster: ClusterId
    region: Region
    stale: bool
    stale_age_s: int | None
    gateways: int
    exports: int
    version: str | None
    quarantine: Quarantine | None
    degraded: tuple[str, ...] = ()


class DrainStatus(Value):
    """One drain, an operator's or an object's. ``requested`` is false once it is undone and its
    weight returns; ``refusal`` is why an object's has not started."""

    name: str
    target: str
    target_kind: DrainTargetKind
    service: ServiceName | None
    progress: str
    remaining_bp: int | None
    streams_left: int | None
    over_ms: int
    grace_ms: int
    age_s: int | None
    requested: bool
    requested_by: str
    refusal: str | None = None


class ServiceClusterStatus(Value):
    """One exporting cluster of a service."""

    cluster: ClusterId
    ready: int
    total: int


class ServiceStatus(Value):
    """One service; ``weights_bp`` by source region, then by cluster, is what is in force."""

    service: ServiceName
    clusters: tuple[ServiceClusterStatus, ...]
    weights_bp: dict[Region, dict[ClusterId, int]]


class FederationStatus(Value):
    """The whole summary. ``leader`` ``None``: nobody leads now; what is resolved stays in force."""

    revision: int
    leader: LeaderStatus | None
    members: tuple[MemberStatus, ...]
    drains: tuple[DrainStatus, ...]
    services: tuple[ServiceStatus, ...]


def summarize(
    view: FederationView, *, leader: LeaderStatus | None, now_ms: int
) -> FederationStatus:
    """Everything in ``view`` that an operator looks at first."""
    return FederationStatus(
        revision=view.revision,
        leader=leader,
        members=tuple(_member(view, cluster, now_ms) for cluster in sorted(view.members)),
        drains=tuple(
            _drain(view, name, now_ms) for name in sorted({*view.drains, *view.drain_states})
        ),
        services=tuple(
            _service(view, service) for service in sorted({*view.exports, *view.resolved}, key=str)
        ),
    )


def _member(view: FederationView, cluster: ClusterId, now_ms: int) -> MemberStatus:
    member = view.members[cluster]
    heartbeat = view.heartbeats.get(cluster)
    silent = view.resolved_manifest.silent if view.resolved_manifest else ()
    since_ms = next((entry.since_ms for entry in silent if entry.cluster == cluster), None)
    entrances = view.gateways.get(cluster)
    manifest = view.manifests.get(cluster)
    stale = heartbeat is None
    return MemberStatus(
        cluster=cluster,
        region=member.region,
        stale=stale,
        stale_age_s=None if since_ms is None or not stale else max(0, now_ms - since_ms) // 1000,
        gateways=len(entrances.gateways) if entrances else 0,
        exports=sum(cluster in exports for exports in view.exports.values()),
        version=heartbeat.version if heartbeat else None,
        quarantine=manifest.quarantine if manifest else None,
        degraded=heartbeat.degraded if heartbeat else (),
    )


def _drain(view: FederationView, name: str, now_ms: int) -> DrainStatus:
    state = view.drain_states.get(name)
    requested = name in view.drains
    spec = view.drains[name] if requested else view.drain_states[name].spec
    return DrainStatus(
        name=name,
        target=spec.target,
        target_kind=spec.target_kind,
        service=spec.service,
        progress=drain_words(state),
        remaining_bp=state.remaining_bp if state else None,
        streams_left=state.streams_left if state else None,
        over_ms=spec.over_ms,
        grace_ms=spec.grace_ms,
        age_s=max(0, now_ms - state.started_at_ms) // 1000 if state else None,
        requested=requested,
        requested_by=spec.requested_by,
        refusal=state.refusal.message if state and state.refusal else None,
    )


def _service(view: FederationView, service: ServiceName) -> ServiceStatus:
    exports = view.exports.get(service, {})
    resolved = view.resolved.get(service)
    return ServiceStatus(
        service=service,
        clusters=tuple(
            ServiceClusterStatus(cluster=cluster, ready=fact.ready, total=fact.total)
            for cluster, fact in sorted(exports.items())
        ),
        weights_bp={
            source.region: {share.cluster: share.weight_bp for share in source.shares}
            for source in (resolved.sources if resolved else ())
        },
    )
