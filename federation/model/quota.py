"""Rate limits that several gateways share: what is asked of them, and who may let how much pass.

Decides: the words of it.
Leaves to others: how a limit is divided (``derive.quota``), who asks whom (``quota``).
Invariants: values only; a share is a number of calls in the limit's unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from federation.model.snapshot import LimitUnit


class Bucket(NamedTuple):
    """What is counted: a limit, or one key of a limit that counts values of headers apart.

    ``key`` stands for the values and is the same in every gateway; empty: the limit itself, and of
    a limit with keys all those that are not named.
    """

    limit: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class SharedLimit:
    """A limit that all gateways count together; ``keyed``: each key by itself."""

    name: str
    requests: int
    unit: LimitUnit
    keyed: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Calls that asked for a bucket at one gateway in ``elapsed_ms``.

    In no time at all: what has ``passed`` before this gateway reported here, and counts still.
    """

    bucket: Bucket
    passed: int
    refused: int
    elapsed_ms: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """A gateway's share of a bucket; ``None``: the key is not named any more."""

    bucket: Bucket
    share: int | None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a cluster is asked for of a bucket (thousandths of a call a second), what its gateways
    have used of it that counts still, and the part of the limit that it has."""

    demand: int = 0
    used: int = 0
    part: int = 0
