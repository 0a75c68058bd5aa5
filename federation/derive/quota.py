"""How a rate limit is divided among those who share it: gateways of a cluster, or clusters.

Decides: each member's share, by what was asked of it; that a member of whom nothing is asked keeps
a little, so that its first calls pass; that what was used stays with who used it; that shares do
not follow every small change.
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


def divide(
    limit: int, demand: Mapping[str, int], used: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The share of each member of ``demand``; their sum is ``limit`` unless there is none.

    ``used`` is what members have let pass that has not flowed back yet: nobody's share is less than
    that, so that what one has used another does not use again. The rest goes by demand (rates in
    any one unit) when every member has its little of it; without any demand it is split evenly. A
    rest of fewer calls than members goes to those who are asked for most.
    """
    members = sorted(demand)
    if not members or limit <= 0:
        return dict.fromkeys(members, 0)
    taken = {member: (used or {}).get(member, 0) for member in members}
    rest = limit - sum(taken.values())
    if rest <= 0:
        return _by_weight(limit, taken, members)
    number = len(members)
    least = min(rest // number, max(1, limit // (IDLE_PART * number)))
    weights = demand if any(demand.values()) else dict.fromkeys(members, 1)
    parts = _by_weight(rest - least * number, weights, members)
    return {member: taken[member] + least + parts[member] for member in members}


def is_calm(limit: int, shares: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
    """Whether ``shares`` are about as good as ``wanted``."""
    if shares.keys() != wanted.keys() or sum(shares.values()) != sum(wanted.values()):
        return False
    return all(abs(shares[member] - share) * CALM_PART <= limit for member, share in wanted.items())


def _by_weight(amount: int, weights: Mapping[str, int], members: list[str]) -> dict[str, int]:
    total = sum(weights.values())
    parts = {member: divmod(amount * weights[member], total) for member in members}
    shares = {member: whole for member, (whole, _) in parts.items()}
    left = amount - sum(shares.values())
    # What rounding leaves goes to the largest remainders, then by name.
    by_remainder = sorted(members, key=lambda member: (-parts[member][1], member))
    for member in by_remainder[:left]:
        shares[member] += 1
    return shares
