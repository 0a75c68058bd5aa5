"""Metrics of a real core: each is moved by what it names, and stands in the catalogue."""

from __future__ import annotations

from gateway.metrics.catalogue import ABUSE_KINDS, COUNTED_ELSEWHERE, PLAIN
from tests.native.support import core, numbers


def test_every_number_of_the_core_is_declared() -> None:
    with core() as driver:
        assert set(numbers(driver)) == set(PLAIN) | set(ABUSE_KINDS) | COUNTED_ELSEWHERE
