"""The federation as one reader sees it: all facts and all derived state at one store revision.

Decides: what a complete view holds.
Leaves to others: how it is read (``adapters.etcd``, ``wire.etcd``) and judged (``derive``).
Invariants: a view is immutable; a view that is not ``synced`` is never acted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.model.base import ClusterId, ServiceName
from federation.model.drain import Drain, DrainState
from federation.model.facts import (
    AcceptedShrink,
    ClusterGateways,
    Departed,
    EndpointsFact,
    ExportFact,
    FactsManifest,
    Heartbeat,
    Member,
    ServicePolicyFact,
)
from federation.model.resolved import ResolvedManifest, ResolvedService


@dataclass(frozen=True, slots=True)
class FederationView:
    """Everything the store says, keyed for look-up.

    ``revision`` is the store's revision of this view. ``heartbeats`` holds live leases only: a
    member without one is ``Stale``. ``stale_since`` maps a stale member to the Unix time (seconds,
    the reader's clock, for display only) at which this reader saw its heartbeat end. ``endpoints``
    are those of headless exports, sorted by cluster and slice. ``doubted`` has for clusters of
    whose facts something cannot be read here, or does not fit their seal, what that is.
    """

    revision: int = 0
    members: Mapping[ClusterId, Member] = field(default_factory=dict)
    departed: Mapping[ClusterId, Departed] = field(default_factory=dict)
    heartbeats: Mapping[ClusterId, Heartbeat] = field(default_factory=dict)
    stale_since: Mapping[ClusterId, float] = field(default_factory=dict)
    gateways: Mapping[ClusterId, ClusterGateways] = field(default_factory=dict)
    exports: Mapping[ServiceName, Mapping[ClusterId, ExportFact]] = field(default_factory=dict)
    endpoints: Mapping[ServiceName, tuple[EndpointsFact, ...]] = field(default_factory=dict)
    policies: Mapping[ServiceName, Mapping[ClusterId, ServicePolicyFact]] = field(
        default_factory=dict
    )
    manifests: Mapping[ClusterId, FactsManifest] = field(default_factory=dict)
    accepted_shrinks: Mapping[ClusterId, AcceptedShrink] = field(default_factory=dict)
    drains: Mapping[str, Drain] = field(default_factory=dict)
    drain_states: Mapping[str, DrainState] = field(default_factory=dict)
    resolved: Mapping[ServiceName, ResolvedService] = field(default_factory=dict)
    resolved_manifest: ResolvedManifest | None = None
    doubted: Mapping[ClusterId, str] = field(default_factory=dict)

    def is_told(self, cluster: ClusterId) -> bool:
        """Whether all that ``cluster`` exports stands here, so that what does not is gone.

        It is sealed and could be read, or the cluster was taken out.
        """
        if cluster in self.manifests:
            return cluster not in self.doubted
        return cluster in self.departed and cluster not in self.members
