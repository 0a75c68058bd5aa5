"""What holds for every drain, whatever happens to it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation.derive.drain import RETURN_OVER_MS, advance, wait_ms
from federation.model.drain import Drain, DrainState, DrainTargetKind
from federation.model.resolved import FULL_SHARE_BP, DrainPhase


def make_drain(over_ms: int, grace_ms: int, expires_ms: int | None) -> Drain:
    return Drain(
        name="x",
        target_kind=DrainTargetKind.REGION,
        target="x",
        over_ms=over_ms,
        grace_ms=grace_ms,
        expires_ms=expires_ms,
    )


drains = st.builds(
    make_drain,
    over_ms=st.integers(0, 20_000),
    grace_ms=st.integers(0, 20_000),
    expires_ms=st.none() | st.integers(1, 50_000),
)
events = st.lists(st.tuples(st.booleans(), st.integers(-3_000, 20_000)), max_size=40)


@given(drains, events)
def test_weight_falls_while_drained_and_rises_while_returning(
    drain: Drain, course: list[tuple[bool, int]]
) -> None:
    """``course``: whether the drain is asked for, and how far the clock moves (back, too)."""
    state: DrainState | None = None
    now_ms = 1_000_000
    for asked, moved_ms in course:
        now_ms += moved_ms
        before = state.remaining_bp if state else FULL_SHARE_BP
        moved = advance(drain if asked else None, state, now_ms)
        state = moved.state
        after = state.remaining_bp if state else FULL_SHARE_BP
        if asked and not moved.expired:
            assert after <= before
        else:
            assert after >= before
        assert 0 <= after <= FULL_SHARE_BP
        if state is not None:
            wait = wait_ms(state, now_ms)
            assert wait is None or wait > 0


@given(drains, events)
def test_looking_again_at_the_same_time_changes_nothing(
    drain: Drain, course: list[tuple[bool, int]]
) -> None:
    state: DrainState | None = None
    now_ms = 1_000_000
    for asked, moved_ms in course:
        now_ms += moved_ms
        wanted = drain if asked else None
        moved = advance(wanted, state, now_ms)
        state = moved.state
        if not moved.expired:
            assert advance(wanted, state, now_ms).state == state


@given(drains.filter(lambda drain: drain.expires_ms is None))
def test_every_drain_ends_drained_and_every_undo_ends_whole(drain: Drain) -> None:
    state = advance(drain, None, 0).state
    steps = 0
    now_ms = 0
    while state is not None and (wait := wait_ms(state, now_ms)) is not None:
        now_ms += wait
        state = advance(drain, state, now_ms).state
        steps += 1
        assert steps < 200
    assert state is not None
    assert (state.phase, state.remaining_bp) == (DrainPhase.DRAINED, 0)
    assert now_ms == drain.over_ms + drain.grace_ms
    back = advance(None, state, now_ms).state
    assert advance(None, back, now_ms + RETURN_OVER_MS).state is None
