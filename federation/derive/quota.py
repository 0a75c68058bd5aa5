"""How a rate limit is divided among those who share it: gateways of a cluster, or clusters.

Decides: each member's share, by what was asked of it; that a member of whom nothing is asked keeps
a little, so that its first calls pass; that shares do not follow every small change.
Leaves to others: who the members are and what was asked of them (``quota``).
Invariants: pure; the shares of all members together are never more than the limit; equal inputs
give equal shares, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Mapping

IDLE_PART = 10
"""The members of whom nothing is asked have a tenth of the limit at most, all together."""

CALM_PART = 20
"""Shares stay while none would change by more than a twentieth of the limit."""


def divide(limit: int, demand: Mapping[str, int]) -> dict[str, int]:
    """The share of each member of ``demand``; their sum is ``limit`` unless there is none.

    Demands are rates in any one unit. What is left when every member has its little goes by demand;
    without any demand it is split evenly. A limit of fewer calls than members goes to those who
    are asked for most.
    """
    members = sorted(demand)
    if not members or limit <= 0:
        return dict.fromkeys(members, 0)
    number = len(members)
    least = min(limit // number, max(1, limit // (IDLE_PART * number)))
    weights = demand if any(demand.values()) else dict.fromkeys(members, 1)
    return _by_weight(limit - least * number, weights, members, least=least)


def settle(limit: int, before: Mapping[str, int], now: Mapping[str, int]) -> Mapping[str, int]:
    """``before`` while it is about as good as ``now``, else ``now``."""
    if before.keys() != now.keys() or sum(before.values()) != sum(now.values()):
        return now
    calm = all(abs(before[member] - share) * CALM_PART <= limit for member, share in now.items())
    return before if calm else now


def _by_weight(
    amount: int, weights: Mapping[str, int], members: list[str], *, least: int
) -> dict[str, int]:
    total = sum(weights.values())
    parts = {member: divmod(amount * weights[member], total) for member in members}
    shares = {member: least + whole for member, (whole, _) in parts.items()}
    left = amount - sum(whole for whole, _ in parts.values())
    # What rounding leaves goes to the largest remainders, then by name.
    by_remainder = sorted(members, key=lambda member: (-parts[member][1], member))
    for member in by_remainder[:left]:
        shares[member] += 1
    return shares
