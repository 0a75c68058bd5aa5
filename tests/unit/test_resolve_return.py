"""How the part of a cluster that was down comes back: in steps, held if it comes and goes."""

from __future__ import annotations

import pytest

from federation.derive.resolve import Resolution, resolve
from federation.derive.resolve_return import ReturnPace, advance_standings, wait_ms
from federation.model.base import ClusterId
from federation.model.resolved import FULL_SHARE_BP, ReasonCode, ResolvedService, Standing
from federation.resolver import ResolverSettings
from tests.unit.test_resolve import (
    BOTH_WAYS,
    SERVICE,
    SIXTY_FORTY,
    TWO,
    codes,
    resolved,
    view_of,
    weights,
)

WEST, EAST = ClusterId("us-west-1"), ClusterId("us-east-1")
PACE = ReturnPace(over_ms=5_000, hold_ms=10_000)
LONG_MS = 1_000_000


def at(ready: dict[str, int], now_ms: int, before: ResolvedService | None) -> ResolvedService:
    view = view_of(TWO, ready=ready, weights=SIXTY_FORTY, failover=BOTH_WAYS)
    return resolved(view, previous=before, now_ms=now_ms)


BOTH = {"us-west-1": 3, "us-east-1": 3}
WEST_ALONE = {"us-west-1": 3, "us-east-1": 0}


def east_bp(service: ResolvedService) -> int:
    return weights(service, "us-west-1")["us-east-1"]


def after_an_outage() -> ResolvedService:
    """East has been whole for long, and then lost its endpoints."""
    return at(WEST_ALONE, LONG_MS, at(BOTH, 0, None))


def test_clusters_that_start_together_have_their_parts_at_once() -> None:
    first = at(BOTH, 0, None)
    assert weights(first, "us-west-1") == {"us-west-1": 6000, "us-east-1": 4000}
    shortly_after = at(BOTH, 100, at({"us-west-1": 3}, 0, None))
    assert weights(shortly_after, "us-west-1") == {"us-west-1": 6000, "us-east-1": 4000}


def test_a_part_leaves_at_once_and_returns_in_steps_from_the_first_moment() -> None:
    service = after_an_outage()
    assert east_bp(service) == 0
    back_ms = LONG_MS + 60_000
    seen = []
    for now_ms in range(back_ms, back_ms + 5_001, 500):
        service = at(BOTH, now_ms, service)
        seen.append(east_bp(service))
    assert seen == [400, 800, 1200, 1600, 2000, 2400, 2800, 3200, 3600, 4000, 4000]


def test_the_reason_says_how_much_is_back() -> None:
    service = at(BOTH, LONG_MS + 60_000, after_an_outage())
    assert codes(service, "us-west-1", "us-east-1")[-1] is ReasonCode.RETURNING
    source = service.sources[0]
    share = next(share for share in source.shares if share.cluster == EAST)
    assert share.weight_asked_bp == 4000
    assert share.reasons[-1].message == (
        "us-east-1 is back; it has 10 % of its part, and more with time"
    )


def test_a_cluster_that_is_exported_anew_returns_in_steps_too() -> None:
    before = at(BOTH, 0, None)
    gone = at({"us-west-1": 3}, LONG_MS, before)
    assert east_bp(at(BOTH, LONG_MS + 60_000, gone)) == 400


def test_a_cluster_whose_gateway_comes_first_returns_to_others_alone() -> None:
    view = view_of(TWO, ready=BOTH, without_gateway=("us-east-1",))
    before = resolved(view, now_ms=LONG_MS, previous=resolved(view))
    reached = resolved(view_of(TWO, ready=BOTH), now_ms=LONG_MS + 60_000, previous=before)
    assert weights(reached, "us-east-1") == {"us-east-1": 10_000}, "its own callers always did"


def test_a_cluster_that_comes_back_when_nobody_else_can_has_all_at_once() -> None:
    before = at(BOTH, 0, None)
    nobody = at({"us-west-1": 0, "us-east-1": 0}, LONG_MS, before)
    assert weights(nobody, "us-west-1") == {"us-west-1": 6000, "us-east-1": 4000}
    east = at({"us-west-1": 0, "us-east-1": 1}, LONG_MS + 60_000, nobody)
    assert east_bp(east) == 10_000
    both = at(BOTH, LONG_MS + 70_000, east)
    assert east_bp(both) == 9_400, "the other returns in steps"


def test_when_the_whole_one_dies_the_returning_one_takes_all() -> None:
    returning = at(BOTH, LONG_MS + 60_000, after_an_outage())
    assert east_bp(returning) == 400
    assert east_bp(at({"us-west-1": 0, "us-east-1": 3}, LONG_MS + 60_100, returning)) == 10_000


def test_patched_weights_hold_at_once() -> None:
    before = at(BOTH, 0, None)
    turned = view_of(TWO, ready=BOTH, weights={"us-west-1": 0, "us-east-1": 100})
    assert east_bp(resolved(turned, previous=before, now_ms=10)) == 10_000


def test_flapping_swings_no_more_than_the_first_step() -> None:
    service = after_an_outage()
    seen = []
    for flap in range(20):
        now_ms = LONG_MS + 60_000 + flap * 2_000
        service = at(BOTH, now_ms, service)
        seen.append(east_bp(service))
        service = at(BOTH, now_ms + 999, service)
        seen.append(east_bp(service))
        service = at(WEST_ALONE, now_ms + 1_000, service)
    assert seen[:2] == [400, 800], "the first return is not suspected yet"
    assert set(seen[2:]) == {400}


def test_a_held_return_goes_on_after_the_hold() -> None:
    back_ms = LONG_MS + 60_000
    service = at(WEST_ALONE, back_ms + 2_000, at(BOTH, back_ms, after_an_outage()))
    again_ms = back_ms + 3_000
    service = at(BOTH, again_ms, service)
    service = at(BOTH, again_ms + 10_000, service)
    assert east_bp(service) == 400
    service = at(BOTH, again_ms + 10_500, service)
    assert east_bp(service) == 800
    assert east_bp(at(BOTH, again_ms + 15_000, service)) == 4000


def test_a_successor_goes_on_from_what_is_stored_whatever_its_clock_says() -> None:
    half = at(BOTH, LONG_MS + 62_000, at(BOTH, LONG_MS + 60_000, after_an_outage()))
    assert east_bp(half) == 2000
    behind = at(BOTH, 5_000, half)
    assert east_bp(behind) == 2000, "a clock that is behind takes nothing back"
    assert east_bp(at(BOTH, 10_000, behind)) == 4000, "and does not wait until it catches up"
    assert east_bp(at(BOTH, LONG_MS + 62_500, half)) == 2400


def test_a_pace_of_zero_returns_all_at_once() -> None:
    before = after_an_outage()
    view = view_of(TWO, ready=BOTH, weights=SIXTY_FORTY)
    found = resolve(
        view,
        drains={},
        previous={SERVICE: before},
        now_ms=LONG_MS + 60_000,
        pace=ReturnPace(over_ms=0),
    )
    assert east_bp(found.services[SERVICE]) == 4000
    assert not found.waits


def test_the_resolver_is_called_again_at_each_step_and_then_rests() -> None:
    view = view_of(TWO, ready=BOTH, weights=SIXTY_FORTY)
    found = Resolution(services={SERVICE: after_an_outage()})
    now_ms, steps = LONG_MS + 60_123, 0
    while steps < 50:
        found = resolve(view, drains={}, previous=found.services, now_ms=now_ms, before=found)
        if not found.waits:
            break
        now_ms, steps = now_ms + found.waits[SERVICE], steps + 1
    assert steps == 9
    assert east_bp(found.services[SERVICE]) == 4000


def test_a_lost_cluster_is_remembered_while_it_is_known() -> None:
    lost = Standing(cluster=EAST, since_ms=0, returned_bp=0, lost_ms=10)
    for known, expected in (([EAST], (lost,)), ([], ())):
        found = advance_standings([lost], able=(), receiving=(), known=known, pace=PACE, now_ms=99)
        assert found == expected
        assert wait_ms(found, PACE, 99) is None


def test_drained_clusters_do_not_count_as_the_one_that_is_whole() -> None:
    whole = Standing(cluster=WEST, since_ms=0, returned_bp=FULL_SHARE_BP)
    found = advance_standings(
        [whole], able=(WEST, EAST), receiving=(EAST,), known=(WEST, EAST), pace=PACE, now_ms=LONG_MS
    )
    assert {entry.cluster: entry.returned_bp for entry in found} == {
        WEST: FULL_SHARE_BP,
        EAST: FULL_SHARE_BP,
    }


@pytest.mark.parametrize("name", ["return_over_s", "return_hold_s"])
def test_settings_are_bounded(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be between 0 and 600 seconds, got 601"):
        ResolverSettings(identity="one", **{name: 601})
