"""What the agent knows: the federation's state and its objects, live or from disk.

Decides: what counts as a change of the federation for routing, and what peers and endpoints are
dialled at.
Leaves to others: watching (``inputs``), saving (``disk``), compiling (``routing``).
Invariants: immutable; ``live`` says whether the store said so in this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from federation.model.base import ClusterId
from federation.model.facts import ClusterGateways, Heartbeat, PeerGateway
from federation.model.objects import ObjectKey, ObjectSnapshot
from federation.model.snapshot import Endpoint, EndpointSet, LocalityEndpoints, Snapshot
from federation.model.view import FederationView
from federation.ports import Listing
from federation.wire.etcd import ViewReading


@dataclass(frozen=True, slots=True)
class FederationState:
    """The federation's keys at one revision, as stored and as read."""

    listing: Listing
    reading: ViewReading
    live: bool

    @property
    def view(self) -> FederationView:
        """The view that was read."""
        return self.reading.view


@dataclass(frozen=True, slots=True)
class ClusterObjects:
    """The cluster's own objects.

    ``shown`` is what the source says now; facts and statuses are about it. ``routed`` is what
    gateways are configured by: the same, except while missing objects are not believed to be gone,
    and for Secrets that are no certificates any more: ``kept_certificates`` says what is wrong with
    them.
    """

    shown: ObjectSnapshot
    routed: ObjectSnapshot
    live: bool
    kept_certificates: Mapping[ObjectKey, str] = field(default_factory=dict)


def routing_view(
    view: FederationView, *, own: ClusterId, peer_dial: Mapping[str, str]
) -> FederationView:
    """The part of ``view`` that routing depends on; equal for views that differ in signs of life,
    or in which agent of a cluster leads.

    Addresses of other clusters' gateways are replaced by what is dialled for them.
    """
    alive = {
        cluster: Heartbeat(cluster=cluster, instance=beat.instance, seen_revision=0, version="")
        for cluster, beat in view.heartbeats.items()
    }
    members = {
        cluster: member.model_copy(update={"leader": ""})
        for cluster, member in view.members.items()
    }
    gateways = {
        cluster: found if cluster == own else _dialled(found, peer_dial)
        for cluster, found in view.gateways.items()
    }
    return replace(view, revision=0, members=members, heartbeats=alive, gateways=gateways)


def _dialled(found: ClusterGateways, peer_dial: Mapping[str, str]) -> ClusterGateways:
    gateways = tuple(
        PeerGateway(name=peer.name, address=peer_dial.get(peer.address, peer.address))
        for peer in found.gateways
    )
    return found.model_copy(update={"gateways": gateways})


def dialled_snapshot(snapshot: Snapshot, endpoint_dial: Mapping[str, str]) -> Snapshot:
    """``snapshot`` with this cluster's own endpoints at the addresses that are dialled for them."""
    if not endpoint_dial:
        return snapshot
    return replace(
        snapshot,
        endpoint_sets=tuple(_dialled_set(found, endpoint_dial) for found in snapshot.endpoint_sets),
    )


def _dialled_set(found: EndpointSet, endpoint_dial: Mapping[str, str]) -> EndpointSet:
    return replace(
        found,
        localities=tuple(_dialled_locality(entry, endpoint_dial) for entry in found.localities),
    )


def _dialled_locality(
    found: LocalityEndpoints, endpoint_dial: Mapping[str, str]
) -> LocalityEndpoints:
    return replace(
        found,
        endpoints=tuple(
            entry if entry.peer else _dialled_endpoint(entry, endpoint_dial)
            for entry in found.endpoints
        ),
    )


def _dialled_endpoint(found: Endpoint, endpoint_dial: Mapping[str, str]) -> Endpoint:
    host = f"[{found.host}]" if ":" in found.host else found.host
    if (instead := endpoint_dial.get(f"{host}:{found.port}")) is None:
        return found
    host, _, port = instead.rpartition(":")
    return replace(found, host=host.strip("[]"), port=int(port))
