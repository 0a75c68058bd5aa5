"""Dividing a whole number in proportion to weights, so that the parts sum to it exactly.

Decides: the rounding. Each unit goes to the name with the highest quotient ``weight / (2 k + 1)``,
``k`` being the units it has (Webster's divisor method), ties to the name that sorts first.
Rejected: largest remainders. There, a change of one weight can move a unit between two *others*
(the Alabama and population paradoxes); with divisors the others' quotients keep their order, so a
change in one cluster only ever gives to all others or takes from all others.
Leaves to others: what the weights mean.
Invariants: parts sum to ``total`` or all weights are 0; weight 0 gets 0; equal input, equal output.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from math import gcd
from typing import TypeVar

Name = TypeVar("Name", bound=str)


def apportion(weights: Mapping[Name, int], total: int) -> dict[Name, int]:
    """Divide ``total`` in proportion to ``weights``; all get 0 when no weight is positive."""
    parts = dict.fromkeys(sorted(weights), 0)
    voters = [name for name in parts if weights[name] > 0]
    weight_sum = sum(weights[name] for name in voters)
    if not voters or total <= 0:
        return parts
    for name in voters:
        # Nearest integer to the exact quota: at most len(voters) / 2 units away from the sum.
        parts[name] = (2 * weights[name] * total + weight_sum) // (2 * weight_sum)
    surplus = sum(parts.values()) - total
    for _ in range(surplus):
        parts[_last_served(voters, weights, parts)] -= 1
    for _ in range(-surplus):
        parts[_next_served(voters, weights, parts)] += 1
    return parts


def reduced(weights: Mapping[Name, int]) -> dict[Name, int]:
    """The same proportions in the smallest integers, at least 1 each, sorted by name.

    A single member always weighs 1, so that its size does not show where it decides nothing.
    """
    floored = {name: max(1, weights[name]) for name in sorted(weights)}
    divisor = reduce(gcd, floored.values(), 0) or 1
    return {name: weight // divisor for name, weight in floored.items()}


def _next_served(voters: list[Name], weights: Mapping[Name, int], parts: dict[Name, int]) -> Name:
    best = voters[0]
    for name in voters[1:]:
        # weights[name] / (2k + 1) > weights[best] / (2j + 1), without fractions
        if weights[name] * (2 * parts[best] + 1) > weights[best] * (2 * parts[name] + 1):
            best = name
    return best


def _last_served(voters: list[Name], weights: Mapping[Name, int], parts: dict[Name, int]) -> Name:
    held = [name for name in voters if parts[name] > 0]
    worst = held[0]
    for name in held[1:]:
        if weights[name] * (2 * parts[worst] - 1) <= weights[worst] * (2 * parts[name] - 1):
            worst = name
    return worst
