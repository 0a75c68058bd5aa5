"""Columns of ``fedctl get``, in kubectl's style, for every kind.

Decides: which columns a kind has and what stands in them.
Leaves to others: laying out tables (``output``), fetching objects and statuses (``objects_get``).
Invariants: pure; a condition that was never set reads ``Unknown``, a list that is empty ``<none>``;
a policy's columns are TARGETKIND, TARGETNAME and AGE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar, cast

from federation.model.conditions import Condition
from federation.model.objects import (
    ApiObject,
    BackendTrafficPolicy,
    ConfigMap,
    DrainRequest,
    EndpointSlice,
    FederatedServiceImport,
    Gateway,
    GatewayClass,
    GRPCRoute,
    HTTPRoute,
    ListenerSet,
    McsServiceExport,
    McsServiceImport,
    MultiClusterService,
    Namespace,
    ObservabilityPolicy,
    ParentReference,
    Secret,
    Service,
)
from federation.model.status import ObjectStatus

NONE = "<none>"
UNKNOWN = "Unknown"

ObjectT = TypeVar("ObjectT", bound=ApiObject)
RouteT = TypeVar("RouteT", GRPCRoute, HTTPRoute)
PolicyT = TypeVar("PolicyT", BackendTrafficPolicy, ObservabilityPolicy)


@dataclass(frozen=True, slots=True)
class Row(Generic[ObjectT]):
    """One object with its status, as a cluster has them."""

    object: ObjectT
    status: ObjectStatus


@dataclass(frozen=True, slots=True)
class Column(Generic[ObjectT]):
    """One column; a ``wide`` one shows only with ``-o wide``."""

    title: str
    cell: Callable[[Row[ObjectT]], str]
    wide: bool = False


def columns_of(cls: type[ApiObject], *, wide: bool) -> list[Column[ApiObject]]:
    """The columns between NAME and AGE."""
    return [column for column in _COLUMNS.get(cls, ()) if wide or not column.wide]


def age(timestamp: str | None, now: datetime) -> str:
    """The time since ``timestamp`` (RFC 3339) in kubectl's short form."""
    if timestamp is None:
        return "<unknown>"
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return "<invalid>"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return _short(max(0, int((now - then).total_seconds())))


def _short(seconds: int) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(f"{minutes}m", seconds % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(f"{hours}h", minutes % 60, "m")
    if days < 2:
        return f"{hours}h"
    if days < 8:
        return _two(f"{days}d", hours % 24, "h")
    return f"{days}d" if days < 730 else f"{days // 365}y"


def _two(first: str, rest: int, unit: str) -> str:
    return f"{first}{rest}{unit}" if rest else first


def summary(conditions: Iterable[Condition | None]) -> str:
    """One word for a condition that several parents have: the worst."""
    states = [condition.status if condition else UNKNOWN for condition in conditions]
    return next((state for state in ("False", UNKNOWN, "True") if state in states), UNKNOWN)


def parent_text(parent: ParentReference, namespace: str) -> str:
    """A parent as ``namespace/name/section``."""
    text = f"{parent.namespace or namespace}/{parent.name}"
    return f"{text}/{parent.section_name}" if parent.section_name else text


def _named(conditions: Iterable[Condition], name: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == name), None)


def _condition(name: str) -> Callable[[Row[ObjectT]], str]:
    return lambda row: summary([row.status.condition(name)])


def _parents(name: str) -> Callable[[Row[RouteT]], str]:
    return lambda row: summary(_named(entry.conditions, name) for entry in row.status.parents)


def _ancestors(name: str) -> Callable[[Row[PolicyT]], str]:
    return lambda row: summary(_named(entry.conditions, name) for entry in row.status.ancestors)


def _ancestor_reason(row: Row[PolicyT]) -> str:
    found = (_named(entry.conditions, "Accepted") for entry in row.status.ancestors)
    return _joined(dict.fromkeys(condition.reason for condition in found if condition))


def _streams_left(row: Row[DrainRequest]) -> str:
    progress = row.status.drain
    return NONE if progress is None or progress.streams_left is None else str(progress.streams_left)


def _joined(parts: Iterable[str]) -> str:
    return ",".join(parts) or NONE


def _count(values: Mapping[str, object]) -> str:
    return str(len(values))


def _weights(row: Row[MultiClusterService]) -> str:
    return _joined(f"{entry.cluster}={entry.weight}" for entry in row.object.spec.cluster_backends)


def _service_ports(row: Row[Service]) -> str:
    return _joined(f"{entry.port}/{entry.protocol}" for entry in row.object.spec.ports)


def _slice_ports(row: Row[EndpointSlice]) -> str:
    return _joined(str(entry.port or "*") for entry in row.object.ports)


def _slice_addresses(row: Row[EndpointSlice]) -> str:
    found = [address for entry in row.object.endpoints for address in entry.addresses]
    shown = _joined(found[:3])
    return shown if len(found) <= 3 else f"{shown} + {len(found) - 3} more..."


def _gateway_addresses(row: Row[Gateway]) -> str:
    return ",".join(entry.value for entry in row.status.addresses)


def _listeners(row: Row[Gateway] | Row[ListenerSet]) -> str:
    return _joined(f"{entry.name}:{entry.port}" for entry in row.object.spec.listeners)


def _route_parents(row: Row[GRPCRoute] | Row[HTTPRoute]) -> str:
    namespace = row.object.metadata.namespace
    return _joined(parent_text(entry, namespace) for entry in row.object.spec.parent_refs)


def _import_ports(row: Row[FederatedServiceImport] | Row[McsServiceImport]) -> str:
    return _joined(str(entry.port) for entry in row.object.spec.ports)


def _import_clusters(row: Row[FederatedServiceImport] | Row[McsServiceImport]) -> str:
    return _joined(row.status.clusters)


_GATEWAY_CLASS: tuple[Column[GatewayClass], ...] = (
    Column("CONTROLLER", lambda row: row.object.spec.controller_name),
    Column("ACCEPTED", _condition("Accepted")),
)
_GATEWAY: tuple[Column[Gateway], ...] = (
    Column("CLASS", lambda row: row.object.spec.gateway_class_name),
    Column("ADDRESS", _gateway_addresses),
    Column("PROGRAMMED", _condition("Programmed")),
    Column("ACCEPTED", _condition("Accepted"), wide=True),
    Column("LISTENERS", _listeners, wide=True),
)
_LISTENER_SET: tuple[Column[ListenerSet], ...] = (
    Column("ACCEPTED", _condition("Accepted")),
    Column("PROGRAMMED", _condition("Programmed")),
    Column("GATEWAY", lambda row: row.object.gateway.qualified_name, wide=True),
    Column("LISTENERS", _listeners, wide=True),
)
_GRPC_ROUTE: tuple[Column[GRPCRoute], ...] = (
    Column("HOSTNAMES", lambda row: _joined(row.object.spec.hostnames)),
    Column("ACCEPTED", _parents("Accepted")),
    Column("RESOLVED", _parents("ResolvedRefs"), wide=True),
    Column("PARENTS", _route_parents, wide=True),
)
_HTTP_ROUTE: tuple[Column[HTTPRoute], ...] = (
    Column("HOSTNAMES", lambda row: _joined(row.object.spec.hostnames)),
    Column("ACCEPTED", _parents("Accepted")),
    Column("RESOLVED", _parents("ResolvedRefs"), wide=True),
    Column("PARENTS", _route_parents, wide=True),
)
_POLICY: tuple[Column[BackendTrafficPolicy], ...] = (
    Column("TARGETKIND", lambda row: row.object.spec.target_ref.kind),
    Column("TARGETNAME", lambda row: row.object.spec.target_ref.name),
    Column("ACCEPTED", _ancestors("Accepted"), wide=True),
    Column("REASON", _ancestor_reason, wide=True),
)
_OBSERVABILITY: tuple[Column[ObservabilityPolicy], ...] = (
    Column("TARGETKIND", lambda row: row.object.spec.target_ref.kind),
    Column("TARGETNAME", lambda row: row.object.spec.target_ref.name),
    Column("SECTION", lambda row: row.object.spec.target_ref.section_name or NONE, wide=True),
    Column("ACCEPTED", _ancestors("Accepted"), wide=True),
    Column("RESOLVED", _ancestors("ResolvedRefs"), wide=True),
    Column("REASON", _ancestor_reason, wide=True),
)
_MULTI_CLUSTER_SERVICE: tuple[Column[MultiClusterService], ...] = (
    Column("IMPORT", lambda row: row.object.spec.service_import.name),
    Column("CLUSTERS", _weights),
    Column("READY", _condition("BackendsReady"), wide=True),
)
_FEDERATED_IMPORT: tuple[Column[FederatedServiceImport], ...] = (
    Column("TYPE", lambda row: str(row.object.spec.type)),
    Column("CLUSTERS", _import_clusters),
    Column("PORTS", _import_ports, wide=True),
)
_MCS_IMPORT: tuple[Column[McsServiceImport], ...] = (
    Column("TYPE", lambda row: str(row.object.spec.type)),
    Column("CLUSTERS", _import_clusters),
    Column("PORTS", _import_ports, wide=True),
    Column("IP", lambda row: _joined(row.object.spec.ips), wide=True),
)
_EXPORT: tuple[Column[McsServiceExport], ...] = (
    Column("VALID", _condition("Valid")),
    Column("READY", _condition("Ready")),
    Column("CONFLICT", _condition("Conflict")),
)
_DRAIN: tuple[Column[DrainRequest], ...] = (
    Column("TARGET", lambda row: row.object.spec.target),
    Column("PHASE", lambda row: row.status.drain.phase if row.status.drain else ""),
    Column("MOVED", lambda row: str(row.status.drain.percent_moved) if row.status.drain else ""),
    Column("STREAMS", _streams_left),
    Column("ACCEPTED", _condition("Accepted")),
)
_SERVICE: tuple[Column[Service], ...] = (
    Column("TYPE", lambda row: str(row.object.spec.type)),
    Column("CLUSTER-IP", lambda row: row.object.spec.cluster_ip or NONE),
    Column("PORT(S)", _service_ports),
)
_SLICE: tuple[Column[EndpointSlice], ...] = (
    Column("ADDRESSTYPE", lambda row: row.object.address_type),
    Column("PORTS", _slice_ports),
    Column("ENDPOINTS", _slice_addresses),
    Column("SERVICE", lambda row: row.object.service_name or NONE, wide=True),
)
_SECRET: tuple[Column[Secret], ...] = (
    Column("TYPE", lambda row: row.object.type),
    Column("DATA", lambda row: _count(row.object.data)),
)
_NAMESPACE: tuple[Column[Namespace], ...] = (Column("STATUS", lambda _: "Active"),)
_CONFIG_MAP: tuple[Column[ConfigMap], ...] = (
    Column("DATA", lambda row: _count({**row.object.data, **(row.object.binary_data or {})})),
)


def _kind(
    cls: type[ObjectT], columns: tuple[Column[ObjectT], ...]
) -> tuple[type[ApiObject], tuple[Column[ApiObject], ...]]:
    # Columns are only ever given rows of the class that they are filed under.
    return cls, cast("tuple[Column[ApiObject], ...]", columns)


_COLUMNS: Mapping[type[ApiObject], tuple[Column[ApiObject], ...]] = dict(
    [
        _kind(GatewayClass, _GATEWAY_CLASS),
        _kind(Gateway, _GATEWAY),
        _kind(ListenerSet, _LISTENER_SET),
        _kind(GRPCRoute, _GRPC_ROUTE),
        _kind(HTTPRoute, _HTTP_ROUTE),
        _kind(BackendTrafficPolicy, _POLICY),
        _kind(ObservabilityPolicy, _OBSERVABILITY),
        _kind(MultiClusterService, _MULTI_CLUSTER_SERVICE),
        _kind(FederatedServiceImport, _FEDERATED_IMPORT),
        _kind(McsServiceImport, _MCS_IMPORT),
        _kind(McsServiceExport, _EXPORT),
        _kind(DrainRequest, _DRAIN),
        _kind(Service, _SERVICE),
        _kind(EndpointSlice, _SLICE),
        _kind(Secret, _SECRET),
        _kind(Namespace, _NAMESPACE),
        _kind(ConfigMap, _CONFIG_MAP),
    ]
)
