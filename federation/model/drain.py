"""Drains: an operator's word that a region or cluster gives up its traffic, with ramp and undo.

Decides: the shape of a drain and of its progress.
Leaves to others: the ramp (``derive.drain``), admission (``derive.drain_admission``), who writes
progress (the leading resolver).
Invariants: progress is written by the resolver alone; a drain without progress has not started;
progress without a drain is weight on its way back; a drain of an object names the cluster that the
object stands in, and stands under that cluster's own keys.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from federation.model.base import ClusterId, ServiceName, Value
from federation.model.resolved import FULL_SHARE_BP, DrainPhase

RAMP_MS_MAX = 86_400_000
"""Longest ramp and longest grace: a day."""


class DrainTargetKind(StrEnum):
    """What the target names. A name that is both a region and a cluster means the region."""

    REGION = "Region"
    CLUSTER = "Cluster"


class Drain(Value):
    """A request to move traffic away from ``target``, of one service or (``None``) of all.

    ``over_ms`` is the ramp of new requests from all to none; ``grace_ms`` how long open streams may
    go on afterwards; ``expires_ms`` ends the drain by itself that long after its start (``None``:
    until undone). ``forced`` admits a drain that the rest cannot carry.

    ``cluster`` is the one whose Drain object asks for it, and ``uid`` that object's; ``None``: an
    operator's. ``create_revision`` is assigned by etcd and decides which of two drains came first.
    """

    name: str
    target_kind: DrainTargetKind
    target: str
    service: ServiceName | None = None
    over_ms: int = Field(default=30_000, ge=0, le=RAMP_MS_MAX)
    grace_ms: int = Field(default=30_000, ge=0, le=RAMP_MS_MAX)
    expires_ms: int | None = Field(default=None, ge=1)
    forced: bool = False
    requested_by: str = ""
    cluster: ClusterId | None = None
    uid: str = ""
    create_revision: int = 0

    def speaks_of_the_same(self, other: Drain) -> bool:
        """Whether both drain the same target for the same service."""
        return (self.target_kind, self.target, self.service) == (
            other.target_kind,
            other.target,
            other.service,
        )


class RefusalCode(StrEnum):
    """Why a drain does not start; the word is the reason in its object's conditions."""

    UNKNOWN_TARGET = "UnknownTarget"
    NOT_PERMITTED = "NotPermitted"
    REFUSED = "Refused"


class Refusal(Value):
    """A drain that an object asks for and that does not start, until what ``message`` says ends."""

    code: RefusalCode
    message: str


def _is_unknown(count: int | None) -> bool:
    """Not stored then: readers of an older version know nothing of it."""
    return count is None


class DrainState(Value):
    """Progress of a drain: started once by the leading resolver and kept over its successors.

    ``spec`` is the drain as it was last asked for: the way back needs it after the drain itself is
    gone. ``started_at_ms`` is that resolver's Unix time in milliseconds; only resolvers compare it
    with their own clock, gateways never do. While weight returns, ``returning_since_ms`` says since
    when and ``returning_from_bp`` from where; the state ends when ``remaining_bp`` is full again.

    ``streams_left`` is how many calls go on at what is drained, as all gateways report it;
    ``None``: not known, or nothing is waited for.

    A drain of an object outlives what becomes of it: ``refusal`` says that it has not started,
    ``expired`` that it has ended by itself.
    """

    drain: str
    spec: Drain
    started_at_ms: int
    phase: DrainPhase
    remaining_bp: int = Field(ge=0, le=FULL_SHARE_BP)
    returning_since_ms: int | None = None
    returning_from_bp: int = Field(default=0, ge=0, le=FULL_SHARE_BP)
    refusal: Refusal | None = None
    expired: bool = False
    streams_left: int | None = Field(default=None, ge=0, exclude_if=_is_unknown)

    @property
    def idle(self) -> bool:
        """Whether it moves nothing: it has not started, or is over and all weight is back."""
        return self.refusal is not None or (self.expired and not self.returning)

    @property
    def returning(self) -> bool:
        """Whether the drain is over and its weight is on the way back."""
        return self.returning_since_ms is not None


def drain_of_object(cluster: ClusterId, name: str) -> str:
    """The federation's name for the drain that object ``name`` of ``cluster`` asks for."""
    return f"{cluster}:{name}"


def drain_object_name(drain: Drain) -> str:
    """The name of the object that asks for ``drain``; empty: it is an operator's."""
    return drain.name.removeprefix(f"{drain.cluster}:") if drain.cluster is not None else ""
