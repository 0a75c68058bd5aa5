"""Drains: an operator's word that a region or cluster gives up its traffic, with a ramp and an undo.

Decides: the shape of a drain and of its progress.
Leaves to others: admission and the ramp (``derive.drain``), who writes progress (the leading resolver).
Invariants: progress is written by the resolver alone; a drain without progress has not started.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from federation.model.base import ServiceName, Value
from federation.model.resolved import DrainPhase


class DrainTargetKind(StrEnum):
    """What the target names. A name that is both a region and a cluster means the region (E6)."""

    REGION = "Region"
    CLUSTER = "Cluster"


class Drain(Value):
    """A request to move traffic away from ``target``, of one service or (``None``) of all.

    ``over_ms`` is the ramp of new requests from all to none; ``grace_ms`` how long open streams may
    go on afterwards; ``expires_ms`` ends the drain by itself that long after its start (``None``:
    until undone). ``forced`` admits a drain that the rest cannot carry.
    """

    name: str
    target_kind: DrainTargetKind
    target: str
    service: ServiceName | None = None
    over_ms: int = Field(default=30_000, ge=0, le=86_400_000)
    grace_ms: int = Field(default=30_000, ge=0, le=86_400_000)
    expires_ms: int | None = Field(default=None, ge=1)
    forced: bool = False
    requested_by: str = ""


class DrainState(Value):
    """Progress of a drain: started once by the leading resolver and kept over its successors.

    ``started_at_ms`` is that resolver's Unix time in milliseconds; only resolvers compare it with
    their own clock, gateways never do.
    """

    drain: str
    started_at_ms: int
    phase: DrainPhase
    remaining_bp: int
