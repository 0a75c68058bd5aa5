"""The course of drains, and whether they may start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.derive.drain import (
    RETURN_OVER_MS,
    TICK_MS,
    advance,
    drain_name,
    effect,
    wait_ms,
)
from federation.derive.drain_admission import Admitted, Refused, admit, target_kind
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import Drain, DrainState, DrainTargetKind
from federation.model.facts import (
    ClusterGateways,
    ExportFact,
    Heartbeat,
    Member,
    PeerGateway,
    ServicePort,
)
from federation.model.resolved import FULL_SHARE_BP, DrainPhase
from federation.model.view import FederationView

USERS = ServiceName(namespace="app", name="user-service")
EAST = Drain(
    name="us-east-1",
    target_kind=DrainTargetKind.REGION,
    target="us-east-1",
    over_ms=10_000,
    grace_ms=5_000,
)
START = 1_000_000


def state_at(drain: Drain | None, state: DrainState | None, at_ms: int) -> DrainState:
    found = advance(drain, state, START + at_ms).state
    assert found is not None
    return found


class TestCourse:
    def test_a_drain_ramps_then_waits_then_is_drained(self) -> None:
        state = state_at(EAST, None, 0)
        assert (state.phase, state.remaining_bp) == (DrainPhase.RAMPING, FULL_SHARE_BP)
        state = state_at(EAST, state, 2_500)
        assert (state.phase, state.remaining_bp) == (DrainPhase.RAMPING, 7_500)
        state = state_at(EAST, state, 10_000)
        assert (state.phase, state.remaining_bp) == (DrainPhase.DRAINING, 0)
        state = state_at(EAST, state, 15_000)
        assert (state.phase, state.remaining_bp) == (DrainPhase.DRAINED, 0)
        assert wait_ms(state, START + 15_000) is None

    def test_without_a_ramp_all_goes_at_once(self) -> None:
        state = state_at(EAST.model_copy(update={"over_ms": 0}), None, 0)
        assert (state.phase, state.remaining_bp) == (DrainPhase.DRAINING, 0)

    def test_looking_twice_within_a_tick_changes_nothing(self) -> None:
        state = state_at(EAST, state_at(EAST, None, 0), TICK_MS)
        assert state_at(EAST, state, 2 * TICK_MS - 1) == state
        assert wait_ms(state, START + 2 * TICK_MS - 1) == 1

    def test_a_clock_that_goes_back_gives_nothing_back(self) -> None:
        state = state_at(EAST, state_at(EAST, None, 0), 5_000)
        assert state_at(EAST, state, 1_000) == state
        assert state_at(EAST, state, -9_000).remaining_bp == state.remaining_bp

    def test_a_clock_that_is_far_behind_goes_on_from_where_it_stands(self) -> None:
        hour_ms = 3_600_000
        half = state_at(EAST, state_at(EAST, None, 0), EAST.over_ms // 2)
        successor = state_at(EAST, half, -hour_ms)
        assert successor.remaining_bp == FULL_SHARE_BP // 2
        assert state_at(EAST, successor, EAST.over_ms // 2 - hour_ms).remaining_bp == 0
        back = state_at(None, half, 20_000)
        successor = state_at(None, back, -hour_ms)
        assert successor.remaining_bp == back.remaining_bp
        assert advance(None, successor, START + RETURN_OVER_MS - hour_ms).state is None

    def test_undone_weight_returns_at_a_bounded_rate(self) -> None:
        state = state_at(EAST, state_at(EAST, None, 0), 20_000)
        back = state_at(None, state, 30_000)
        assert back.returning
        assert back.remaining_bp == 0
        half = state_at(None, back, 30_000 + RETURN_OVER_MS // 2)
        assert half.remaining_bp == FULL_SHARE_BP // 2
        assert advance(None, half, START + 30_000 + RETURN_OVER_MS).state is None

    def test_undone_before_anything_moved_ends_at_once(self) -> None:
        assert advance(None, state_at(EAST, None, 0), START + 1).state is None

    def test_drained_again_while_returning_goes_on_from_there(self) -> None:
        state = state_at(EAST, state_at(EAST, None, 0), 20_000)
        half = state_at(None, state_at(None, state, 30_000), 30_000 + RETURN_OVER_MS // 2)
        again = state_at(EAST, half, 40_000)
        assert not again.returning
        assert again.remaining_bp == FULL_SHARE_BP // 2
        assert state_at(EAST, again, 45_000).remaining_bp == 0

    def test_an_expired_drain_ends_by_itself(self) -> None:
        drain = EAST.model_copy(update={"expires_ms": 60_000})
        state = state_at(drain, state_at(drain, None, 0), 20_000)
        assert wait_ms(state, START + 20_000) == 40_000
        ended = advance(drain, state, START + 60_000)
        assert ended.expired
        assert ended.state is not None
        assert ended.state.returning

    def test_nothing_asked_and_nothing_running_is_nothing(self) -> None:
        assert advance(None, None, START).state is None


class TestEffect:
    def test_the_strictest_of_several_drains_counts(self) -> None:
        region = state_at(EAST, state_at(EAST, None, 0), 5_000)
        spec = Drain(name="east-a", target_kind=DrainTargetKind.CLUSTER, target="east-a", over_ms=0)
        found = effect(
            [region, state_at(spec, None, 0)],
            cluster=ClusterId("east-a"),
            region=Region("us-east-1"),
            service=USERS,
        )
        assert found.remaining_bp == 0
        assert found.visible is not None
        assert found.visible.drain == "east-a"

    def test_a_drain_of_one_service_leaves_the_others(self) -> None:
        spec = EAST.model_copy(update={"service": USERS})
        state = state_at(spec, state_at(spec, None, 0), 10_000)
        orders = ServiceName(namespace="app", name="orders")
        where = {"cluster": ClusterId("us-east-1"), "region": Region("us-east-1")}
        assert effect([state], **where, service=USERS).remaining_bp == 0
        assert effect([state], **where, service=orders).remaining_bp == FULL_SHARE_BP

    def test_names_of_drains_tell_services_apart(self) -> None:
        assert drain_name("us-east-1", None) == "us-east-1"
        assert drain_name("us-east-1", USERS) == "us-east-1.app.user-service"


def world(**ready: int) -> FederationView:
    names = {name.replace("_", "-"): count for name, count in ready.items()}
    return FederationView(
        members={
            ClusterId(n): Member(cluster=ClusterId(n), region=Region(n), instance=n) for n in names
        },
        heartbeats={
            ClusterId(n): Heartbeat(
                cluster=ClusterId(n), instance=n, seen_revision=1, version="0.1.0"
            )
            for n in names
        },
        gateways={
            ClusterId(n): ClusterGateways(
                cluster=ClusterId(n),
                region=Region(n),
                gateways=(PeerGateway(name="gw", address="127.0.0.1:1"),),
            )
            for n in names
        },
        exports={
            USERS: {
                ClusterId(n): ExportFact(
                    cluster=ClusterId(n),
                    region=Region(n),
                    service=USERS,
                    ports=(ServicePort(port=9090),),
                    ready=count,
                    total=3,
                    capacity=count,
                )
                for n, count in names.items()
            }
        },
    )


class TestAdmission:
    def test_enough_is_left(self) -> None:
        verdict = admit(EAST, world(us_east_1=3, us_west_1=3))
        assert verdict == Admitted(verdict.impacts)
        assert str(verdict.impacts[0]) == (
            "app/user-service: 3 of 6 units of ready capacity are left, in us-west-1 (3 ready)"
        )

    def test_the_last_healthy_region_is_refused_saying_what_is_left(self) -> None:
        verdict = admit(EAST, world(us_east_1=3, us_west_1=0))
        assert isinstance(verdict, Refused)
        assert verdict.reason == (
            "draining us-east-1 would leave no healthy cluster for app/user-service "
            "(us-west-1 has 0 of 3 endpoints ready). Use --force to drain all the same"
        )

    def test_a_drained_region_is_no_rest(self) -> None:
        other = Drain(name="w", target_kind=DrainTargetKind.REGION, target="us-west-1")
        view = replace(world(us_east_1=3, us_west_1=3), drains={"w": other})
        verdict = admit(EAST, view)
        assert isinstance(verdict, Refused)
        assert "(us-west-1 is drained)" in verdict.reason

    def test_a_region_without_gateways_is_no_rest(self) -> None:
        view = replace(world(us_east_1=3, us_west_1=3), gateways={})
        assert admit(EAST, view) == Admitted(())  # nobody reaches the target either

    def test_force_admits_and_warns(self) -> None:
        verdict = admit(EAST.model_copy(update={"forced": True}), world(us_east_1=3))
        assert isinstance(verdict, Admitted)
        (warning,) = verdict.warnings
        assert warning == (
            "forced: draining us-east-1 would leave no healthy cluster for app/user-service "
            "(no other cluster exports it)"
        )

    def test_a_small_rest_is_warned_about(self) -> None:
        verdict = admit(EAST, world(us_east_1=9, us_west_1=1))
        assert isinstance(verdict, Admitted)
        assert verdict.warnings[0].startswith("app/user-service: 1 of 10 units of ready capacity")

    def test_a_stale_rest_is_warned_about(self) -> None:
        whole = world(us_east_1=1, us_west_1=1, eu_west_1=1)
        heard = {name: beat for name, beat in whole.heartbeats.items() if name != "us-west-1"}
        verdict = admit(EAST, replace(whole, heartbeats=heard))
        assert isinstance(verdict, Admitted)
        assert "us-west-1 is stale" in verdict.warnings[0]

    def test_a_rest_that_is_stale_as_a_whole_is_no_rest(self) -> None:
        view = replace(world(us_east_1=1, us_west_1=1), heartbeats={})
        verdict = admit(EAST, view)
        assert isinstance(verdict, Refused)
        assert "app/user-service (us-west-1 is stale: nothing is heard of it)" in verdict.reason

    def test_what_the_target_does_not_serve_is_not_its_business(self) -> None:
        assert admit(EAST, world(us_east_1=0, us_west_1=0)) == Admitted(())

    def test_an_unknown_target_is_refused_by_name(self) -> None:
        verdict = admit(EAST.model_copy(update={"target": "mars"}), world(us_east_1=1))
        assert isinstance(verdict, Refused)
        assert "known names: us-east-1" in verdict.reason

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("us-east-1", DrainTargetKind.REGION), ("mars", None)],
    )
    def test_a_name_that_is_both_means_the_region(
        self, name: str, kind: DrainTargetKind | None
    ) -> None:
        assert target_kind(world(us_east_1=1), name) is kind
