"""The status of one object: what the agent concluded about it, in the specifications' own shapes.

Decides: the shape of statuses of all kinds as one value, so that sinks need not know kinds.
Leaves to others: which conditions hold (``derive``), where they are written (a ``StatusSink``).
Invariants: each kind uses its own part: ``conditions`` (Gateway, GatewayClass, ServiceExport,
ServiceImport, MultiClusterService), ``parents`` (routes), ``ancestors`` (policies), ``listeners``
``addresses`` and ``attached_listener_sets`` (Gateway; its listeners
are also a ListenerSet's), ``clusters`` (imports), ``supported_features`` (GatewayClass),
``drain`` (Drain); the order of entries is stable.
"""

from __future__ import annotations

import ipaddress

from federation.model.base import Value
from federation.model.conditions import Condition
from federation.model.objects.route import ParentReference


class RouteGroupKind(Value):
    """A kind of route that a listener takes."""

    group: str = "gateway.networking.k8s.io"
    kind: str


class ParentStatus(Value):
    """What one parent (a Gateway, or one of its listeners) thinks of a route."""

    parent_ref: ParentReference
    controller_name: str
    conditions: tuple[Condition, ...] = ()


class ListenerStatus(Value):
    """State of one listener. ``attached_routes`` counts routes it accepted."""

    name: str
    attached_routes: int = 0
    supported_kinds: tuple[RouteGroupKind, ...] = ()
    conditions: tuple[Condition, ...] = ()


class AncestorStatus(Value):
    """What holds for a policy at one object that it reaches (GEP-713)."""

    ancestor_ref: ParentReference
    controller_name: str
    conditions: tuple[Condition, ...] = ()


class GatewayStatusAddress(Value):
    """An address where a Gateway is served."""

    type: str = "IPAddress"
    value: str


class DrainProgress(Value):
    """How far a Drain object's drain has come. Times are Unix milliseconds of the resolver's."""

    phase: str
    percent_moved: int = 0
    streams_left: int | None = None
    started_at_ms: int | None = None
    expires_at_ms: int | None = None


def address_type(address: str) -> str:
    """The ``type`` of an address in a Gateway's status."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return "Hostname"
    return "IPAddress"


class ObjectStatus(Value):
    """The status of an object of any kind; parts that its kind does not have stay empty."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    parents: tuple[ParentStatus, ...] = ()
    listeners: tuple[ListenerStatus, ...] = ()
    ancestors: tuple[AncestorStatus, ...] = ()
    addresses: tuple[GatewayStatusAddress, ...] = ()
    attached_listener_sets: int | None = None
    clusters: tuple[str, ...] = ()
    drain: DrainProgress | None = None
    supported_features: tuple[str, ...] = ()

    def condition(self, condition_type: str) -> Condition | None:
        """The condition of that type among ``conditions``."""
        return next((entry for entry in self.conditions if entry.type == condition_type), None)
