"""The names of the clusterset: which there are, what they lead to.

Decides: every exported service has its name, and so has every import here that means one.
Leaves to others: the addresses (whoever runs the server knows its gateways), messages (``answer``).
Invariants: immutable; the names of a service do not depend on readiness; headless services have no
name here, since their endpoints are not known to the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.derive.imports import meant_service
from federation.model.base import ServiceName
from federation.model.facts import ExportFact, ServicePort, ServiceType
from federation.model.objects import FederatedServiceImport, McsServiceImport, ObjectSnapshot
from federation.model.view import FederationView


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One name: its addresses (IPv4 and IPv6 mixed) and ports."""

    addresses: tuple[str, ...]
    ports: tuple[ServicePort, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsTable:
    """All names at one moment. ``serial`` becomes the zone's SOA serial."""

    services: Mapping[ServiceName, ServiceRecord] = field(default_factory=dict)
    serial: int = 1

    def has_namespace(self, namespace: str) -> bool:
        """Whether any name stands in ``namespace``."""
        return any(name.namespace == namespace for name in self.services)


def build_table(
    view: FederationView, objects: ObjectSnapshot, *, addresses: Iterable[str]
) -> DnsTable:
    """The names that a cluster with ``objects`` answers for; all lead to ``addresses``."""
    found = tuple(sorted(set(addresses)))
    services: dict[ServiceName, ServiceRecord] = {}
    for service, exports in view.exports.items():
        oldest = min(exports.values(), key=lambda fact: (fact.create_revision, fact.cluster))
        if oldest.type is ServiceType.CLUSTER_SET_IP:
            services[service] = ServiceRecord(found, _union(oldest, exports.values()))
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


def _union(oldest: ExportFact, exports: Iterable[ExportFact]) -> tuple[ServicePort, ...]:
    """Ports of all exports; of two of one name, or of one protocol and number, the oldest's."""
    ports = list(oldest.ports)
    for fact in sorted(exports, key=lambda fact: (fact.create_revision, fact.cluster)):
        for port in fact.ports:
            if not any(
                port.name == other.name
                or (port.protocol, port.port) == (other.protocol, other.port)
                for other in ports
            ):
                ports.append(port)
    return tuple(ports)
