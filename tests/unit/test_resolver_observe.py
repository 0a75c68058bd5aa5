"""What the leading resolver shows: services, tiers, silent clusters, drains."""

from __future__ import annotations

from collections.abc import Mapping

from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import Drain, DrainState, DrainTargetKind, Refusal, RefusalCode
from federation.model.facts import ExportFact, Member, ServicePort
from federation.model.resolved import (
    ClusterShare,
    DrainPhase,
    Reason,
    ReasonCode,
    ResolvedManifest,
    ResolvedService,
    SilentCluster,
    SourceResolution,
    Tier,
    TierMember,
)
from federation.model.view import FederationView
from federation.resolver.observe import OBSERVED, Seen, observe
from federation.resolver.step import Stored
from federation.telemetry import NAMED_MAX, catalogue

WEST, EAST = ClusterId("us-west-1"), ClusterId("us-east-1")
WHY = Reason(code=ReasonCode.EXPLICIT_WEIGHT, message="asked")
BEHIND = (Tier(members=(TierMember(cluster=EAST, weight=1),), reason=WHY),)
USERS = ServiceName(namespace="app", name="users")

Shown = Mapping[tuple[str, ...], float]


def share(
    cluster: ClusterId, asked: int, now: int, failover: tuple[Tier, ...] = ()
) -> ClusterShare:
    return ClusterShare(
        cluster=cluster,
        region=Region(cluster),
        weight_asked_bp=asked,
        weight_bp=now,
        failover=failover,
        reasons=(WHY,),
    )


def service(name: ServiceName, *shares: ClusterShare) -> ResolvedService:
    source = SourceResolution(region=Region("us-west-1"), shares=shares)
    return ResolvedService(service=name, sources=(source,))


def export(cluster: ClusterId, name: ServiceName) -> ExportFact:
    return ExportFact(
        cluster=cluster,
        region=Region(cluster),
        service=name,
        ports=(ServicePort(port=9090),),
        ready=1,
        total=1,
        capacity=1,
    )


def seen(
    *services: ResolvedService,
    drains: Mapping[str, DrainState] | None = None,
    silent: tuple[SilentCluster, ...] = (),
    exporters: tuple[ClusterId, ...] = (WEST, EAST),
) -> Seen:
    view = FederationView(
        members={
            cluster: Member(cluster=cluster, region=Region(cluster), instance="i")
            for cluster in (WEST, EAST)
        },
        exports={
            it.service: {cluster: export(cluster, it.service) for cluster in exporters}
            for it in services
        },
    )
    manifest = ResolvedManifest(
        term=7, resolver="r", epoch=1, count=len(services), checksum="", silent=silent
    )
    stored = Stored({it.service: it for it in services}, drains or {}, manifest)
    return Seen(term=7, view=view, stored=stored, problems=2)


def shown(found: Seen | None, *, now_s: float = 1000.0) -> dict[str, Shown]:
    made: dict[str, dict[tuple[str, ...], float]] = {}
    for spec, labels, value in observe(found, now_s=now_s):
        assert spec in OBSERVED
        assert len(labels) == len(spec.labels)
        assert labels not in made.setdefault(spec.name, {}), "one series twice"
        made[spec.name][labels] = value
    return made


def test_who_does_not_lead_shows_nothing_else() -> None:
    assert shown(None) == {catalogue.LEADING.name: {(): 0.0}, catalogue.TERM.name: {(): 0.0}}


def test_services_are_told_by_what_becomes_of_policy() -> None:
    as_asked = service(USERS, share(WEST, 6000, 6000), share(EAST, 4000, 4000))
    moved = service(
        ServiceName(namespace="app", name="moved"), share(WEST, 10000, 0), share(EAST, 0, 10000)
    )
    nowhere = service(ServiceName(namespace="app", name="nowhere"))
    found = shown(seen(as_asked, moved, nowhere))
    assert found[catalogue.SERVICES.name] == {
        ("as_asked",): 1.0,
        ("moved",): 1.0,
        ("no_target",): 1.0,
    }
    assert found[catalogue.NO_TARGET.name] == {("app/nowhere", "us-west-1"): 1.0}
    tiers = found[catalogue.TIER.name]
    assert [tiers[f"app/{name}", "us-west-1"] for name in ("users", "moved", "nowhere")] == [
        0.0,
        1.0,
        -1.0,
    ]


def test_a_service_of_several_clusters_that_hangs_on_one_is_told() -> None:
    alone = service(USERS, share(WEST, 10000, 10000))
    assert shown(seen(alone))[catalogue.NO_FAILOVER.name] == {("app/users", "us-west-1"): 1.0}
    # It is meant to be alone, or has somewhere to go, or is shared.
    assert catalogue.NO_FAILOVER.name not in shown(seen(alone, exporters=(WEST,)))
    backed = service(USERS, share(WEST, 10000, 10000, BEHIND))
    assert catalogue.NO_FAILOVER.name not in shown(seen(backed))
    shared = service(USERS, share(WEST, 5000, 5000), share(EAST, 5000, 5000))
    assert catalogue.NO_FAILOVER.name not in shown(seen(shared))


def test_silent_clusters_are_told_with_their_time() -> None:
    silent = (SilentCluster(cluster=EAST, since_ms=940_000),)
    found = shown(seen(silent=silent))
    assert found[catalogue.STALE.name] == {(WEST,): 0.0, (EAST,): 60.0}
    assert found[catalogue.CLUSTERS.name] == {(): 2.0}
    assert found[catalogue.STORED_PROBLEMS.name] == {(): 2.0}


def test_series_by_service_are_bounded() -> None:
    names = [ServiceName(namespace="app", name=f"s{number:05}") for number in range(NAMED_MAX + 9)]
    found = shown(seen(*(service(name) for name in names)))
    assert len(found[catalogue.NO_TARGET.name]) == NAMED_MAX
    assert found[catalogue.SERVICES.name]["no_target",] == NAMED_MAX + 9


def drain_state(name: str, **fields: object) -> DrainState:
    spec = Drain(
        name=name, target_kind=DrainTargetKind.REGION, target="us-west-1", over_ms=0, grace_ms=0
    )
    told: dict[str, object] = {
        "drain": name,
        "spec": spec,
        "started_at_ms": 900_000,
        "phase": DrainPhase.DRAINING,
        "remaining_bp": 2500,
    }
    return DrainState.model_validate(told | fields)


def test_drains_are_told_with_what_they_leave() -> None:
    refusal = Refusal(code=RefusalCode.REFUSED, message="nobody left")
    drains = {
        "west": drain_state("west", streams_left=7),
        "back": drain_state("back", returning_since_ms=999_000, returning_from_bp=0),
        "refused": drain_state("refused", refusal=refusal),
    }
    found = shown(seen(drains=drains))
    assert found[catalogue.DRAINS_REFUSED.name] == {(): 1.0}
    assert found[catalogue.DRAIN_REMAINING.name] == {("west",): 0.25, ("back",): 0.25}
    assert found[catalogue.DRAIN_STREAMS.name] == {("west",): 7.0}
    assert found[catalogue.DRAIN_PHASE.name] == {
        ("west", "Draining"): 1.0,
        ("back", "Returning"): 1.0,
    }
    assert found[catalogue.DRAIN_OVERDUE.name] == {("west",): 100.0, ("back",): 1.0}
