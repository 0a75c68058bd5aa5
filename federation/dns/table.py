"""The names of the clusterset: which there are, what they lead to.

Decides: every exported service has its name, and so has every import here that means one. Where
imports have addresses of their own (Kubernetes) names are those of imports, and lead there; names
of headless services lead to the ready endpoints, each of which has a name too.
Leaves to others: the gateways' addresses (whoever runs the server knows them), messages
(``answer``).
Invariants: immutable; the names of a service that is not headless do not depend on readiness; a
headless one without a ready endpoint has no name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.derive.imports import meant_service
from federation.derive.merge import merge
from federation.model.base import ClusterId, ServiceName
from federation.model.facts import EndpointsFact, ServicePort, ServiceType
from federation.model.objects import FederatedServiceImport, McsServiceImport, ObjectSnapshot
from federation.model.view import FederationView


@dataclass(frozen=True, slots=True, order=True)
class HostRecord:
    """An endpoint of a headless service: ``HOSTNAME.CLUSTER`` below the service's name."""

    hostname: str
    cluster: ClusterId
    addresses: tuple[str, ...]
    ports: tuple[ServicePort, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One name: its addresses (IPv4 and IPv6 mixed) and ports; ``hosts`` of a headless service."""

    addresses: tuple[str, ...]
    ports: tuple[ServicePort, ...] = ()
    hosts: tuple[HostRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsTable:
    """All names at one moment. ``serial`` becomes the zone's SOA serial."""

    services: Mapping[ServiceName, ServiceRecord] = field(default_factory=dict)
    serial: int = 1

    def has_namespace(self, namespace: str) -> bool:
        """Whether any name stands in ``namespace``."""
        return any(name.namespace == namespace for name in self.services)


def build_table(
    view: FederationView, objects: ObjectSnapshot, *, addresses: Iterable[str] | None
) -> DnsTable:
    """The names that a cluster with ``objects`` answers for.

    They lead to ``addresses``; with ``None`` to those of the imports, which alone have names then.
    """
    gateways = tuple(sorted(set(addresses))) if addresses is not None else None
    services: dict[ServiceName, ServiceRecord] = {}
    for service, exports in view.exports.items():
        merged = merge(exports)
        if merged.type is ServiceType.HEADLESS:
            if record := _headless(view.endpoints.get(service, ())):
                services[service] = record
            continue
        found = gateways
        if found is None:
            known = objects.get(McsServiceImport, service.namespace, service.name)
            if known is None:
                continue
            found = known.spec.ips
        services[service] = ServiceRecord(found, merged.ports)
    named = dict(services)
    imports: list[McsServiceImport | FederatedServiceImport] = [
        *objects.of(McsServiceImport),
        *objects.of(FederatedServiceImport),
    ]
    for entry in imports:
        meant = meant_service(entry, view.exports)
        if meant in services:
            own = ServiceName(namespace=entry.metadata.namespace, name=entry.metadata.name)
            named.setdefault(own, services[meant])
    return DnsTable(services=named, serial=max(1, view.revision % 2**32))


def _as_label(address: str) -> str:
    """The host name of an endpoint that says none."""
    return address.replace(".", "-").replace(":", "-")


def _headless(slices: Iterable[EndpointsFact]) -> ServiceRecord | None:
    """The record of a headless service with these endpoints; ``None`` without a ready one."""
    addresses: defaultdict[tuple[str, ClusterId], set[str]] = defaultdict(set)
    ports: defaultdict[tuple[str, ClusterId], set[tuple[str, str, int]]] = defaultdict(set)
    for entry in slices:
        told = {(port.name, port.protocol, port.port) for port in entry.ports if port.port}
        for endpoint in entry.endpoints:
            for address in endpoint.addresses if endpoint.ready else ():
                host = endpoint.hostname or _as_label(address), entry.cluster
                addresses[host].add(address)
                ports[host] |= told
    if not addresses:
        return None
    hosts = tuple(
        HostRecord(
            hostname=hostname,
            cluster=cluster,
            addresses=tuple(sorted(found)),
            ports=tuple(
                ServicePort(name=name, protocol=protocol, port=port)
                for name, protocol, port in sorted(ports[hostname, cluster])
            ),
        )
        for (hostname, cluster), found in sorted(addresses.items())
    )
    every = sorted({address for host in hosts for address in host.addresses})
    return ServiceRecord(tuple(every), hosts=hosts)
