"""All objects that follow in one cluster from what the clusterset exports (KEP-1645).

Decides: the derived Service of each import of type ClusterSetIP, whose addresses become the
import's, its ports at the gateways, and the slices that lead there; the slices of headless imports,
which lead to the endpoints themselves.
Leaves to others: which imports there are (``mcs_imports``), ports (``mcs_ports``), listeners
(``compile``), writing (a ``DerivedObjects`` port).
Invariants: pure; a derived Service keeps its addresses, families and ports for the import's life
(they stand in the Service, and the addresses in the import too); slices are of one source cluster
each; while no gateway is known to be ready, the slices that there are stay.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from federation.derive.entrances import GatewayPod, gateway_pods
from federation.derive.mcs_imports import (
    DERIVED_SERVICE,
    MANAGED_BY,
    MANAGER,
    derived_imports,
    is_ours,
)
from federation.derive.mcs_ports import PortKey, PortRange, allocate, carried_as
from federation.model.base import ClusterId, ServiceName
from federation.model.facts import EndpointsFact, ExportFact, ServiceType
from federation.model.objects import (
    ApiObject,
    CoreServicePort,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    Gateway,
    McsServiceImport,
    ObjectKey,
    ObjectSnapshot,
    Service,
)
from federation.model.objects.core import SERVICE_NAME_LABEL, ServiceSpec
from federation.model.objects.metadata import ObjectMeta
from federation.model.objects.multicluster import ImportPort
from federation.model.view import FederationView

SERVICE_LABEL = "multicluster.kubernetes.io/service-name"
"""Label of derived objects: the name of the import, in the same namespace."""

SOURCE_LABEL = "multicluster.kubernetes.io/source-cluster"
"""Label of slices: the cluster whose endpoints they hold."""

_SLICE_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_ENDPOINTS_MAX = 1000
"""Of one slice, by Kubernetes; more ready gateways than that are left out."""


@dataclass(frozen=True, slots=True)
class DerivedState:
    """The derived objects of each kind, by key."""

    imports: Mapping[ObjectKey, McsServiceImport] = field(default_factory=dict)
    services: Mapping[ObjectKey, Service] = field(default_factory=dict)
    slices: Mapping[ObjectKey, EndpointSlice] = field(default_factory=dict)


def derived_name(service: ServiceName, *more: str) -> str:
    """The name of an object that is derived for ``service``, the same wherever it is derived."""
    text = "/".join((str(service), *more))
    return f"derived-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def listener_ports(service: Service, ports: PortRange) -> Mapping[int, int]:
    """The gateways' port for each port of a derived Service that is carried."""
    return {
        entry.port: entry.target_port
        for entry in service.spec.ports
        if entry.protocol == "TCP"
        and isinstance(entry.target_port, int)
        and entry.target_port in ports
    }


def derive_state(
    cluster: ClusterId,
    objects: ObjectSnapshot,
    view: FederationView,
    *,
    gateway_service: ServiceName | None,
    ports: PortRange,
) -> DerivedState:
    """What ``cluster``, which has ``objects``, is to have of what ``view`` exports.

    Without a ``gateway_service`` imports of type ClusterSetIP have no address: nobody knows where
    the gateways are.
    """
    imports = dict(derived_imports(objects, view))
    mine = [entry for entry in imports.values() if not _is_foreign(objects, entry.key)]
    slices: dict[ObjectKey, EndpointSlice] = {}
    for entry in mine:
        if entry.spec.type is ServiceType.HEADLESS:
            for fact in view.endpoints.get(_name(entry), ()):
                found = _headless_slice(fact)
                slices[found.key] = found
    if gateway_service is None:
        return DerivedState(imports, slices=slices)
    balanced = [entry for entry in mine if entry.spec.type is ServiceType.CLUSTER_SET_IP]
    numbers = _allocated(objects, balanced, ports)
    front = objects.get(Service, gateway_service.namespace, gateway_service.name)
    pods = gateway_pods(objects, gateway_service)
    services = {}
    for entry in balanced:
        imports[entry.key] = _with_addresses(objects, entry)
        wanted = _service(objects, entry, numbers, front)
        services[wanted.key] = wanted
        for found in _gateway_slices(cluster, objects, wanted, pods, ports):
            slices[found.key] = found
    return DerivedState(imports, services, slices)


def derived_service(objects: ObjectSnapshot, source: McsServiceImport) -> Service | None:
    """The derived Service of an import, as the cluster has it."""
    name = _name(source)
    found = objects.get(Service, name.namespace, derived_name(name))
    return found if found is not None and is_ours(found) else None


def _name(source: McsServiceImport) -> ServiceName:
    return ServiceName(namespace=source.metadata.namespace, name=source.metadata.name)


def _with_addresses(objects: ObjectSnapshot, source: McsServiceImport) -> McsServiceImport:
    """``source`` with the addresses of its derived Service; without one those that it had.

    Families are those in which it is reached here, whatever the exporters have: gateways stand
    between.
    """
    service = derived_service(objects, source)
    known = objects.objects.get(source.key)
    if service is not None:
        ips, families = service.spec.cluster_ips, service.spec.ip_families
    elif isinstance(known, McsServiceImport):
        ips, families = known.spec.ips, known.spec.ip_families
    else:
        ips, families = (), ()
    told = {DERIVED_SERVICE: derived_name(_name(source))}
    annotations = {**(source.metadata.annotations or {}), **told}
    spec = source.spec.model_copy(update={"ips": ips, "ip_families": families})
    return source.with_metadata(annotations=annotations).model_copy(update={"spec": spec})


def _is_foreign(objects: ObjectSnapshot, key: ObjectKey) -> bool:
    found = objects.objects.get(key)
    return found is not None and not is_ours(found)


def _allocated(
    objects: ObjectSnapshot, imports: Collection[McsServiceImport], ports: PortRange
) -> Mapping[PortKey, int]:
    kept: dict[PortKey, int] = {}
    wanted: list[PortKey] = []
    for entry in imports:
        namespace, name = entry.metadata.namespace, entry.metadata.name
        known = derived_service(objects, entry)
        has = listener_ports(known, ports) if known is not None else {}
        for port in entry.spec.ports:
            if _carried(port):
                key = PortKey(namespace, name, port.port)
                wanted.append(key)
                if port.port in has:
                    kept[key] = has[port.port]
    taken = {spec.port for gateway in objects.of(Gateway) for spec in gateway.spec.listeners}
    # Those of imports that are not known to be gone are in use still.
    names = {derived_name(_name(entry)) for entry in imports}
    for service in objects.of(Service):
        if is_ours(service) and service.metadata.name not in names:
            taken |= set(listener_ports(service, ports).values())
    return allocate(wanted, kept=kept, taken=taken, ports=ports)


def _carried(port: ImportPort) -> bool:
    return (
        carried_as(name=port.name, protocol=port.protocol, app_protocol=port.app_protocol)
        is not None
    )


def _service(
    objects: ObjectSnapshot,
    source: McsServiceImport,
    numbers: Mapping[PortKey, int],
    front: Service | None,
) -> Service:
    """The derived Service: families are those of the gateways' Service, once and for all."""
    namespace, name = source.metadata.namespace, source.metadata.name
    known = derived_service(objects, source)
    addresses = known.spec.cluster_ips if known is not None else _recorded(objects, source)
    model = known or front
    spec = ServiceSpec(
        ports=tuple(
            CoreServicePort(
                # Of several ports each needs a name, and one cluster's single port may have none.
                name=port.name or (f"port-{port.port}" if len(source.spec.ports) > 1 else ""),
                port=port.port,
                protocol=port.protocol,
                app_protocol=port.app_protocol,
                # Of a port that is not carried: its own, which no slice has.
                target_port=numbers.get(PortKey(namespace, name, port.port), port.port)
                if _carried(port)
                else port.port,
            )
            for port in source.spec.ports
        ),
        cluster_ip=addresses[0] if addresses else None,
        cluster_ips=addresses,
        ip_families=model.spec.ip_families if model is not None else (),
        ip_family_policy=model.spec.ip_family_policy if model is not None else None,
    )
    return Service(
        metadata=ObjectMeta(
            name=derived_name(_name(source)),
            namespace=namespace,
            labels={MANAGED_BY: MANAGER, SERVICE_LABEL: name},
        ),
        spec=spec,
    )


def _recorded(objects: ObjectSnapshot, source: McsServiceImport) -> tuple[str, ...]:
    """The addresses that the import has given out already."""
    known = objects.objects.get(source.key)
    return known.spec.ips if isinstance(known, McsServiceImport) else ()


def _gateway_slices(
    cluster: ClusterId,
    objects: ObjectSnapshot,
    service: Service,
    pods: tuple[GatewayPod, ...],
    ports: PortRange,
) -> Iterable[EndpointSlice]:
    numbers = listener_ports(service, ports)
    name = (service.metadata.labels or {})[SERVICE_LABEL]
    for family in service.spec.ip_families:
        found = [pod for pod in pods if _family(pod.address) == family]
        key_name = f"{service.metadata.name}-{family.lower()}"
        stored = objects.get(EndpointSlice, service.metadata.namespace, key_name)
        endpoints = tuple(
            Endpoint(
                addresses=(pod.address,),
                conditions=EndpointConditions(ready=True, serving=True, terminating=False),
                node_name=pod.node or None,
            )
            for pod in found[:_ENDPOINTS_MAX]
        )
        yield EndpointSlice(
            metadata=_slice_metadata(
                service.metadata.namespace,
                key_name,
                service=name,
                source=cluster,
                more={SERVICE_NAME_LABEL: service.metadata.name},
            ),
            address_type=family,
            # No ready gateway may be true, or not known: what is there leads nowhere worse.
            endpoints=endpoints or (stored.endpoints if stored is not None else ()),
            ports=tuple(
                EndpointPort(
                    name=port.name,
                    port=numbers[port.port],
                    protocol=port.protocol,
                    app_protocol=port.app_protocol,
                )
                for port in service.spec.ports
                if port.port in numbers and port.protocol == "TCP"
            ),
        )


def _family(address: str) -> str:
    return f"IPv{ipaddress.ip_address(address).version}"


def _headless_slice(fact: EndpointsFact) -> EndpointSlice:
    return EndpointSlice(
        metadata=_slice_metadata(
            fact.service.namespace,
            derived_name(fact.service, fact.cluster, fact.name),
            service=fact.service.name,
            source=fact.cluster,
        ),
        address_type=fact.address_type,
        endpoints=tuple(
            Endpoint(
                addresses=entry.addresses,
                conditions=EndpointConditions(
                    ready=entry.ready, serving=entry.serving, terminating=entry.terminating
                ),
                hostname=entry.hostname,
                zone=entry.zone,
            )
            for entry in fact.endpoints
        ),
        ports=tuple(
            EndpointPort(
                name=port.name,
                port=port.port,
                protocol=port.protocol,
                app_protocol=port.app_protocol,
            )
            for port in fact.ports
        ),
    )


def _slice_metadata(
    namespace: str,
    name: str,
    *,
    service: str,
    source: ClusterId,
    more: Mapping[str, str] | None = None,
) -> ObjectMeta:
    labels = {
        MANAGED_BY: MANAGER,
        _SLICE_MANAGED_BY: MANAGER,
        SERVICE_LABEL: service,
        SOURCE_LABEL: source,
        **(more or {}),
    }
    return ObjectMeta(name=name, namespace=namespace, labels=labels)


def shape(fact: ExportFact) -> object:
    """What of an export derived objects depend on: all but how much of it is ready."""
    return tuple(getattr(fact, name) for name in _SHAPE)


_SHAPE = tuple(
    name for name in ExportFact.model_fields if name not in ("ready", "total", "capacity")
)


def agrees(
    objects: ObjectSnapshot, kind: type[ApiObject], wanted: Mapping[ObjectKey, ApiObject]
) -> bool:
    """Whether the objects of ``kind`` that are ours are those of ``wanted``, as they should be.

    One of the same name that is somebody else's stays as it is.
    """
    mine = {
        key: entry
        for key, entry in objects.objects.items()
        if isinstance(entry, kind) and is_ours(entry)
    }
    theirs = objects.objects.keys() - mine.keys()
    return mine.keys() == wanted.keys() - theirs and all(
        is_as_wanted(entry, wanted[key]) for key, entry in mine.items()
    )


def is_as_wanted(stored: ApiObject, wanted: ApiObject) -> bool:
    """Whether ``stored`` says all that ``wanted`` says.

    A Service has more, which its API server adds (ports of nodes, policies); what else is added to
    the labels of Services and slices is not ours to judge.
    """
    was, now = stored.to_document(), wanted.to_document()
    metadata = ((part["metadata"].get(name) or {}) for part in (was, now) for name in _TOLD)
    old_labels, old_notes, new_labels, new_notes = metadata
    for name in _IDENTITY:
        was.pop(name, None)
        now.pop(name, None)
    if isinstance(wanted, McsServiceImport):
        return (old_labels, old_notes, was) == (new_labels, new_notes, now)
    if new_labels.items() - old_labels.items() or new_notes.items() - old_notes.items():
        return False
    return _says(was, now) if isinstance(wanted, Service) else was == now


_TOLD = ("labels", "annotations")
_IDENTITY = ("apiVersion", "kind", "metadata", "status")


def _says(stored: object, wanted: object) -> bool:
    if isinstance(wanted, dict):
        return isinstance(stored, dict) and all(
            _says(stored.get(name), value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(wanted)
            and all(_says(*pair) for pair in zip(stored, wanted, strict=True))
        )
    return stored == wanted
