"""Derived state: what the resolver concluded from all facts, for every service and source region.

Decides: the shape of a resolution and its reasons.
Leaves to others: the rules (``derive.resolve``), the storage (``wire.etcd``), the routing that it
becomes (``derive.compile``).
Invariants: the shares of one source sum to 10,000 basis points, or there is none at all; a cluster
stands in at most one tier of a share; everything is sorted, so equal inputs give equal bytes.
"""

from __future__ import annotations

import operator
from enum import StrEnum

from pydantic import Field

from federation.model.base import ClusterId, Region, ServiceName, Value

FULL_SHARE_BP = 10_000
"""All of a source's traffic, in basis points."""


class ReasonCode(StrEnum):
    """Why a number is what it is; the same word in conditions, logs, metrics and ``explain``."""

    EXPLICIT_WEIGHT = "ExplicitWeight"
    LOCAL_PREFERRED = "LocalPreferred"
    READY_CAPACITY = "ReadyCapacity"
    REGION_SHARE = "RegionShare"
    DRAINING = "Draining"
    DRAINED = "Drained"
    NOT_EXPORTED = "NotExported"
    NO_READY_ENDPOINTS = "NoReadyEndpoints"
    NO_GATEWAY = "NoGateway"
    UNKNOWN_CLUSTER = "UnknownCluster"
    REDISTRIBUTED = "Redistributed"
    REGION_FAILOVER = "RegionFailover"
    REMAINING_CAPACITY = "RemainingCapacity"
    LAST_KNOWN = "LastKnown"
    ZERO_WEIGHT = "ZeroWeight"
    RETURNING = "Returning"


class Reason(Value):
    """One reason: a code that machines compare and a sentence that people read."""

    code: ReasonCode
    message: str


class TierMember(Value):
    """A cluster inside a failover tier with its weight relative to the others of the tier."""

    cluster: ClusterId
    weight: int = Field(ge=1)


class Tier(Value):
    """One failover level. Level 0 of a share is the share's own cluster and is not listed."""

    members: tuple[TierMember, ...]
    reason: Reason


class ClusterShare(Value):
    """The part of a source's traffic meant for one cluster, and where it goes otherwise.

    ``weight_asked_bp`` is what policy asks for, ``weight_bp`` what is in force now.
    """

    cluster: ClusterId
    region: Region
    weight_asked_bp: int = Field(ge=0, le=FULL_SHARE_BP)
    weight_bp: int = Field(ge=0, le=FULL_SHARE_BP)
    failover: tuple[Tier, ...]
    reasons: tuple[Reason, ...]


class Standing(Value):
    """Whether a cluster can take a source's calls, and how much of its part it has back.

    ``since_ms`` is when its last stay began, ``lost_ms`` when that ended (``None``: it goes on), in
    the leading resolver's Unix time; only resolvers compare them. ``held``: the cluster comes and
    goes, so that its return waits at the first step.
    """

    cluster: ClusterId
    since_ms: int
    returned_bp: int = Field(ge=0, le=FULL_SHARE_BP)
    held: bool = False
    lost_ms: int | None = None


class SourceResolution(Value):
    """What gateways standing in ``region`` do with calls to the service.

    ``standings`` are the resolver's memory, from which its successor goes on.
    """

    region: Region
    shares: tuple[ClusterShare, ...]
    reasons: tuple[Reason, ...] = ()
    standings: tuple[Standing, ...] = ()


class DrainPhase(StrEnum):
    """Where a drain stands: serving -> ramping -> draining (grace runs) -> drained."""

    RAMPING = "Ramping"
    DRAINING = "Draining"
    DRAINED = "Drained"


class ClusterDrain(Value):
    """Effect of drains on one cluster for one service now.

    ``remaining_bp`` is the part of the cluster's asked weight still served (10,000 = all).
    ``grace_ms`` is how long open streams may go on once ``phase`` is ``Draining``; gateways count
    it from the moment they learn of it, so that clocks need not agree.
    """

    cluster: ClusterId
    phase: DrainPhase
    remaining_bp: int = Field(ge=0, le=FULL_SHARE_BP)
    grace_ms: int = Field(ge=0)
    drain: str


class ResolvedService(Value):
    """The resolution of one clusterset service: one entry per source region."""

    service: ServiceName
    sources: tuple[SourceResolution, ...]
    drains: tuple[ClusterDrain, ...] = ()

    def source(self, region: Region) -> SourceResolution | None:
        """The entry for callers in ``region``, or ``None`` before the resolver has seen it."""
        return next((entry for entry in self.sources if entry.region == region), None)


class SilentCluster(Value):
    """A member whose heartbeat has ended: ``since_ms`` is the leader's Unix time when it saw that.

    For display alone: a one-shot reader could not know the age otherwise.
    """

    cluster: ClusterId
    since_ms: int


class ResolvedManifest(Value):
    """Seal over all resolved services: fenced by the leader's term, complete by count and checksum.

    ``silent`` are the stale members at that time, by name; ``release`` is the version of the
    resolver's program, empty where it is not known.
    """

    term: int
    resolver: str
    epoch: int
    count: int
    checksum: str
    silent: tuple[SilentCluster, ...] = ()
    release: str = Field(default="", exclude_if=operator.not_)
