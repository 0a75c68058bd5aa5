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
from federation.derive.incremental import Change, Single, Units
from federation.derive.object_tables import ObjectTables, SlicesByService
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
    return FactDeriver(cluster, region).derive(objects, exported)


_Listed = tuple[ServiceName, McsServiceExport | None]


class FactDeriver:
    """Facts of successive snapshots; those of services that have not changed are not made again.

    One caller at a time.
    """

    def __init__(self, cluster: ClusterId, region: Region) -> None:
        self._cluster = cluster
        self._region = region
        self._forget()

    def __repr__(self) -> str:
        return f"FactDeriver({self._cluster}, made={self.made})"

    @property
    def made(self) -> int:
        """How many exports the last derivation made anew."""
        return self._exports.made

    def derive(
        self, objects: ObjectSnapshot, exported: Collection[ServiceName] = ()
    ) -> ClusterFacts:
        """The facts of ``objects``; equal to ``derive_facts``."""
        try:
            return self._derive(objects, dict.fromkeys(exported))
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self._tables = ObjectTables()
        self._known: Mapping[ServiceName, None] = {}
        self._by_export: Single[Mapping[ServiceName, McsServiceExport]] = Single()
        self._listed: Single[set[ServiceName]] = Single()
        self._wanted: Single[Mapping[ServiceName, _Listed]] = Single()
        self._exports: Units[ServiceName, _Listed, ExportFact] = Units()
        self._policies: Single[Mapping[tuple[ServiceName, str], ServicePolicyFact]] = Single()
        self._headless: Single[Mapping[ServiceName, tuple[ServiceName]]] = Single()
        self._slices: Units[ServiceName, tuple[ServiceName], tuple[EndpointsFact, ...]] = Units()

    def _derive(
        self, objects: ObjectSnapshot, exported: Mapping[ServiceName, None]
    ) -> ClusterFacts:
        change = Change()
        noting, slices = self._tables.follow(objects, change)
        by_export = self._by_export.update(change, (), lambda: _by_service_export(noting))
        everywhere = {**exported, **dict.fromkeys(by_export)}
        known = change.table("exported", self._known, everywhere)
        self._known = everywhere
        meanings = Meanings(noting, known)
        own_names = {str(self._cluster), str(self._region)}
        listed = self._listed.update(
            change, (), lambda: _by_multi_cluster_service(noting, own_names, meanings)
        )
        wanted = self._wanted.update(
            change,
            (by_export, listed),
            lambda: {
                name: (name, by_export.get(name)) for name in sorted({*by_export, *listed}, key=str)
            },
        )
        exports = self._exports.update(change, wanted, lambda of: self._fact(meanings, slices, *of))
        policies = self._policies.update(
            change,
            (),
            lambda: derive_policies(cluster=self._cluster, objects=noting, meanings=meanings),
        )
        headless = self._headless.update(
            change,
            (exports,),
            lambda: {
                name: (name,) for name, fact in exports.items() if fact.type is ServiceType.HEADLESS
            },
        )
        endpoints = self._slices.update(
            change,
            headless,
            lambda of: tuple(_slice(self._cluster, *of, it) for it in slices.get(*of) or ()),
        )
        return ClusterFacts(
            exports,
            policies,
            {(service, fact.name): fact for service, facts in endpoints.items() for fact in facts},
        )

    def _fact(
        self,
        meanings: Meanings,
        slices: SlicesByService,
        name: ServiceName,
        export: McsServiceExport | None,
    ) -> ExportFact:
        service = meanings.service(name)
        assert service is not None
        ready, total = _counted(slices.get(name) or ())
        said = export.spec if export is not None else ServiceExportSpec()
        return ExportFact(
            cluster=self._cluster,
            region=self._region,
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
            labels=said.exported_labels or {},
            annotations=said.exported_annotations or {},
            # By its cluster's clock: for display.
            exported_at=export.metadata.creation_timestamp if export is not None else None,
        )


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


def _counted(slices: Iterable[EndpointSlice]) -> tuple[int, int]:
    """Ready and all endpoints of a service's ``slices``.

    An endpoint of several slices (one for each group of ports) counts once; several endpoints on
    one address (processes of one host) differ in the number of the same named port. A dual-stack
    endpoint stands in slices of two address types; the larger family counts.
    """
    families: defaultdict[str, defaultdict[str, _Ports]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for entry in slices:
        family = families[entry.address_type]
        for port in entry.ports or (EndpointPort(),):
            for endpoint in entry.endpoints:
                for address in endpoint.addresses:
                    numbers = family[address][port.name, port.protocol]
                    numbers[port.port] = numbers.get(port.port, False) or endpoint.ready
    largest = (0, 0)
    for family in families.values():
        at = [_at_address(ports) for ports in family.values()]
        largest = max(largest, (sum(ready for ready, _ in at), sum(total for _, total in at)))
    return largest


def _at_address(ports: _Ports) -> tuple[int, int]:
    return max((sum(numbers.values()), len(numbers)) for numbers in ports.values())
