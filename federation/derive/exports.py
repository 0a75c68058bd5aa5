"""What one cluster's objects say to the others: its exports, and what it asks of imports.

Decides: which Services are exported (by a ServiceExport of their name, or by a MultiClusterService
applied here that lists this cluster or its region), and their summaries.
Leaves to others: what is asked of imports (``derive.exports_policies``), whether a shrink is
believed (``derive.shrink``), conflicts between clusters and all conditions (``derive.compile``).
Invariants: no cluster exports on behalf of another; a Service that nobody exports is not in the
facts; endpoints are counted, and named for headless Services alone; an object that makes no sense
is skipped (its conditions say why) and stops no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from federation.derive.exports_meaning import Meanings
from federation.derive.exports_policies import derive_policies
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import (
    EndpointsFact,
    ExportFact,
    ServicePolicyFact,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)
from federation.model.objects import (
    CoreServiceType,
    EndpointPort,
    EndpointSlice,
    McsServiceExport,
    MultiClusterService,
    ObjectSnapshot,
    Service,
)
from federation.model.objects.multicluster import ServiceExportSpec

_Ports = defaultdict[tuple[str, str], dict[int | None, bool]]
"""What stands at one address: under each port's name and protocol, its numbers and readiness."""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """All that a cluster publishes about its services.

    ``policies`` is keyed by service and import name; a service has one policy at most.
    ``endpoints`` is keyed by service and name of the EndpointSlice, of headless exports.
    """

    exports: Mapping[ServiceName, ExportFact] = field(default_factory=dict)
    policies: Mapping[tuple[ServiceName, str], ServicePolicyFact] = field(default_factory=dict)
    endpoints: Mapping[tuple[ServiceName, str], EndpointsFact] = field(default_factory=dict)


def derive_facts(
    *,
    cluster: ClusterId,
    region: Region,
    objects: ObjectSnapshot,
    exported: Collection[ServiceName] = (),
) -> ClusterFacts:
    """The facts of ``cluster``. ``exported`` are services known to be exported by any cluster."""
    by_export = _by_service_export(objects)
    meanings = Meanings(objects, frozenset({*exported, *by_export}))
    listed = _by_multi_cluster_service(objects, {cluster, region}, meanings)
    counts = _counts(objects.of(EndpointSlice))
    exports = {}
    for name in sorted({*by_export, *listed}, key=str):
        service = meanings.service(name)
        assert service is not None
        ready, total = counts.get(name, (0, 0))
        exports[name] = ExportFact(
            cluster=cluster,
            region=region,
            service=name,
            type=ServiceType.HEADLESS if service.headless else ServiceType.CLUSTER_SET_IP,
            ports=_ports(service),
            ready=ready,
            total=total,
            capacity=ready,
            session_affinity=service.spec.session_affinity,
            session_affinity_timeout_s=_affinity_timeout_s(service),
            internal_traffic_policy=service.spec.internal_traffic_policy,
            traffic_distribution=service.spec.traffic_distribution,
            ip_families=service.spec.ip_families,
            labels=_exported(by_export, name).exported_labels or {},
            annotations=_exported(by_export, name).exported_annotations or {},
            exported_at=_exported_at(by_export, name),
        )
    policies = derive_policies(cluster=cluster, objects=objects, meanings=meanings)
    headless = {name for name, fact in exports.items() if fact.type is ServiceType.HEADLESS}
    return ClusterFacts(exports, policies, _endpoints(cluster, objects, headless))


def _endpoints(
    cluster: ClusterId, objects: ObjectSnapshot, headless: Collection[ServiceName]
) -> dict[tuple[ServiceName, str], EndpointsFact]:
    """The slices of headless exports, as far as other clusters have use for them."""
    found = {}
    for entry in objects.of(EndpointSlice):
        if entry.service_name is None:
            continue
        service = ServiceName(namespace=entry.metadata.namespace, name=entry.service_name)
        if service in headless:
            fact = _slice(cluster, service, entry)
            found[service, fact.name] = fact
    return found


def _slice(cluster: ClusterId, service: ServiceName, entry: EndpointSlice) -> EndpointsFact:
    return EndpointsFact(
        cluster=cluster,
        service=service,
        name=entry.metadata.name,
        address_type=entry.address_type,
        ports=tuple(
            SlicePort(
                name=port.name,
                port=port.port,
                protocol=port.protocol,
                app_protocol=port.app_protocol,
            )
            for port in entry.ports
        ),
        endpoints=tuple(
            SliceEndpoint(
                addresses=endpoint.addresses,
                hostname=endpoint.hostname,
                ready=endpoint.ready,
                serving=endpoint.conditions.serving is not False,
                terminating=endpoint.conditions.terminating is True,
                zone=endpoint.zone,
            )
            for endpoint in entry.endpoints
        ),
    )


def _by_service_export(objects: ObjectSnapshot) -> dict[ServiceName, McsServiceExport]:
    """Services with a ServiceExport."""
    found: dict[ServiceName, McsServiceExport] = {}
    for export in objects.of(McsServiceExport):
        meta = export.metadata
        service = objects.get(Service, meta.namespace, meta.name)
        if service is not None and _exportable(service):
            name = ServiceName(namespace=meta.namespace, name=meta.name)
            found[name] = export
    return found


_Exports = Mapping[ServiceName, McsServiceExport]


def _exported(exports: _Exports, name: ServiceName) -> ServiceExportSpec:
    export = exports.get(name)
    return export.spec if export is not None else ServiceExportSpec()


def _exported_at(exports: _Exports, name: ServiceName) -> str | None:
    """When the export was made, by its cluster's clock: for display."""
    export = exports.get(name)
    return export.metadata.creation_timestamp if export is not None else None


def _affinity_timeout_s(service: Service) -> int | None:
    config = service.spec.session_affinity_config or {}
    client_ip = config.get("clientIP")
    seconds = client_ip.get("timeoutSeconds") if isinstance(client_ip, Mapping) else None
    return seconds if isinstance(seconds, int) else None


def _by_multi_cluster_service(
    objects: ObjectSnapshot, own_names: set[str], meanings: Meanings
) -> set[ServiceName]:
    """Services of this cluster for which a MultiClusterService lists it."""
    found = set()
    for source in objects.of(MultiClusterService):
        if not any(backend.cluster in own_names for backend in source.spec.cluster_backends):
            continue
        meant = meanings.of_multi_cluster_service(source)
        service = meanings.service(meant) if meant is not None else None
        if meant is not None and service is not None and _exportable(service):
            found.add(meant)
    return found


def _exportable(service: Service) -> bool:
    return service.spec.type is not CoreServiceType.EXTERNAL_NAME


def _ports(service: Service) -> tuple[ServicePort, ...]:
    return tuple(
        ServicePort(
            name=entry.name,
            port=entry.port,
            protocol=entry.protocol,
            app_protocol=entry.app_protocol,
        )
        for entry in service.spec.ports
    )


def _counts(slices: Iterable[EndpointSlice]) -> dict[ServiceName, tuple[int, int]]:
    """Ready and all endpoints of each service.

    An endpoint of several slices (one for each group of ports) counts once; several endpoints on
    one address (processes of one host) differ in the number of the same named port. A dual-stack
    endpoint stands in slices of two address types; the larger family counts.
    """
    families: defaultdict[tuple[ServiceName, str], defaultdict[str, _Ports]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for entry in slices:
        if entry.service_name is None:
            continue
        name = ServiceName(namespace=entry.metadata.namespace, name=entry.service_name)
        family = families[name, entry.address_type]
        for port in entry.ports or (EndpointPort(),):
            for endpoint in entry.endpoints:
                for address in endpoint.addresses:
                    numbers = family[address][port.name, port.protocol]
                    numbers[port.port] = numbers.get(port.port, False) or endpoint.ready
    counts: dict[ServiceName, tuple[int, int]] = {}
    for (name, _), family in families.items():
        at_addresses = [_at_address(ports) for ports in family.values()]
        counted = (sum(ready for ready, _ in at_addresses), sum(total for _, total in at_addresses))
        counts[name] = max(counts.get(name, (0, 0)), counted)
    return counts


def _at_address(ports: _Ports) -> tuple[int, int]:
    return max((sum(numbers.values()), len(numbers)) for numbers in ports.values())
