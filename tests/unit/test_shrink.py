"""Whether missing exports are believed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation.derive.shrink import Publish, Quarantined, judge
from federation.model.base import ServiceName

NAMES = [ServiceName(namespace="app", name=f"s{n}") for n in range(10)]
sets = st.sets(st.sampled_from(NAMES))


def test_an_empty_source_is_not_believed() -> None:
    verdict = judge(stored=NAMES[:2], desired=[])
    assert isinstance(verdict, Quarantined)
    assert verdict.missing == tuple(NAMES[:2])
    assert verdict.reason.startswith("2 of 2 published exports are missing from the source")


def test_what_was_seen_to_be_deleted_is_removed_even_if_it_was_the_last() -> None:
    assert judge(stored=NAMES[:1], desired=[], deleted=NAMES[:1]) == Publish(remove=(NAMES[0],))


def test_a_small_loss_is_believed_while_the_source_shows_the_rest() -> None:
    assert judge(stored=NAMES, desired=NAMES[1:]) == Publish(remove=(NAMES[0],))
    assert isinstance(judge(stored=NAMES, desired=NAMES[3:]), Quarantined)


def test_a_quarantine_still_removes_what_was_deleted() -> None:
    verdict = judge(stored=NAMES, desired=NAMES[8:], deleted=NAMES[:1])
    assert isinstance(verdict, Quarantined)
    assert verdict.remove == (NAMES[0],)
    assert NAMES[0] not in verdict.missing


@given(sets, sets, sets)
def test_nothing_shown_is_removed_and_nothing_stored_is_forgotten(
    stored: set[ServiceName], desired: set[ServiceName], deleted: set[ServiceName]
) -> None:
    verdict = judge(stored=stored, desired=desired, deleted=deleted)
    kept = set(verdict.missing) if isinstance(verdict, Quarantined) else set()
    assert not set(verdict.remove) & desired
    assert stored - desired == set(verdict.remove) | kept
    assert not kept & deleted
    if not desired:
        assert set(verdict.remove) <= deleted
