"""Which east-west addresses the cluster advertises.

Decides: the addresses of connected gateways are advertised; one whose gateway has vanished stays,
because silence is no evidence (its peers' own health checks are). It goes when a gateway connects
under the same name with another address, when another gateway takes the address over, or when an
operator deletes the cluster's ``gateways`` key: then only the connected ones are written again.
Leaves to others: who is connected (the discovery service).
Invariants: never emptied by the absence of gateways; at most ``ENTRANCES_MAX``, where vanished ones
give way first.
"""

from __future__ import annotations

from collections.abc import Sequence

from federation.model.acks import NodeAcks
from federation.model.base import ClusterId, Region
from federation.model.facts import ClusterGateways, PeerGateway

ENTRANCES_MAX = 64
"""As many as an agent serves streams: more gateways cannot be connected."""


def entrances(
    stored: ClusterGateways | None, nodes: Sequence[NodeAcks], *, cluster: ClusterId, region: Region
) -> ClusterGateways | None:
    """What to advertise, given what is stored; ``None`` when there is nothing to write yet."""
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
    room = max(0, ENTRANCES_MAX - len(connected))
    kept = [*connected.values(), *vanished[:room]]
    if stored is None and not kept:
        return None
    gateways = tuple(sorted(kept, key=lambda peer: peer.name))
    return ClusterGateways(cluster=cluster, region=region, gateways=gateways)
