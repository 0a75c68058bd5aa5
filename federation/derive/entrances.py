"""The Service in front of a cluster's shared gateways: where it is reached, and what is behind it.

Decides: which of the Service's addresses other clusters are given: of type LoadBalancer those of
its load balancer, of type NodePort the nodes' with its node port, and external IPs where it has no
better ones; and which Pods behind it are ready. A load balancer that is not there yet is waited
for: to give nodes' addresses meanwhile would be to take them back later.
Leaves to others: resolving the names that a provider gives its load balancers (the agent), what
stays advertised when there is nothing (``agent.entrances``), watching nodes (the source).
Invariants: pure; a Service without the port ``EAST_WEST`` has no entrances; sorted, each once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from federation.model.base import ServiceName
from federation.model.objects import (
    CoreServicePort,
    CoreServiceType,
    EndpointSlice,
    Node,
    ObjectSnapshot,
    Service,
)

EAST_WEST = "east-west"
"""Name of the port of the Service at which other clusters' gateways come in."""

_NODE_ADDRESSES = ("ExternalIP", "InternalIP")
"""Types of a node's addresses that lead to it from outside, the better one first."""


@dataclass(frozen=True, slots=True, order=True)
class Entrance:
    """A place where the gateways are reached from outside; ``host`` is an IP address or a name."""

    host: str
    port: int

    @property
    def address(self) -> str:
        """``HOST:PORT``, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class GatewayPod:
    """A ready gateway of this cluster: its address, its name and its node, where they are told."""

    address: str
    name: str = ""
    node: str = ""


def service_entrances(
    objects: ObjectSnapshot, service: ServiceName, *, resolved: Mapping[str, Sequence[str]]
) -> tuple[Entrance, ...]:
    """Where other clusters reach the gateways behind ``service``; empty: it is not known.

    ``resolved`` are IP addresses by host name; a name that is not among them leads nowhere yet.
    """
    found = objects.get(Service, service.namespace, service.name)
    port = _port(found, EAST_WEST) if found is not None else None
    if found is None or port is None:
        return ()
    hosts = service_hosts(objects, service)
    if uses_nodes(found):
        if port.node_port is None:
            return ()
        return _entrances(hosts, port.node_port)
    named = names_to_resolve(objects, service)
    found_at = (resolved.get(host, ()) if host in named else (host,) for host in hosts)
    return _entrances((address for addresses in found_at for address in addresses), port.port)


def service_hosts(objects: ObjectSnapshot, service: ServiceName) -> tuple[str, ...]:
    """The hosts at which ``service`` is reached from outside the cluster, best kind only.

    IP addresses, or names as a provider gives its load balancers. Of a Service of type NodePort it
    is the nodes'; of type ClusterIP it is none, unless it has external IPs.
    """
    found = objects.get(Service, service.namespace, service.name)
    if found is None:
        return ()
    if found.spec.type is CoreServiceType.LOAD_BALANCER and found.status is not None:
        ingress = found.status.load_balancer.ingress
        hosts = {place.ip or place.hostname for place in ingress} - {""}
        if hosts:
            return tuple(sorted(hosts))
    if uses_nodes(found):
        return _node_hosts(objects, service, found)
    return tuple(sorted(set(found.spec.external_ips)))


def needs_nodes(objects: ObjectSnapshot, service: ServiceName) -> bool:
    """Whether the nodes' addresses are needed to say where ``service`` is reached."""
    found = objects.get(Service, service.namespace, service.name)
    return found is not None and uses_nodes(found)


def uses_nodes(service: Service) -> bool:
    """Whether ``service`` is reached by its node ports and by nothing better."""
    return service.spec.type is CoreServiceType.NODE_PORT and not service.spec.external_ips


def names_to_resolve(objects: ObjectSnapshot, service: ServiceName) -> frozenset[str]:
    """The load balancer's host names."""
    found = objects.get(Service, service.namespace, service.name)
    if found is None or found.status is None:
        return frozenset()
    ingress = found.status.load_balancer.ingress
    return frozenset(place.hostname for place in ingress if place.hostname and not place.ip)


def gateway_pods(objects: ObjectSnapshot, service: ServiceName) -> tuple[GatewayPod, ...]:
    """The ready Pods behind ``service``, from its EndpointSlices."""
    found = {
        GatewayPod(
            address=address,
            name=str((endpoint.target_ref or {}).get("name", "")),
            node=endpoint.node_name or "",
        )
        for entry in _slices(objects, service)
        for endpoint in entry.endpoints
        if endpoint.ready
        for address in endpoint.addresses
    }
    return tuple(sorted(found))


def _port(service: Service, name: str) -> CoreServicePort | None:
    return next((port for port in service.spec.ports if port.name == name), None)


def _slices(objects: ObjectSnapshot, service: ServiceName) -> list[EndpointSlice]:
    return [
        entry
        for key, entry in objects.objects.items()
        if isinstance(entry, EndpointSlice)
        and key.namespace == service.namespace
        and entry.service_name == service.name
    ]


def _node_hosts(objects: ObjectSnapshot, service: ServiceName, found: Service) -> tuple[str, ...]:
    """An address of each node; with ``externalTrafficPolicy: Local`` of those with a gateway."""
    nodes = objects.of(Node)
    if found.spec.external_traffic_policy == "Local":
        with_gateway = {pod.node for pod in gateway_pods(objects, service)}
        nodes = tuple(node for node in nodes if node.metadata.name in with_gateway)
    hosts = (_node_host(node) for node in nodes)
    return tuple(sorted({host for host in hosts if host is not None}))


def _node_host(node: Node) -> str | None:
    for wanted in _NODE_ADDRESSES:
        for entry in node.status.addresses:
            if entry.type == wanted:
                return entry.address
    return None


def _entrances(hosts: Iterable[str], port: int) -> tuple[Entrance, ...]:
    return tuple(sorted({Entrance(host, port) for host in hosts}))
