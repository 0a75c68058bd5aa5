"""What the Drain objects of a cluster ask of the federation.

Decides: the drain that an object stands for, how many a cluster may ask for.
Leaves to others: publishing (the agent), whether and how it is done (the leading resolver), their
statuses (``derive.compile.drains``).
Invariants: pure; the oldest objects are asked for, so that one too many changes nothing of those
before.
"""

from __future__ import annotations

from federation.derive.drain_admission import target_kind
from federation.model.base import ClusterId, ServiceName
from federation.model.drain import Drain, DrainTargetKind, drain_of_object
from federation.model.objects import DrainRequest, ObjectSnapshot
from federation.model.view import FederationView

REQUESTS_MAX = 64
"""Drain objects of one cluster that are asked for; of more the oldest."""


def requested_drains(
    cluster: ClusterId, objects: ObjectSnapshot, view: FederationView
) -> dict[str, Drain]:
    """What to publish, by the name of the object."""
    oldest = sorted(objects.of(DrainRequest), key=lambda entry: entry.age)[:REQUESTS_MAX]
    return {entry.metadata.name: _drain(cluster, entry, view) for entry in oldest}


def _drain(cluster: ClusterId, source: DrainRequest, view: FederationView) -> Drain:
    spec = source.spec
    service = spec.service
    return Drain(
        name=drain_of_object(cluster, source.metadata.name),
        target_kind=target_kind(view, spec.target) or DrainTargetKind.CLUSTER,
        target=spec.target,
        service=service and ServiceName(namespace=service.namespace, name=service.name),
        over_ms=spec.over_ms,
        grace_ms=spec.grace_ms,
        expires_ms=spec.expires_ms,
        forced=spec.force,
        requested_by=f"Drain {source.metadata.name} in {cluster}",
        cluster=cluster,
        uid=source.metadata.uid or "",
    )
