"""Shares of a rate limit: what holds for any limit, members and demand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation.derive.quota import CALM_PART, IDLE_PART, divide, is_calm

LIMITS = st.integers(0, 10**9)
DEMANDS = st.dictionaries(st.text(max_size=4), st.integers(0, 10**9), max_size=12)


@given(LIMITS, DEMANDS)
def test_shares_are_the_limit_in_any_order(limit: int, demand: dict[str, int]) -> None:
    shares = divide(limit, demand)
    assert shares.keys() == demand.keys()
    assert sum(shares.values()) == (limit if demand else 0)
    assert all(share >= 0 for share in shares.values())
    assert divide(limit, dict(reversed(demand.items()))) == shares


@given(LIMITS, DEMANDS.filter(bool))
def test_everyone_has_a_little_and_the_idle_no_more_than_that(
    limit: int, demand: dict[str, int]
) -> None:
    shares, number = divide(limit, demand), len(demand)
    if limit >= number:
        assert min(shares.values()) >= 1
    idle = [share for member, share in shares.items() if not demand[member]]
    if any(demand.values()):
        assert sum(idle) <= max(limit / IDLE_PART, min(limit, len(idle)))


@given(LIMITS, DEMANDS)
def test_who_is_asked_for_more_has_no_less(limit: int, demand: dict[str, int]) -> None:
    shares = divide(limit, demand)
    for one, asked in demand.items():
        for other, less in demand.items():
            if asked > less:
                # Rounding gives one more to the larger remainder, not to the larger demand.
                assert shares[one] >= shares[other] - 1


@given(LIMITS, DEMANDS.filter(bool), st.integers(1, 1000))
def test_only_proportions_count(limit: int, demand: dict[str, int], factor: int) -> None:
    larger = {member: rate * factor for member, rate in demand.items()}
    assert divide(limit, larger) == divide(limit, demand)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_what_everyone_asks_for_is_what_they_get(limit: int, asked: int, other: int) -> None:
    """Two members: apart from the little for each, shares are as demands, to one call."""
    demand = {"a": asked, "b": other}
    shares = divide(limit, demand)
    least = min(limit // 2, max(1, limit // (IDLE_PART * 2)))
    exact = least + (limit - 2 * least) * asked / (asked + other)
    assert abs(shares["a"] - exact) <= 1


@given(LIMITS, DEMANDS, st.data())
def test_nobody_has_less_than_was_used_and_the_sum_holds(
    limit: int, demand: dict[str, int], data: st.DataObject
) -> None:
    used = {member: data.draw(st.integers(0, limit)) for member in demand}
    shares = divide(limit, demand, used)
    assert sum(shares.values()) == (limit if demand else 0)
    if sum(used.values()) <= limit:
        assert all(shares[member] >= used[member] for member in demand)


@given(LIMITS, DEMANDS, DEMANDS)
def test_calm_is_near_and_of_the_same_sum(
    limit: int, shares: dict[str, int], demand: dict[str, int]
) -> None:
    wanted = divide(limit, demand)
    assert is_calm(limit, wanted, wanted)
    if is_calm(limit, shares, wanted):
        assert sum(shares.values()) == sum(wanted.values())
        for member, share in shares.items():
            assert abs(share - wanted[member]) * CALM_PART <= limit


def test_what_was_used_stays() -> None:
    assert divide(200, {"a": 9, "b": 0}, {"a": 100, "b": 100}) == {"a": 100, "b": 100}
    assert divide(200, {"a": 9, "b": 0}, {"a": 100}) == {"a": 190, "b": 10}
    assert divide(200, {"a": 0, "b": 9}, {"a": 150}) == {"a": 160, "b": 40}
    assert divide(100, {"a": 0, "b": 9}, {"a": 150, "b": 50}) == {"a": 75, "b": 25}


def test_a_limit_smaller_than_the_number_of_members_goes_to_the_demand() -> None:
    assert divide(1, {"a": 0, "b": 7, "c": 0}) == {"a": 0, "b": 1, "c": 0}
    assert divide(2, {"a": 0, "b": 0, "c": 0}) == {"a": 1, "b": 1, "c": 0}
    assert divide(1000, {"a": 0, "b": 7}) == {"a": 50, "b": 950}
    assert divide(1000, {"a": 100, "b": 300}) == {"a": 275, "b": 725}
