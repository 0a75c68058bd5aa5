"""Statuses of objects other than routes, as far as compiling decides them.

Decides: which objects of Gateways, policies and the clusterset get a status, with which conditions.
Leaves to others: routes (``routes``), the conditions of single kinds (``gateways``, ``imports``,
``exports``, ``multicluster``), what gateways say (``derive.programmed``).
Invariants: pure; what is wrong with an object stands in that object's status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from federation.derive.compile.drains import drain_status
from federation.derive.compile.exports import export_status
from federation.derive.compile.failover import failover_problem
from federation.derive.compile.gateways import (
    PENDING,
    PENDING_MESSAGE,
    class_status,
    gateway_status,
)
from federation.derive.compile.imports import import_status
from federation.derive.compile.index import Index
from federation.derive.compile.keepalive import GatewayKeepalive
from federation.derive.compile.listener_sets import attached_sets, set_statuses
from federation.derive.compile.listeners import Listeners
from federation.derive.compile.multicluster import multicluster_status
from federation.derive.compile.observability import Assigned
from federation.derive.compile.observability_status import with_observed
from federation.derive.compile.passthrough import policy_note
from federation.derive.compile.policies import target_key
from federation.derive.compile.problem import Problem, condition, verdict
from federation.derive.compile.routes import CompiledRoute
from federation.derive.compile.traffic import fault_note
from federation.model.conditions import Condition
from federation.model.objects import (
    BackendTrafficPolicy,
    DrainRequest,
    FederatedServiceImport,
    Gateway,
    GatewayClass,
    McsServiceExport,
    McsServiceImport,
    MultiClusterService,
    ObjectKey,
    ParentReference,
)
from federation.model.status import AncestorStatus, ObjectStatus

Statuses = Mapping[ObjectKey, ObjectStatus]


def gateway_statuses(
    look_up: Index,
    gateways: Sequence[Gateway],
    listeners: Listeners,
    keepalives: Mapping[ObjectKey, GatewayKeepalive],
    routes: Iterable[CompiledRoute],
    observed: Assigned,
) -> Statuses:
    """Those of Gateways, their classes and ListenerSets."""
    statuses: dict[ObjectKey, ObjectStatus] = {}
    for source in look_up.objects.of(GatewayClass):
        status = class_status(look_up, source)
        if status is not None:
            statuses[source.key] = status
    attached, sets = _attached_routes(routes), attached_sets(listeners)
    for gateway in gateways:
        counts = {name: count for (key, name), count in attached.items() if key == gateway.key}
        found = gateway_status(
            look_up, gateway, listeners[gateway.key], counts, keepalives[gateway.key].problem
        )
        if gateway.spec.allowed_listeners is not None:
            # An API server with an older Gateway API does not know the field.
            found = found.model_copy(update={"attached_listener_sets": sets[gateway.key]})
        statuses[gateway.key] = with_observed(gateway, found, observed)
    return {**statuses, **set_statuses(look_up, gateways, listeners, attached)}


def _attached_routes(routes: Iterable[CompiledRoute]) -> Counter[tuple[ObjectKey, str]]:
    """Accepted routes by listener; a route that names a listener twice counts once."""
    attached: Counter[tuple[ObjectKey, str]] = Counter()
    for route in routes:
        if route.rejection is None:
            attached.update(
                {
                    (entry.listener.owner.key, entry.listener.spec.name)
                    for outcome in route.outcomes
                    for entry in outcome.attached
                }
            )
    return attached


def routes_passed(routes: Iterable[CompiledRoute]) -> frozenset[ObjectKey]:
    """Routes to which TLS is passed through somewhere."""
    return frozenset(
        route.source.key
        for route in routes
        for outcome in route.outcomes
        if any(entry.listener.passthrough for entry in outcome.attached)
    )


def policy_status(
    look_up: Index, policy: BackendTrafficPolicy, problem: Problem | None, *, passed: bool
) -> ObjectStatus:
    """The status of a policy with ``problem``; its ancestor is the object that it targets.

    ``passed``: TLS is passed through to that route somewhere.
    """
    note = policy_note(policy) if passed else ""
    told = "; ".join(text for text in (fault_note(policy), note) if text)
    conditions = [verdict(policy, "Accepted", problem, message=told)]
    if problem is None:
        conditions.append(condition(policy, "Programmed", False, PENDING, PENDING_MESSAGE))
        conditions += _failover_ready(look_up, policy)
    target = target_key(policy)
    ancestor = AncestorStatus(
        ancestor_ref=ParentReference(
            group=target.group, kind=target.kind, namespace=target.namespace, name=target.name
        ),
        controller_name=look_up.settings.controller_name,
        conditions=tuple(conditions),
    )
    return ObjectStatus(observed_generation=policy.metadata.generation, ancestors=(ancestor,))


def _failover_ready(look_up: Index, policy: BackendTrafficPolicy) -> tuple[Condition, ...]:
    if policy.spec.failover is None:
        return ()
    return (
        verdict(
            policy,
            "FailoverReady",
            failover_problem(look_up, policy),
            message="every target can take the traffic of its source",
        ),
    )


MulticlusterObject = (
    McsServiceExport
    | McsServiceImport
    | FederatedServiceImport
    | MultiClusterService
    | DrainRequest
)


def clusterset_status(look_up: Index, source: MulticlusterObject) -> ObjectStatus:
    """The status of an object of the clusterset."""
    match source:
        case McsServiceExport():
            return export_status(look_up, source)
        case MultiClusterService():
            return multicluster_status(look_up, source)
        case McsServiceImport() | FederatedServiceImport():
            return import_status(look_up, source)
        case DrainRequest():
            return drain_status(look_up, source)
        case _:
            assert_never(source)
