"""Weights of destinations out of weights of backends and shares of clusters.

Decides: one list of whole numbers for one rule, in the proportions asked for.
Leaves to others: what the backends are (``rules``).
Invariants: proportions are exact as long as they fit under the bound; a weight above 0 never
becomes 0; a rule without imports keeps its own numbers, one with a single import its shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from federation.model.snapshot import MAX_WEIGHT


def multiply(parts: Sequence[tuple[int, Sequence[int]]]) -> tuple[tuple[int, ...], ...]:
    """The weight of every share of every part; a part is its weight and the shares it splits into.

    Shares of a part with weight above 0 must not all be 0.
    """
    if all(len(shares) == 1 for _, shares in parts):
        return tuple((weight,) for weight, _ in parts)
    if sum(weight > 0 for weight, _ in parts) == 1:
        return tuple(
            tuple(shares) if weight > 0 else (0,) * len(shares) for weight, shares in parts
        )
    exact = [
        [Fraction(weight * share, sum(shares) or 1) for share in shares] for weight, shares in parts
    ]
    return _scaled(exact)


def _scaled(exact: Sequence[Sequence[Fraction]]) -> tuple[tuple[int, ...], ...]:
    flat = [value for values in exact for value in values]
    whole = math.lcm(*(value.denominator for value in flat))
    divisor = math.gcd(*(int(value * whole) for value in flat)) or 1
    factor = Fraction(whole, divisor)
    largest = max(flat) * factor
    if largest > MAX_WEIGHT:
        factor *= Fraction(MAX_WEIGHT) / largest
    return tuple(
        tuple(max(1, int(value * factor)) if value else 0 for value in values) for values in exact
    )
