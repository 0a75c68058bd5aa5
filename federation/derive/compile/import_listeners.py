"""Listeners of imports: where the addresses of the MCS API's imports lead, one for each port.

Decides: which ports are open (those that have a port of the gateways, which the derived Service
says), what is spoken there, and that all of it goes to the import as a route to it would.
Leaves to others: the gateways' ports (``derive.mcs_ports``), Services and slices that lead here
(``derive.mcs_objects``), shares and failover (``upstreams``).
Invariants: a listener stays open while nothing can serve it: connections are ended, calls are
answered UNAVAILABLE; a port belongs to a Gateway's listener before it is an import's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from federation.derive.compile.index import Index
from federation.derive.compile.matches import EVERY_CALL
from federation.derive.compile.policies import DEFAULT_RETRY
from federation.derive.compile.problem import Problem
from federation.derive.compile.upstreams import (
    UNAVAILABLE,
    UpstreamKind,
    UpstreamRef,
    destination,
    shares_of,
    upstream_ref,
)
from federation.derive.mcs_imports import is_ours
from federation.derive.mcs_objects import derived_service, listener_ports
from federation.derive.mcs_ports import carried_as
from federation.model.base import ServiceName
from federation.model.facts import ServiceType
from federation.model.objects import McsServiceImport
from federation.model.objects.multicluster import ImportPort
from federation.model.snapshot import (
    DESTINATION_HEADER,
    FilterChain,
    Forward,
    HeaderChanges,
    Listener,
    ListenerKind,
    Protocol,
    Refuse,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
    Weighted,
)
from federation.model.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class ImportListener:
    """What a port of an import adds to a snapshot."""

    listener: Listener
    table: RouteTable | None
    upstreams: tuple[UpstreamRef, ...]


@dataclass(frozen=True, slots=True)
class OpenPort:
    """A port of an import that is open at the gateways' port ``number``."""

    service: ServiceName
    port: int
    protocol: Protocol
    number: int

    @property
    def name(self) -> str:
        """The name of the listener and of its table."""
        return f"federation/import/{self.service}/{self.port}"


def open_ports(index: Index, taken: Collection[int]) -> Mapping[str, tuple[OpenPort]]:
    """The ports of imports that are open, by name; ``taken`` are the ports of other listeners."""
    used = set(taken)
    found = {}
    for entry in _open(index):
        if entry.number not in used:
            used.add(entry.number)
            found[entry.name] = (entry,)
    return found


def takes_calls(index: Index, source: McsServiceImport) -> bool:
    """Whether a port of the import is open for calls, not for connections alone."""
    return any(entry.protocol is not Protocol.TCP for entry in _open_of(index, source))


def build_import_listener(
    index: Index, entry: OpenPort, telemetry: Telemetry | None
) -> ImportListener:
    """The listener at which ``entry`` is open, and what it leads to.

    ``telemetry`` is what is told about its calls; about connections nothing is.
    """
    targets = _targets(index, entry)
    upstreams = tuple(ref for ref, _ in targets)
    if entry.protocol is Protocol.TCP:
        return ImportListener(_plain(entry, targets), None, upstreams)
    return ImportListener(_listener(entry, telemetry), _table(index, entry, targets), upstreams)


def unserved_ports(index: Index, source: McsServiceImport) -> Problem | None:
    """What of an import of ours is not carried; ``None``: all of it is."""
    if not _has_address(index, source):
        return None
    service = derived_service(index.objects, source)
    numbers = listener_ports(service, index.settings.import_ports) if service is not None else {}
    foreign = [port for port in source.spec.ports if _protocol(port) is None]
    if foreign:
        return Problem(
            "UnsupportedProtocol",
            f"{_ports(foreign)}: gateways carry TCP, and nothing answers there; clients of other "
            "protocols can use a headless Service where Pod networks are joined",
        )
    closed = [port for port in source.spec.ports if port.port not in numbers]
    if service is not None and closed:
        ports = index.settings.import_ports
        return Problem(
            "NoPortLeft",
            f"{_ports(closed)}: the gateways have no port left for it between {ports.first} and "
            f"{ports.last}; un-export what is not used, or give the agent more (--import-ports)",
        )
    return None


def _has_address(index: Index, source: McsServiceImport) -> bool:
    return (
        index.settings.gateway_service is not None
        and is_ours(source)
        and source.spec.type is ServiceType.CLUSTER_SET_IP
    )


def _ports(ports: list[ImportPort]) -> str:
    return ", ".join(f"port {port.name or '-'} {port.port}/{port.protocol}" for port in ports)


def _protocol(port: ImportPort) -> Protocol | None:
    return carried_as(name=port.name, protocol=port.protocol, app_protocol=port.app_protocol)


def _open(index: Index) -> Iterator[OpenPort]:
    """The open ports, by the import's name."""
    for source in sorted(index.objects.of(McsServiceImport), key=lambda entry: entry.key):
        yield from _open_of(index, source)


def _open_of(index: Index, source: McsServiceImport) -> Iterator[OpenPort]:
    if not _has_address(index, source):
        return
    service = derived_service(index.objects, source)
    if service is None:
        return
    numbers = listener_ports(service, index.settings.import_ports)
    name = ServiceName(namespace=source.metadata.namespace, name=source.metadata.name)
    for port in source.spec.ports:
        protocol = _protocol(port)
        if protocol is not None and port.port in numbers:
            yield OpenPort(name, port.port, protocol, numbers[port.port])


_Targets = list[tuple[UpstreamRef, int]]


def _targets(index: Index, entry: OpenPort) -> _Targets:
    return [
        (
            upstream_ref(
                UpstreamKind.IMPORT,
                entry.service,
                entry.port,
                target=share.cluster,
                protocol=entry.protocol,
            ),
            share.weight_bp,
        )
        for share in shares_of(index, entry.service, entry.port)
    ]


def _plain(entry: OpenPort, targets: _Targets) -> Listener:
    passed = tuple(Weighted(ref.name, weight) for ref, weight in targets if weight)
    chain = FilterChain(name=entry.name, passthrough=passed or (Weighted(UNAVAILABLE, 1),))
    return Listener(
        name=entry.name,
        kind=ListenerKind.INGRESS,
        port=entry.number,
        chains=(chain,),
        route_table="",
        plain=True,
    )


def _listener(entry: OpenPort, telemetry: Telemetry | None) -> Listener:
    return Listener(
        name=entry.name,
        kind=ListenerKind.INGRESS,
        port=entry.number,
        chains=(FilterChain(name="import"),),
        route_table=entry.name,
        telemetry=telemetry,
    )


def _table(index: Index, entry: OpenPort, targets: _Targets) -> RouteTable:
    asked = destination(entry.service, entry.port)
    named = HeaderChanges(set=((DESTINATION_HEADER, asked),))
    action: Forward | Refuse
    if any(weight for _, weight in targets):
        action = Forward(tuple(Weighted(ref.name, weight, named) for ref, weight in targets))
    else:
        action = Refuse(f"import {asked}: no cluster takes calls from {index.region} now")
    route = Route(
        name=entry.name,
        rule=f"import {asked}",
        match=RouteMatch(path=EVERY_CALL, grpc=False),
        action=action,
        retry=DEFAULT_RETRY if isinstance(action, Forward) else None,
    )
    return RouteTable(entry.name, (VirtualHost(hostname="*", routes=(route,)),))
