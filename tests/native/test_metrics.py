"""Metrics of a real core: each is moved by what it names, and stands in the catalogue."""

from __future__ import annotations

from gateway.metrics.catalogue import COUNTED_ELSEWHERE, LABELLED, PLAIN
from tests.native.support import core, numbers


def test_every_number_of_the_core_is_declared() -> None:
    with core() as driver:
        declared = {*PLAIN, *LABELLED, *COUNTED_ELSEWHERE}
        assert declared - set(numbers(driver)) == {"reflection_left_out"}
        assert set(numbers(driver)) - declared == set()
