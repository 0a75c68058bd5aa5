"""Backends of rules: what a backendRef leads to.

Decides: which references resolve, what version of HTTP is spoken there, and in what reason a
reference fails.
Leaves to others: weights and answers (``rules``), the endpoints behind (``upstreams``).
Invariants: a reference into another namespace without a grant fails alike whether its referent
exists or not; a Service means the endpoints of this cluster, an import those of the clusterset.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.derive.compile.index import AnyImport, Index
from federation.derive.compile.problem import Problem
from federation.derive.imports import candidates
from federation.derive.mcs_ports import HTTP1_APP_PROTOCOLS, HTTP2_APP_PROTOCOLS
from federation.model.base import ServiceName
from federation.model.objects import (
    AnyRoute,
    BackendObjectReference,
    CoreServicePort,
    CoreServiceType,
    FederatedServiceImport,
    GRPCRoute,
    HTTPRoute,
    McsServiceImport,
    ObjectKey,
    Service,
)
from federation.model.snapshot import Protocol

GRPC_PROTOCOLS = HTTP2_APP_PROTOCOLS
"""Values of ``appProtocol`` that mean HTTP/2 without TLS, as none at all does on a GRPCRoute."""

HTTP1_PROTOCOLS = HTTP1_APP_PROTOCOLS
"""Values that mean HTTP/1.1 without TLS, as none at all does on an HTTPRoute."""

_KINDS = frozenset(
    (kind.GROUP, kind.KIND) for kind in (Service, FederatedServiceImport, McsServiceImport)
)


@dataclass(frozen=True, slots=True)
class Backend:
    """A resolved reference: a port of a Service, of this cluster or (``imported``) of all."""

    service: ServiceName
    port: int
    imported: bool
    protocol: Protocol = Protocol.HTTP2


def resolve_backend(
    index: Index, route: AnyRoute, ref: BackendObjectReference, *, where: str
) -> Backend | Problem:
    """What ``ref`` of ``route`` leads to, or why it leads nowhere."""
    key = ObjectKey(ref.group, ref.kind, ref.namespace or route.metadata.namespace, ref.name)
    if (ref.group, ref.kind) not in _KINDS:
        group = ref.group or "core"
        message = f"{where}: kind {ref.kind} ({group}) is no backend; use Service or ServiceImport"
        return Problem("InvalidKind", message)
    if not index.permitted(route.key, key):
        return Problem(
            "RefNotPermitted",
            f"{where}: no ReferenceGrant in namespace {key.namespace} lets {route.KIND}s of "
            f"namespace {route.metadata.namespace} refer to {key}",
        )
    if ref.port is None:
        return Problem("BackendNotFound", f"{where}.port: {key} needs a port")
    found = index.objects.objects.get(key)
    if isinstance(found, Service):
        return _of_service(found, ref.port, where, route.key.kind)
    if isinstance(found, FederatedServiceImport | McsServiceImport):
        return _of_import(index, found, ref.port, where, route.key.kind)
    return Problem("BackendNotFound", f"{where}: {key} does not exist")


def port_of(service: Service, number: int) -> CoreServicePort | None:
    """The TCP port ``number`` of a Service."""
    matching = (port for port in service.spec.ports if port.port == number)
    return next((port for port in matching if port.protocol == "TCP"), None)


def protocol_of(app_protocol: str | None, route_kind: str) -> Protocol | None:
    """What a port speaks to a route of this kind; ``None``: what it says is not supported there."""
    grpc = route_kind == GRPCRoute.KIND
    if app_protocol is None:
        return Protocol.HTTP2 if grpc else Protocol.HTTP1
    if app_protocol.lower() in GRPC_PROTOCOLS:
        return Protocol.HTTP2
    return Protocol.HTTP1 if not grpc and app_protocol.lower() in HTTP1_PROTOCOLS else None


def spoken(app_protocol: str | None) -> tuple[Protocol, ...]:
    """What a port speaks to routes of some kind, HTTP/2 first and at least that."""
    kinds = (GRPCRoute.KIND, HTTPRoute.KIND)
    found = {protocol_of(app_protocol, kind) for kind in kinds} - {None}
    return tuple(it for it in (Protocol.HTTP2, Protocol.HTTP1) if it in found) or (Protocol.HTTP2,)


def _unsupported(
    where: str, owner: object, number: int, app_protocol: str | None, route_kind: str
) -> Problem:
    grpc = route_kind == GRPCRoute.KIND
    usable = GRPC_PROTOCOLS if grpc else GRPC_PROTOCOLS | HTTP1_PROTOCOLS
    return Problem(
        "UnsupportedProtocol",
        f"{where}.port: {owner} says appProtocol {app_protocol} for port {number}; "
        f"{'gRPC' if grpc else route_kind} needs one of {', '.join(sorted(usable))}",
    )


def _of_service(service: Service, number: int, where: str, route_kind: str) -> Backend | Problem:
    if service.spec.type is CoreServiceType.EXTERNAL_NAME:
        message = f"{where}: {service.key} is of type ExternalName, which has no endpoints"
        return Problem("InvalidKind", message)
    port = port_of(service, number)
    if port is None:
        ports = ", ".join(f"{entry.port}/{entry.protocol}" for entry in service.spec.ports)
        return Problem(
            "BackendNotFound",
            f"{where}.port: {service.key} has no TCP port {number}; ports: {ports or 'none'}",
        )
    protocol = protocol_of(port.app_protocol, route_kind)
    if protocol is None:
        return _unsupported(where, service.key, number, port.app_protocol, route_kind)
    name = ServiceName(namespace=service.metadata.namespace, name=service.metadata.name)
    return Backend(service=name, port=number, imported=False, protocol=protocol)


def _of_import(
    index: Index, source: AnyImport, number: int, where: str, route_kind: str
) -> Backend | Problem:
    ports = {entry.port for entry in source.spec.ports}
    if ports and number not in ports:
        listed = ", ".join(str(port) for port in sorted(ports))
        return Problem(
            "BackendNotFound", f"{where}.port: {source.key} has no port {number}; ports: {listed}"
        )
    service = index.meaning(source)
    if service is None:
        return Problem("BackendNotFound", f"{where}: {not_exported(source)}")
    exported = {port.port for fact in index.exports(service).values() for port in fact.ports}
    if number not in exported:
        listed = ", ".join(str(port) for port in sorted(exported))
        return Problem(
            "BackendNotFound",
            f"{where}.port: no cluster exports port {number} of {service}; ports: {listed}",
        )
    # Who exported first is believed; exports that differ are a conflict, which their statuses tell.
    said = (fact.ports for _, fact in sorted(index.exports(service).items()))
    named = (port.app_protocol for ports in said for port in ports if port.port == number)
    app_protocol = next(filter(None, named), None)
    protocol = protocol_of(app_protocol, route_kind)
    if protocol is None:
        return _unsupported(where, service, number, app_protocol, route_kind)
    return Backend(service=service, port=number, imported=True, protocol=protocol)


def not_exported(source: AnyImport) -> str:
    """The sentence for an import behind which no cluster stands."""
    names = " or ".join(str(entry) for entry in candidates(source))
    return (
        f"{source.key}: no cluster exports {names}; apply a ServiceExport where the Service is, or "
        "a MultiClusterService that lists that cluster"
    )
