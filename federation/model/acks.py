"""What the cluster's gateways have said about the snapshots served to them.

Decides: the shape of that knowledge.
Leaves to others: how it is gathered (``discovery``) and which condition it makes (``derive``).
Invariants: sorted, so equal knowledge compares equal; a resource that was refused and has since
been accepted, changed away or removed is not listed.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.model.serving import EVERYTHING


@dataclass(frozen=True, slots=True)
class RefusedResource:
    """A resource that a node refused (NACK).

    ``kind`` is listeners, routes, clusters, endpoints or secrets.
    """

    kind: str
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class NodeAcks:
    """One connected node.

    ``generation`` is the newest publication of which it has answered everything (0: none yet); what
    it refused of it stands in ``refused``, the rest is in force. ``kind`` is gateway or envoy.
    ``eastwest_address`` is where peers reach it, ``None`` when it takes no east-west calls;
    ``address`` is where its listeners are bound, ``None`` when they are at all addresses;
    ``port_offset`` is what it adds to their ports. ``serves`` says which of them it opens
    (``model.serving``).
    """

    node: str
    kind: str
    generation: int
    eastwest_address: str | None = None
    address: str | None = None
    port_offset: int = 0
    serves: str = EVERYTHING
    refused: tuple[RefusedResource, ...] = ()


@dataclass(frozen=True, slots=True)
class AckView:
    """All connected nodes and the generation of the newest publication (0 before the first).

    ``left`` names nodes that took their leave, as a gateway does when it drains, and have not come
    back since: they are told apart from those whose connection was merely lost.
    """

    generation: int = 0
    nodes: tuple[NodeAcks, ...] = ()
    left: tuple[str, ...] = ()
