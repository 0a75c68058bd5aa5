"""What several agents of one cluster know of its gateways together; pure.

Each gateway is connected to one of them, and only the one that leads writes statuses and addresses.
Decides: what an agent tells the others, and how the leader counts gateways of theirs: one has taken
the configuration when it has answered its own agent's newest publication and that one was made of
the same objects, each at the same generation.
Leaves to others: telling (the store, under a lease), conditions (``derive.programmed``).
Invariants: a gateway that is connected here counts as it does here; bounded: ``REFUSALS_MAX`` of a
gateway's refusals with ``MESSAGE_MAX`` characters travel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from federation.model.acks import AckView, NodeAcks, RefusedResource
from federation.model.facts import AgentNode, AgentRefusal, AgentView
from federation.model.objects import ApiObject, ObjectKey

REFUSALS_MAX = 8
MESSAGE_MAX = 400


def configuration(keys: Iterable[ObjectKey], objects: Mapping[ObjectKey, ApiObject]) -> str:
    """A digest of the objects of ``keys`` at their generations, equal for equal ones."""
    digest = hashlib.sha256()
    for key in sorted(keys):
        found = objects.get(key)
        if found is not None:
            digest.update(f"{key} {found.metadata.uid} {found.metadata.generation}\n".encode())
    return digest.hexdigest()[:16]


def told(identity: str, acks: AckView, *, configured: str) -> AgentView:
    """What the agent ``identity`` tells the others: its gateways, and what they were given."""
    return AgentView(
        identity=identity,
        configured=configured,
        nodes=tuple(_told(node, acks.generation) for node in acks.nodes),
        left=acks.left,
    )


def together(own: AckView, others: Iterable[AgentView], *, configured: str) -> AckView:
    """``own`` with the gateways of ``others``; ``configured`` is what we have published."""
    nodes: dict[str, NodeAcks] = {}
    left = set(own.left)
    for other in others:
        same = other.configured == configured
        for node in other.nodes:
            nodes[node.node] = _acks(node, own.generation if same and node.current else 0)
        left.update(other.left)
    nodes |= {node.node: node for node in own.nodes}
    return AckView(
        generation=own.generation,
        nodes=tuple(nodes[name] for name in sorted(nodes)),
        left=tuple(sorted(left - nodes.keys())),
    )


def _told(node: NodeAcks, generation: int) -> AgentNode:
    return AgentNode(
        node=node.node,
        kind=node.kind,
        current=node.generation >= generation,
        eastwest_address=node.eastwest_address,
        address=node.address,
        port_offset=node.port_offset,
        serves=node.serves,
        refused=tuple(
            AgentRefusal(kind=each.kind, name=each.name, message=each.message[:MESSAGE_MAX])
            for each in node.refused[:REFUSALS_MAX]
        ),
    )


def _acks(node: AgentNode, generation: int) -> NodeAcks:
    return NodeAcks(
        node=node.node,
        kind=node.kind,
        generation=generation,
        eastwest_address=node.eastwest_address,
        address=node.address,
        port_offset=node.port_offset,
        serves=node.serves,
        refused=tuple(RefusedResource(each.kind, each.name, each.message) for each in node.refused),
    )
