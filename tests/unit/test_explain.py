"""What people are told about the federation."""

from __future__ import annotations

from dataclasses import replace

from federation.derive.explain import explain, find_region, find_service
from federation.derive.explain_status import LeaderStatus, summarize
from federation.derive.resolve import resolve
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import Drain, DrainState, DrainTargetKind
from federation.model.facts import (
    ClusterGateways,
    ClusterWeight,
    ExportFact,
    Heartbeat,
    Member,
    PeerGateway,
    ServicePolicyFact,
    ServicePort,
)
from federation.model.resolved import (
    DrainPhase,
    ReasonCode,
    ResolvedManifest,
    SilentCluster,
)
from federation.model.view import FederationView

USERS = ServiceName(namespace="app", name="user-service")
WEST, EAST, EU = ClusterId("us-west-1"), ClusterId("us-east-1"), ClusterId("eu-1")


def world() -> FederationView:
    clusters = (WEST, EAST, EU)
    policy = ServicePolicyFact(
        cluster=WEST,
        service=USERS,
        import_name="users",
        weights=(ClusterWeight(target=WEST, weight=60), ClusterWeight(target=EAST, weight=40)),
        weights_origin="MultiClusterService app/global",
    )
    view = FederationView(
        revision=7,
        members={
            c: Member(cluster=c, region=Region("eu" if c == EU else c), instance=c)
            for c in clusters
        },
        heartbeats={
            c: Heartbeat(cluster=c, instance=c, seen_revision=7, version="0.1.0")
            for c in (WEST, EU)
        },
        gateways={
            c: ClusterGateways(
                cluster=c,
                region=Region(c),
                gateways=(PeerGateway(name="gw", address="127.0.0.1:1"),),
            )
            for c in clusters
        },
        exports={
            USERS: {
                c: ExportFact(
                    cluster=c,
                    region=Region("eu" if c == EU else c),
                    service=USERS,
                    ports=(ServicePort(port=9090),),
                    ready=2,
                    total=3,
                    capacity=2,
                )
                for c in clusters
            }
        },
        policies={USERS: {WEST: policy}},
        resolved_manifest=ResolvedManifest(
            term=4,
            resolver="one",
            epoch=1,
            count=1,
            checksum="",
            silent=(SilentCluster(cluster=EAST, since_ms=1_000),),
        ),
    )
    return replace(view, resolved=resolve(view, drains={}, previous={}, now_ms=0).services)


def test_a_service_is_found_by_its_name_or_its_imports() -> None:
    view = world()
    assert find_service(view, USERS) == USERS
    assert find_service(view, ServiceName(namespace="app", name="users")) == USERS
    assert find_service(view, ServiceName(namespace="app", name="user-service-import")) == USERS
    assert find_service(view, ServiceName(namespace="app", name="orders")) is None


def test_a_cluster_stands_for_its_region() -> None:
    assert find_region(world(), "eu-1") == "eu"
    assert find_region(world(), "eu") == "eu"
    assert find_region(world(), "mars") is None


def test_every_exporting_cluster_has_a_row_and_a_reason() -> None:
    found = explain(world(), USERS, Region("us-west-1"))
    assert [(row.cluster, row.weight_bp) for row in found.clusters] == [
        (WEST, 6000),
        (EAST, 4000),
        (EU, 0),
    ]
    assert found.imports == ("users",)
    assert found.weights_origin == "MultiClusterService app/global"
    assert all(row.reasons for row in found.clusters)
    assert [row.stale for row in found.clusters] == [False, True, False]
    standby = found.clusters[2].reasons[-1]
    assert standby.code is ReasonCode.REMAINING_CAPACITY
    assert "stands in tier 2 behind us-west-1" in standby.message


def test_before_any_resolution_it_says_so() -> None:
    found = explain(replace(world(), resolved={}), USERS, Region("us-west-1"))
    assert "no resolver has resolved app/user-service" in found.reasons[0].message
    assert len(found.clusters) == 3


def test_status_shows_members_with_their_age() -> None:
    found = summarize(world(), leader=LeaderStatus(resolver="one", term=4), now_ms=61_000)
    ages = {member.cluster: (member.stale, member.stale_age_s) for member in found.members}
    assert ages == {WEST: (False, None), EAST: (True, 60), EU: (False, None)}
    assert found.services[0].weights_bp[Region("eu")] == {WEST: 6000, EAST: 4000}


def test_status_shows_drains_with_their_progress() -> None:
    asked = Drain(name="eu", target_kind=DrainTargetKind.REGION, target="eu")
    gone = Drain(name=EAST, target_kind=DrainTargetKind.REGION, target=EAST)
    back = DrainState(
        drain=EAST,
        spec=gone,
        started_at_ms=0,
        phase=DrainPhase.RAMPING,
        remaining_bp=2500,
        returning_since_ms=1,
    )
    view = replace(world(), drains={"eu": asked}, drain_states={EAST: back})
    found = summarize(view, leader=None, now_ms=61_000)
    assert [(d.name, d.progress, d.remaining_bp, d.requested) for d in found.drains] == [
        ("eu", "Pending", None, True),
        (EAST, "Returning", 2500, False),
    ]
