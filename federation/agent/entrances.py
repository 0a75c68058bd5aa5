"""Which east-west addresses the cluster advertises.

Decides: the addresses of the Service in front of the gateways are advertised, if there is one: a
load balancer knows better than we which gateways it reaches. Without one it is the addresses of
connected gateways; one whose gateway has vanished stays, because silence is no evidence (its peers'
own health checks are). It goes when its gateway took its leave (it drains), when a gateway connects
under the same name with another address or none, when another gateway takes the address over, or
when an operator deletes the cluster's ``gateways`` key: then only the connected ones are written
again.
Leaves to others: who is connected (the discovery service), the Service's addresses
(``derive.entrances``).
Invariants: never emptied, not even when the last gateway leaves (it may be on its way back, and
peers find a dead address by themselves); at most ``ENTRANCES_MAX``, where vanished ones
give way first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from federation.derive.entrances import Entrance
from federation.model.acks import NodeAcks
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import ClusterGateways, PeerGateway

ENTRANCES_MAX = 64
"""Far more entrances than a cluster needs; gateways of single Gateways are none. Of a Service's
addresses (a large cluster's nodes) it is the first ones in order."""


def entrances(
    stored: ClusterGateways | None,
    nodes: Sequence[NodeAcks],
    *,
    left: Collection[str] = (),
    cluster: ClusterId,
    region: Region,
) -> ClusterGateways | None:
    """What to advertise, given what is stored; ``None`` when there is nothing to write yet.

    ``left`` names gateways that said that they are leaving.
    """
    connected = {
        node.node: PeerGateway(name=node.node, address=node.eastwest_address)
        for node in nodes
        if node.eastwest_address is not None
    }
    taken = {peer.address for peer in connected.values()}
    vanished = [
        peer
        for peer in (stored.gateways if stored is not None else ())
        if peer.name not in connected and peer.address not in taken
    ]
    gone = {*left, *(node.node for node in nodes)}
    silent = [peer for peer in vanished if peer.name not in gone]
    if not connected and not silent:
        silent = vanished
    room = max(0, ENTRANCES_MAX - len(connected))
    kept = [*connected.values(), *silent[:room]]
    if stored is None and not kept:
        return None
    gateways = tuple(sorted(kept, key=lambda peer: peer.name))
    return ClusterGateways(cluster=cluster, region=region, gateways=gateways)


def service_gateways(
    stored: ClusterGateways | None,
    found: Sequence[Entrance],
    *,
    service: ServiceName,
    cluster: ClusterId,
    region: Region,
) -> ClusterGateways | None:
    """What to advertise of ``service``, which is reached at ``found``.

    While nothing is known of it, it is what is stored: a load balancer that is made anew, or nodes
    that were not listed yet, empty nothing.
    """
    if not found:
        return stored
    gateways = tuple(
        PeerGateway(name=f"{service}/{entrance.host}", address=entrance.address)
        for entrance in found[:ENTRANCES_MAX]
    )
    return ClusterGateways(cluster=cluster, region=region, gateways=gateways)
