"""When results of checks become a verdict, and which endpoints are checked at all."""

from __future__ import annotations

import pytest

from gateway.health import Streak, Target, targets
from gateway.xds_translate import HealthPlan, Kind, Piece, PieceId

PLAN = HealthPlan(1000, 500, unhealthy_threshold=3, healthy_threshold=2)


@pytest.mark.parametrize(
    ("results", "verdicts"),
    [
        ("+", [True]),
        ("++", [True, None]),
        ("---", [None, None, False]),
        ("--+", [None, None, True]),
        ("+---", [True, None, None, False]),
        ("+--+--", [True, None, None, None, None, None]),
        ("---++", [None, None, False, None, True]),
        ("---+-++", [None, None, False, None, None, None, True]),
    ],
)
def test_a_verdict_needs_as_many_equal_results_as_the_plan_says(
    results: str, verdicts: list[bool | None]
) -> None:
    streak = Streak()
    assert [streak.add(passed=result == "+", plan=PLAN) for result in results] == verdicts


def test_only_own_endpoints_of_clusters_with_a_plan_are_checked() -> None:
    def pieces(name: str, plan: HealthPlan | None) -> list[Piece]:
        endpoints = [
            {"address": "10.0.0.1:90", "peer": False},
            {"address": "10.9.0.1:15444", "peer": True},
        ]
        body = {"cluster": name, "localities": [{"endpoints": endpoints}]}
        return [
            Piece(PieceId(Kind.CLUSTERS, name), {"name": name}, health=plan),
            Piece(PieceId(Kind.ENDPOINTS, name), body),
        ]

    in_force = {p.id: p for p in [*pieces("checked", PLAN), *pieces("unchecked", None)]}
    assert targets(in_force) == {Target("checked", "10.0.0.1:90"): PLAN}
