"""When a status of ours that somebody changed is written again."""

from __future__ import annotations

from federation.adapters.kubernetes.repairs import (
    CALM_S,
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    Repairs,
    holds,
)
from federation.model.objects import ObjectKey

ROUTE = ObjectKey("gateway.networking.k8s.io", "GRPCRoute", "app", "echo")


def test_the_first_repair_is_at_once_and_later_ones_wait_longer_and_longer() -> None:
    repairs, now_s, waits = Repairs(), 1000.0, []
    for _ in range(12):
        assert repairs.damaged(ROUTE)
        due_s = repairs.next_s()
        assert due_s is not None
        waits.append(max(0.0, due_s - now_s))
        now_s = max(now_s, due_s)
        assert repairs.due(now_s) == [ROUTE]
        repairs.repaired(ROUTE, now_s)
    assert waits[:4] == [0.0, FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S
    assert repairs.damaged(ROUTE)
    assert repairs.due(now_s + CALM_S + 1) == [ROUTE]
    repairs.repaired(ROUTE, now_s + CALM_S + 1)
    repairs.damaged(ROUTE)
    assert repairs.next_s() == now_s + CALM_S + 1 + FIRST_WAIT_S


def test_what_is_in_order_again_is_left_alone() -> None:
    repairs = Repairs()
    assert repairs.damaged(ROUTE)
    assert not repairs.damaged(ROUTE), "it is known already"
    repairs.mended(ROUTE)
    assert repairs.next_s() is None
    repairs.damaged(ROUTE)
    repairs.forget([])
    assert repairs.due(0.0) == []


def test_what_others_add_beside_ours_is_no_damage() -> None:
    accepted = {"type": "Accepted", "status": "True"}
    theirs = {"type": "Theirs", "status": "False"}
    ours = {"conditions": [accepted], "addresses": ["a"]}
    both = {**ours, "conditions": [theirs, {**accepted, "reason": "x"}], "more": 1}
    assert holds(both, ours)
    assert not holds({**ours, "conditions": [theirs]}, ours)
    assert not holds({**ours, "addresses": []}, ours)
    assert not holds({}, ours)
