"""Gateways that share the cluster's gateways: the Service in front of them.

Decides: which ports the Service lacks for the Gateways' listeners and is given by the agent, and
where each Gateway is reached.
Leaves to others: which ports are accepted (``compile.listeners``), what other clusters are given of
the Service (``entrances``), writing.
Invariants: pure; a port that stands in the Service under another name than ours is somebody else's
and stays as it is; nothing is said of where ports lead before a gateway has said where it listens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from federation.derive.entrances import service_hosts
from federation.derive.infrastructure import NO_RESOURCES, NOT_ASSIGNED, place_at
from federation.model.acks import NodeAcks
from federation.model.base import ServiceName
from federation.model.infrastructure import Place, ServedPort
from federation.model.objects import (
    Gateway,
    GatewayClass,
    ListenerSet,
    ObjectKey,
    ObjectSnapshot,
    Service,
)
from federation.model.serving import EAST_WEST
from federation.model.status import GatewayStatusAddress, address_type

_NAME = "listener-{}"


def added_ports(
    service: Service,
    asked: Mapping[ObjectKey, Sequence[int]],
    nodes: Iterable[NodeAcks],
    *,
    removing: bool = True,
) -> tuple[ServedPort, ...] | None:
    """The ports that the agent keeps in ``service`` for Gateways; ``None``: it is not known.

    ``asked`` are the Gateways' ports, ``nodes`` the connected gateways, which say by what offset
    their own ports differ. Without ``removing`` those that are there stay, asked for or not.
    """
    offsets = {node.port_offset for node in nodes if node.serves != EAST_WEST}
    if len(offsets) != 1:
        return None
    (offset,) = offsets
    there = {port.port for port in service.spec.ports}
    ours = {port.port for port in service.spec.ports if port.name == _NAME.format(port.port)}
    wanted = {port for ports in asked.values() for port in ports} - (there - ours)
    if not removing:
        wanted |= ours
    return tuple(ServedPort(_NAME.format(port), port, port + offset) for port in sorted(wanted))


def unread_listeners(objects: ObjectSnapshot) -> bool:
    """Whether an object that asks for ports cannot be read, so that what it asks for is unknown."""
    kinds = {(kind.GROUP, kind.KIND) for kind in (Gateway, GatewayClass, ListenerSet)}
    return any(
        isinstance(key, ObjectKey) and (key.group, key.kind) in kinds for key in objects.rejected
    )


def has_ports(service: Service, wanted: Sequence[ServedPort]) -> bool:
    """Whether of our ports ``service`` has ``wanted`` and no others."""
    ours = {
        ServedPort(port.name, port.port, port.target_port or port.port)
        for port in service.spec.ports
        if port.name == _NAME.format(port.port)
    }
    return ours == set(wanted)


def shared_place(
    gateway: Gateway,
    ports: Sequence[int],
    objects: ObjectSnapshot,
    name: ServiceName,
    *,
    failure: str = "",
) -> Place:
    """Where ``gateway`` is reached by the Service ``name``.

    ``failure`` is why ports could not be added.
    """
    who = f"Service {name}"
    service = objects.get(Service, name.namespace, name.name)
    if service is None:
        return Place((), NOT_ASSIGNED, f"{who}, which gateways stand behind, does not exist")
    addresses = tuple(
        GatewayStatusAddress(type=address_type(host), value=host)
        for host in service_hosts(objects, name)
    )
    there = {port.port for port in service.spec.ports}
    missing = [port for port in ports if port not in there]
    if missing:
        text = ", ".join(str(port) for port in missing)
        why = failure or "the agent adds it when a gateway is connected"
        return Place(addresses, NO_RESOURCES, f"{who} has no port {text}: {why}")
    return place_at(gateway, addresses, who=who)
