"""Resolution by example: what is asked, what moves when clusters are down, in which order."""

from __future__ import annotations

import pytest

from federation.derive.resolve import resolve
from federation.derive.resolve_apportion import apportion, reduced
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import Drain, DrainState, DrainTargetKind
from federation.model.facts import (
    ClusterGateways,
    ClusterWeight,
    ExportFact,
    FailoverRule,
    Member,
    PeerGateway,
    ServicePolicyFact,
    ServicePort,
)
from federation.model.resolved import DrainPhase, ReasonCode, ResolvedService, SourceResolution
from federation.model.view import FederationView

SERVICE = ServiceName(namespace="app", name="user-service")


def view_of(
    clusters: dict[str, str],
    *,
    ready: dict[str, int],
    weights: dict[str, int] | None = None,
    failover: tuple[tuple[str, str], ...] = (),
    without_gateway: tuple[str, ...] = (),
) -> FederationView:
    """A view of ``clusters`` (name to region) where those in ``ready`` export the service."""
    policy = ServicePolicyFact(
        cluster=ClusterId(min(clusters)),
        service=SERVICE,
        import_name="user-service-import",
        weights=None
        if weights is None
        else tuple(ClusterWeight(target=name, weight=w) for name, w in weights.items()),
        weights_origin="MultiClusterService app/global",
        failover=tuple(FailoverRule(source=a, target=b) for a, b in failover),
        failover_origin="BackendTrafficPolicy app/failover",
        create_revision=7,
    )
    return FederationView(
        revision=9,
        members={
            ClusterId(name): Member(cluster=ClusterId(name), region=Region(region), instance=name)
            for name, region in clusters.items()
        },
        gateways={
            ClusterId(name): ClusterGateways(
                cluster=ClusterId(name),
                region=Region(region),
                gateways=(PeerGateway(name=f"{name}-gw", address="127.0.0.1:1"),),
            )
            for name, region in clusters.items()
            if name not in without_gateway
        },
        exports={
            SERVICE: {
                ClusterId(name): ExportFact(
                    cluster=ClusterId(name),
                    region=Region(clusters[name]),
                    service=SERVICE,
                    ports=(ServicePort(port=9090),),
                    ready=count,
                    total=max(count, 3),
                    capacity=count,
                    create_revision=5,
                )
                for name, count in ready.items()
            }
        }
        if ready
        else {},
        policies={SERVICE: {policy.cluster: policy}} if weights or failover else {},
    )


def drained(target: str, remaining_bp: int = 0, *, returning: bool = False) -> DrainState:
    """The progress of a drain of a region."""
    spec = Drain(name=target, target_kind=DrainTargetKind.REGION, target=target)
    return DrainState(
        drain=target,
        spec=spec,
        started_at_ms=0,
        phase=DrainPhase.RAMPING if remaining_bp else DrainPhase.DRAINED,
        remaining_bp=remaining_bp,
        returning_since_ms=0 if returning else None,
    )


def resolved(
    view: FederationView,
    *states: DrainState,
    previous: ResolvedService | None = None,
    now_ms: int = 0,
) -> ResolvedService:
    resolution = resolve(
        view,
        drains={state.drain: state for state in states},
        previous={SERVICE: previous} if previous else {},
        now_ms=now_ms,
    )
    return resolution.services[SERVICE]


def source(service: ResolvedService, region: str) -> SourceResolution:
    found = service.source(Region(region))
    assert found is not None
    return found


def weights(service: ResolvedService, region: str) -> dict[str, int]:
    return {str(share.cluster): share.weight_bp for share in source(service, region).shares}


def tiers(service: ResolvedService, region: str, cluster: str) -> list[dict[str, int]]:
    share = next(s for s in source(service, region).shares if s.cluster == cluster)
    return [{str(m.cluster): m.weight for m in tier.members} for tier in share.failover]


def codes(service: ResolvedService, region: str, cluster: str) -> list[ReasonCode]:
    share = next(s for s in source(service, region).shares if s.cluster == cluster)
    return [reason.code for reason in share.reasons]


TWO = {"us-west-1": "us-west-1", "us-east-1": "us-east-1"}
BOTH_WAYS = (("us-west-1", "us-east-1"), ("us-east-1", "us-west-1"))
SIXTY_FORTY = {"us-west-1": 60, "us-east-1": 40}


class TestApportion:
    def test_parts_are_proportional_and_sum_up(self) -> None:
        assert apportion({"a": 60, "b": 40}, 10_000) == {"a": 6000, "b": 4000}
        assert apportion({"a": 1, "b": 1, "c": 1}, 10_000) == {"a": 3334, "b": 3333, "c": 3333}
        assert apportion({"a": 0, "b": 5}, 10_000) == {"a": 0, "b": 10_000}

    def test_nothing_to_divide_by(self) -> None:
        assert apportion({"a": 0}, 10_000) == {"a": 0}
        assert apportion({}, 10_000) == {}

    def test_reduced_hides_the_size_of_a_single_member(self) -> None:
        assert reduced({"a": 7}) == {"a": 1}
        assert reduced({"b": 4000, "a": 6000}) == {"a": 3, "b": 2}
        assert reduced({"a": 0, "b": 4}) == {"a": 1, "b": 4}


class TestWeights:
    def test_explicit_weights_hold_in_every_region(self) -> None:
        service = resolved(
            view_of(TWO, ready={"us-west-1": 3, "us-east-1": 9}, weights=SIXTY_FORTY)
        )
        for region in TWO:
            assert weights(service, region) == {"us-west-1": 6000, "us-east-1": 4000}
        assert codes(service, "us-west-1", "us-east-1") == [ReasonCode.EXPLICIT_WEIGHT]

    def test_region_failover_is_the_first_tier_then_all_others(self) -> None:
        clusters = {"a": "ra", "b": "rb", "c": "rc"}
        service = resolved(
            view_of(
                clusters,
                ready={"a": 1, "b": 1, "c": 1},
                weights={"a": 50, "b": 30, "c": 20},
                failover=(("ra", "rc"),),
            )
        )
        assert tiers(service, "rb", "a") == [{"c": 1}, {"b": 1}]
        assert tiers(service, "rb", "b") == [{"a": 5, "c": 2}]

    def test_weight_of_a_listed_cluster_that_does_not_export_is_redistributed(self) -> None:
        clusters = {"a": "ra", "b": "rb", "c": "rc"}
        service = resolved(
            view_of(clusters, ready={"a": 1, "b": 1}, weights={"a": 40, "b": 20, "c": 40})
        )
        assert weights(service, "rc") == {"a": 6667, "b": 3333}
        found = source(service, "rc")
        assert [share.weight_asked_bp for share in found.shares] == [4000, 2000]
        assert found.reasons[0].code is ReasonCode.NOT_EXPORTED
        assert found.reasons[0].message == (
            "MultiClusterService app/global asks 40 % for c, but c does not export "
            "app/user-service; its weight is redistributed"
        )
        assert ReasonCode.REDISTRIBUTED in codes(service, "rc", "a")

    def test_an_unknown_cluster_is_named(self) -> None:
        service = resolved(
            view_of(TWO, ready={"us-west-1": 1}, weights={"us-west-1": 1, "mars": 1})
        )
        assert weights(service, "us-east-1") == {"us-west-1": 10_000}
        assert source(service, "us-east-1").reasons[0].code is ReasonCode.UNKNOWN_CLUSTER

    def test_weight_zero_gets_nothing_and_takes_over_nothing(self) -> None:
        service = resolved(
            view_of(
                TWO,
                ready={"us-west-1": 1, "us-east-1": 1},
                weights={"us-west-1": 1, "us-east-1": 0},
            )
        )
        assert weights(service, "us-west-1") == {"us-west-1": 10_000, "us-east-1": 0}
        assert tiers(service, "us-west-1", "us-west-1") == []
        assert codes(service, "us-west-1", "us-east-1") == [ReasonCode.ZERO_WEIGHT]

    def test_weight_zero_is_a_standby_where_failover_names_it(self) -> None:
        service = resolved(
            view_of(
                TWO,
                ready={"us-west-1": 0, "us-east-1": 1},
                weights={"us-west-1": 1, "us-east-1": 0},
                failover=BOTH_WAYS,
            )
        )
        assert weights(service, "us-west-1") == {"us-west-1": 0, "us-east-1": 10_000}

    def test_a_region_is_divided_by_ready_capacity(self) -> None:
        clusters = {"w1": "west", "w2": "west", "e1": "east"}
        view = view_of(
            clusters, ready={"w1": 1, "w2": 3, "e1": 5}, weights={"west": 60, "east": 40}
        )
        service = resolved(view)
        assert weights(service, "east") == {"w1": 1500, "w2": 4500, "e1": 4000}
        assert tiers(service, "east", "w1") == [{"w2": 1}, {"e1": 1}]

    def test_a_name_that_is_both_means_the_region(self) -> None:
        clusters = {"west": "west", "w2": "west", "e1": "east"}
        view = view_of(
            clusters, ready={"west": 1, "w2": 1, "e1": 1}, weights={"west": 60, "east": 40}
        )
        assert weights(resolved(view), "east") == {"west": 3000, "w2": 3000, "e1": 4000}

    def test_the_oldest_policy_rules(self) -> None:
        view = view_of(TWO, ready={"us-west-1": 1, "us-east-1": 1}, weights=SIXTY_FORTY)
        older = view.policies[SERVICE][ClusterId("us-east-1")].model_copy(
            update={
                "cluster": ClusterId("us-west-1"),
                "create_revision": 3,
                "weights": (ClusterWeight(target="us-east-1", weight=1),),
            }
        )
        policies = {SERVICE: {**view.policies[SERVICE], older.cluster: older}}
        changed = FederationView(
            members=view.members, gateways=view.gateways, exports=view.exports, policies=policies
        )
        assert weights(resolved(changed), "us-west-1") == {"us-east-1": 10_000}


class TestLocality:
    def test_local_is_preferred_then_failover_then_capacity(self) -> None:
        clusters = {"a": "ra", "b": "rb", "c": "rc", "d": "rd"}
        view = view_of(clusters, ready={"a": 2, "b": 4, "c": 6, "d": 9}, failover=(("ra", "rd"),))
        service = resolved(view)
        assert weights(service, "ra") == {"a": 10_000}
        assert tiers(service, "ra", "a") == [{"d": 1}, {"b": 2, "c": 3}]
        assert codes(service, "ra", "a") == [ReasonCode.LOCAL_PREFERRED]

    def test_local_down_goes_where_failover_says(self) -> None:
        clusters = {"a": "ra", "b": "rb", "c": "rc"}
        view = view_of(clusters, ready={"a": 0, "b": 4, "c": 6}, failover=(("ra", "rb"),))
        service = resolved(view)
        assert weights(service, "ra") == {"a": 0, "b": 10_000}
        assert codes(service, "ra", "a")[-1] is ReasonCode.NO_READY_ENDPOINTS
        assert codes(service, "ra", "b") == [ReasonCode.REGION_FAILOVER]

    def test_nobody_local_goes_by_capacity(self) -> None:
        clusters = {"a": "ra", "b": "rb", "c": "rc"}
        service = resolved(view_of(clusters, ready={"b": 4, "c": 6}))
        assert weights(service, "ra") == {"b": 4000, "c": 6000}
        assert codes(service, "ra", "b") == [ReasonCode.REMAINING_CAPACITY]

    def test_two_local_clusters_back_each_other(self) -> None:
        clusters = {"a1": "ra", "a2": "ra", "b": "rb"}
        service = resolved(view_of(clusters, ready={"a1": 1, "a2": 1, "b": 8}))
        assert weights(service, "ra") == {"a1": 5000, "a2": 5000}
        assert tiers(service, "ra", "a1") == [{"a2": 1}, {"b": 1}]

    def test_a_cluster_without_gateway_serves_its_own_callers_only(self) -> None:
        view = view_of(TWO, ready={"us-west-1": 1, "us-east-1": 1}, without_gateway=("us-west-1",))
        service = resolved(view)
        assert weights(service, "us-west-1") == {"us-west-1": 10_000}
        assert tiers(service, "us-east-1", "us-east-1") == []


class TestDown:
    def test_dead_weight_goes_where_failover_sends_it(self) -> None:
        clusters = {"a": "ra", "b": "rb", "c": "rc"}
        view = view_of(
            clusters,
            ready={"a": 0, "b": 1, "c": 1},
            weights={"a": 50, "b": 30, "c": 20},
            failover=(("ra", "rc"),),
        )
        assert weights(resolved(view), "rb") == {"a": 0, "b": 3000, "c": 7000}

    def test_dead_weight_without_failover_is_redistributed(self) -> None:
        clusters = {"a": "ra", "b": "rb", "c": "rc"}
        view = view_of(
            clusters, ready={"a": 0, "b": 1, "c": 1}, weights={"a": 50, "b": 30, "c": 20}
        )
        assert weights(resolved(view), "rb") == {"a": 0, "b": 6000, "c": 4000}

    def test_everything_unhealthy_keeps_the_last_distribution(self) -> None:
        healthy = view_of(TWO, ready={"us-west-1": 1, "us-east-1": 0}, weights=SIXTY_FORTY)
        before = resolved(healthy)
        dead = view_of(TWO, ready={"us-west-1": 0, "us-east-1": 0}, weights=SIXTY_FORTY)
        after = resolved(dead, previous=before)
        assert weights(after, "us-west-1") == {"us-west-1": 10_000, "us-east-1": 0}
        assert source(after, "us-west-1").reasons[-1].code is ReasonCode.LAST_KNOWN
        assert resolved(dead, previous=after) == after

    def test_everything_unhealthy_without_a_past_takes_what_is_asked(self) -> None:
        dead = view_of(TWO, ready={"us-west-1": 0, "us-east-1": 0}, weights=SIXTY_FORTY)
        assert weights(resolved(dead), "us-west-1") == {"us-west-1": 6000, "us-east-1": 4000}

    def test_no_export_means_no_shares_and_says_so(self) -> None:
        service = resolved(view_of(TWO, ready={}, weights=SIXTY_FORTY))
        found = source(service, "us-west-1")
        assert found.shares == ()
        assert found.reasons[0].message == "no cluster exports app/user-service"

    def test_only_refused_clusters_left_means_no_shares(self) -> None:
        view = view_of(TWO, ready={"us-west-1": 1}, weights={"us-west-1": 0, "us-east-1": 1})
        assert source(resolved(view), "us-west-1").shares == ()


class TestDrains:
    VIEW = view_of(
        TWO, ready={"us-west-1": 3, "us-east-1": 3}, weights=SIXTY_FORTY, failover=BOTH_WAYS
    )

    def test_a_drained_region_gets_nothing_and_backs_nobody(self) -> None:
        service = resolved(self.VIEW, drained("us-east-1"))
        assert weights(service, "us-west-1") == {"us-west-1": 10_000, "us-east-1": 0}
        assert tiers(service, "us-west-1", "us-west-1") == []
        assert tiers(service, "us-west-1", "us-east-1") == [{"us-west-1": 1}]
        assert codes(service, "us-west-1", "us-east-1")[-1] is ReasonCode.DRAINED
        assert [drain.cluster for drain in service.drains] == ["us-east-1"]

    def test_half_drained_keeps_half(self) -> None:
        service = resolved(self.VIEW, drained("us-east-1", 5000))
        assert weights(service, "us-west-1") == {"us-west-1": 8000, "us-east-1": 2000}

    def test_a_drain_takes_inherited_traffic_along_on_its_ramp(self) -> None:
        clusters = {"a": "ra", "b": "rb", "c": "rc"}
        view = view_of(
            clusters,
            ready={"a": 0, "b": 1, "c": 1},
            weights={"a": 50, "b": 30, "c": 20},
            failover=(("ra", "rb"),),
        )
        service = resolved(view, drained("rb", 5000))
        assert weights(service, "rc") == {"a": 0, "b": 4000, "c": 6000}

    def test_without_weights_the_drained_part_leaves_the_region(self) -> None:
        view = view_of(TWO, ready={"us-west-1": 3, "us-east-1": 3})
        service = resolved(view, drained("us-east-1", 2500))
        assert weights(service, "us-east-1") == {"us-east-1": 2500, "us-west-1": 7500}
        assert weights(service, "us-west-1") == {"us-west-1": 10_000}

    def test_draining_everything_by_force_changes_no_weight(self) -> None:
        service = resolved(self.VIEW, drained("us-east-1"), drained("us-west-1"))
        assert weights(service, "us-west-1") == {"us-west-1": 6000, "us-east-1": 4000}
        assert source(service, "us-west-1").reasons[-1].code is ReasonCode.DRAINING

    def test_returning_weight_is_not_told_to_gateways(self) -> None:
        service = resolved(self.VIEW, drained("us-east-1", 5000, returning=True))
        assert weights(service, "us-west-1") == {"us-west-1": 8000, "us-east-1": 2000}
        assert service.drains == ()
        assert tiers(service, "us-west-1", "us-west-1") == [{"us-east-1": 1}]

    def test_a_drain_of_another_service_does_nothing_here(self) -> None:
        state = drained("us-east-1")
        other = state.spec.model_copy(
            update={"service": ServiceName(namespace="app", name="orders")}
        )
        service = resolved(self.VIEW, state.model_copy(update={"spec": other}))
        assert weights(service, "us-west-1") == {"us-west-1": 6000, "us-east-1": 4000}


@pytest.mark.parametrize("missing", ["heartbeats", "stale_since"])
def test_silence_moves_nothing(missing: str) -> None:
    view = view_of(TWO, ready={"us-west-1": 1, "us-east-1": 1}, weights=SIXTY_FORTY)
    assert not getattr(view, missing)
    assert weights(resolved(view), "us-east-1") == {"us-west-1": 6000, "us-east-1": 4000}


def test_unchanged_inputs_reuse_the_result() -> None:
    view = view_of(TWO, ready={"us-west-1": 1, "us-east-1": 1}, weights=SIXTY_FORTY)
    first = resolve(view, drains={}, previous={}, now_ms=0)
    again = resolve(view, drains={}, previous=first.services, now_ms=400, before=first)
    assert again.services[SERVICE] is first.services[SERVICE]
