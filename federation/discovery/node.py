"""Who a client says it is, read from the node message of its first request.

Decides: what metadata is understood, and the bounds of each value.
Leaves to others: whether the client may say so (mutual TLS in ``server``), the view of the
snapshot it gets (``wire.xds``).
Invariants: an identity is complete and checked, or the stream is refused with the field's path.
"""

from __future__ import annotations

from dataclasses import dataclass

from envoy.config.core.v3 import base_pb2
from google.protobuf import json_format

from federation.discovery.subscription import SubscriptionError
from federation.model.serving import EVERYTHING, FORMS, is_known

KINDS = ("gateway", "envoy")
PORT_MAX = 65_535
DEFAULT_ADDRESS = "0.0.0.0"  # noqa: S104 - what a node without the field binds, as in Envoy


ANY_ADDRESS = frozenset({DEFAULT_ADDRESS, "::"})
"""Bound everywhere: no address that a client could be told."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A node of our cluster. ``port_offset`` is added to every listener's port; ``serves`` says
    which listeners it opens (``model.serving``); ``admin`` is where its admin endpoint listens
    (``HOST:PORT``, empty: not told), for those who look for it."""

    name: str
    cluster: str
    kind: str = "gateway"
    address: str = DEFAULT_ADDRESS
    port_offset: int = 0
    eastwest_address: str | None = None
    endpoint_shards: bool = False
    serves: str = EVERYTHING
    admin: str = ""


def read_node(node: base_pb2.Node, *, cluster: str) -> NodeIdentity:
    """Check and read ``node``. Raises ``SubscriptionError`` naming the field."""
    metadata = json_format.MessageToDict(node.metadata)
    if not node.id:
        raise SubscriptionError("node.id: is empty; give each gateway its own name")
    if node.cluster != cluster:
        raise SubscriptionError(
            f'node.cluster: "{node.cluster}" asked the agent of cluster "{cluster}"; '
            "point it at its own cluster's agent"
        )
    return NodeIdentity(
        name=node.id,
        cluster=node.cluster,
        kind=_kind(metadata.get("kind", "envoy")),
        address=_text(metadata, "address") or DEFAULT_ADDRESS,
        port_offset=_offset(metadata.get("port_offset", 0)),
        eastwest_address=_text(metadata, "eastwest_address"),
        endpoint_shards=metadata.get("endpoint_shards") is True,
        serves=_serves(metadata),
        admin=_text(metadata, "admin") or "",
    )


def _kind(value: object) -> str:
    if value not in KINDS:
        raise SubscriptionError(f"node.metadata.kind: must be one of {KINDS}, got {value!r}")
    return str(value)


def _serves(metadata: dict[str, object]) -> str:
    serves = _text(metadata, "serves") or EVERYTHING
    if not is_known(serves):
        raise SubscriptionError(f'node.metadata.serves: must be {FORMS}, got "{serves}"')
    return serves


def _offset(value: object) -> int:
    # A Struct carries every number as a double; the whole ones are ints here.
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= PORT_MAX
        or value != int(value)
    ):
        raise SubscriptionError(
            f"node.metadata.port_offset: must be a whole number from 0 to {PORT_MAX}, got {value!r}"
        )
    return int(value)


def _text(metadata: dict[str, object], name: str) -> str | None:
    value = metadata.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise SubscriptionError(f"node.metadata.{name}: must be a string, got {value!r}")
    return value
