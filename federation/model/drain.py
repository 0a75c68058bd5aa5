"""Drains: an operator's word that a region or cluster gives up its traffic, with ramp and undo.

Decides: the shape of a drain and of its progress.
Leaves to others: the ramp (``derive.drain``), admission (``derive.drain_admission``), who writes
progress (the leading resolver).
Invariants: progress is written by the resolver alone; a drain without progress has not started;
progress without a drain is weight on its way back.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from federation.model.base import ServiceName, Value
from federation.model.resolved import FULL_SHARE_BP, DrainPhase


class DrainTargetKind(StrEnum):
    """What the target names. A name that is both a region and a cluster means the region."""

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

    ``spec`` is the drain as it was last asked for: the way back needs it after the drain itself is
    gone. ``started_at_ms`` is that resolver's Unix time in milliseconds; only resolvers compare it
    with their own clock, gateways never do. While weight returns, ``returning_since_ms`` says since
    when and ``returning_from_bp`` from where; the state ends when ``remaining_bp`` is full again.
    """

    drain: str
    spec: Drain
    started_at_ms: int
    phase: DrainPhase
    remaining_bp: int = Field(ge=0, le=FULL_SHARE_BP)
    returning_since_ms: int | None = None
    returning_from_bp: int = Field(default=0, ge=0, le=FULL_SHARE_BP)

    @property
    def returning(self) -> bool:
        """Whether the drain is over and its weight is on the way back."""
        return self.returning_since_ms is not None
