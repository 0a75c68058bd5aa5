"""The compile step: objects and federation state in, snapshot and statuses out.

Decides: the order of the steps and what a complete result is.
Leaves to others: every single rule (the siblings of this file), Envoy's spelling (``wire.xds``),
whether gateways took it (``derive.programmed``).
Invariants: pure and total: the same inputs give the same result in the same order, and no object
can make it fail; what is wrong with an object stands in that object's status and changes nothing
for the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from federation.derive.compile.coexistence import one_kind_each
from federation.derive.compile.drains import drain_status
from federation.derive.compile.eastwest import build_east_west, exported_upstreams
from federation.derive.compile.exports import export_status
from federation.derive.compile.failover import failover_problem
from federation.derive.compile.gateways import (
    PENDING,
    PENDING_MESSAGE,
    class_status,
    gateway_status,
    served_gateways,
)
from federation.derive.compile.imports import import_status
from federation.derive.compile.index import Index, index
from federation.derive.compile.inputs import Compiled, CompileInputs
from federation.derive.compile.keepalive import (
    GatewayKeepalive,
    keepalive_of,
    keepalive_statuses,
)
from federation.derive.compile.listeners import (
    ListenersByGateway,
    judge_listeners,
    wanted_ports,
)
from federation.derive.compile.multicluster import multicluster_status
from federation.derive.compile.passthrough import policy_note
from federation.derive.compile.policies import (
    Policies,
    assign_policies,
    target_key,
)
from federation.derive.compile.problem import condition, verdict
from federation.derive.compile.routes import CompiledRoute, compile_route, route_status
from federation.derive.compile.tables import build_listeners
from federation.derive.compile.traffic import fault_note
from federation.derive.compile.upstreams import build_upstreams, invalid, unavailable
from federation.model.conditions import Condition
from federation.model.objects import (
    AnyRoute,
    BackendTrafficPolicy,
    DrainRequest,
    FederatedServiceImport,
    Gateway,
    GatewayClass,
    GRPCRoute,
    HTTPRoute,
    McsServiceExport,
    McsServiceImport,
    MultiClusterService,
    ObjectKey,
    ParentReference,
)
from federation.model.snapshot import CaSecret, Snapshot, TlsSecret
from federation.model.status import AncestorStatus, ObjectStatus


def compile_cluster(inputs: CompileInputs) -> Compiled:
    """Compile ``inputs``."""
    look_up = index(inputs)
    gateways = served_gateways(look_up)
    keepalives = {gateway.key: keepalive_of(look_up, gateway) for gateway in gateways}
    listeners = judge_listeners(look_up, gateways, keepalives)
    policies = assign_policies(look_up)
    sources: list[AnyRoute] = [
        *look_up.objects.of(GRPCRoute),
        *look_up.objects.of(HTTPRoute),
    ]
    routes = one_kind_each(
        compile_route(look_up, listeners, source, policies.by_route.get(source.key))
        for source in sources
    )
    statuses = {
        **_gateway_statuses(look_up, gateways, listeners, keepalives, routes),
        **keepalive_statuses(look_up, keepalives),
        **{route.source.key: route_status(look_up, route) for route in routes},
        **_policy_statuses(look_up, policies, routes),
        **_multicluster_statuses(look_up),
    }
    return Compiled(
        snapshot=_snapshot(look_up, listeners, routes),
        statuses={key: statuses[key] for key in sorted(statuses)},
        ports={key: wanted_ports(states) for key, states in listeners.items()},
    )


def _snapshot(
    look_up: Index, listeners: ListenersByGateway, routes: Iterable[CompiledRoute]
) -> Snapshot:
    routes = [route for route in routes if route.answers]
    ingress, tables = build_listeners(listeners, routes)
    local = exported_upstreams(look_up)
    east_west = build_east_west(look_up, local)
    used = [ref for route in routes for rule in route.rules for ref in rule.upstreams]
    upstreams, endpoints = build_upstreams(look_up, [*used, *(local if east_west else ())])
    refusing = [unavailable()]
    if any(isinstance(route.source, HTTPRoute) for route in routes):
        refusing.append(invalid())
    return Snapshot(
        cluster=look_up.cluster,
        listeners=_sorted([*ingress, *([east_west[0]] if east_west else [])]),
        route_tables=_sorted([*tables, *([east_west[1]] if east_west else [])]),
        upstreams=_sorted([*upstreams, *(upstream for upstream, _ in refusing)]),
        endpoint_sets=tuple(
            sorted(
                [*endpoints, *(nothing for _, nothing in refusing)],
                key=lambda entry: entry.upstream,
            )
        ),
        secrets=_secrets(listeners),
    )


class _Named(Protocol):
    @property
    def name(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)


def _sorted(entries: Iterable[NamedT]) -> tuple[NamedT, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _secrets(listeners: ListenersByGateway) -> tuple[TlsSecret | CaSecret, ...]:
    found: dict[str, TlsSecret | CaSecret] = {
        secret.name: secret
        for states in listeners.values()
        for state in states
        if state.usable
        for secret in (
            *state.certificates,
            *([state.client.authorities] if state.client is not None else ()),
        )
    }
    return _sorted(found.values())


Statuses = dict[ObjectKey, ObjectStatus]


def _gateway_statuses(
    look_up: Index,
    gateways: Iterable[Gateway],
    listeners: ListenersByGateway,
    keepalives: Mapping[ObjectKey, GatewayKeepalive],
    routes: Iterable[CompiledRoute],
) -> Statuses:
    statuses: Statuses = {}
    for source in look_up.objects.of(GatewayClass):
        status = class_status(look_up, source)
        if status is not None:
            statuses[source.key] = status
    attached = _attached_routes(routes)
    for gateway in gateways:
        counts = {name: count for (key, name), count in attached.items() if key == gateway.key}
        statuses[gateway.key] = gateway_status(
            look_up, gateway, listeners[gateway.key], counts, keepalives[gateway.key].problem
        )
    return statuses


def _attached_routes(routes: Iterable[CompiledRoute]) -> Counter[tuple[ObjectKey, str]]:
    """Accepted routes by listener; a route that names a listener twice counts once."""
    attached: Counter[tuple[ObjectKey, str]] = Counter()
    for route in routes:
        if route.rejection is None:
            attached.update(
                {
                    (entry.listener.gateway.key, entry.listener.spec.name)
                    for outcome in route.outcomes
                    for entry in outcome.attached
                }
            )
    return attached


def _policy_statuses(
    look_up: Index, policies: Policies, routes: Iterable[CompiledRoute]
) -> Statuses:
    passing = {
        route.source.key
        for route in routes
        for outcome in route.outcomes
        if any(entry.listener.passthrough for entry in outcome.attached)
    }
    return {
        policy.key: _policy_status(
            look_up,
            policies,
            policy,
            note=policy_note(policy) if target_key(policy) in passing else "",
        )
        for policy in look_up.objects.of(BackendTrafficPolicy)
    }


def _policy_status(
    look_up: Index, policies: Policies, policy: BackendTrafficPolicy, *, note: str
) -> ObjectStatus:
    """The status of a policy; its ancestor is the object that it targets."""
    problem = policies.problems.get(policy.key)
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


def _multicluster_statuses(look_up: Index) -> Statuses:
    objects = look_up.objects
    return {
        **{entry.key: export_status(look_up, entry) for entry in objects.of(McsServiceExport)},
        **{entry.key: import_status(look_up, entry) for entry in objects.of(McsServiceImport)},
        **{
            entry.key: import_status(look_up, entry) for entry in objects.of(FederatedServiceImport)
        },
        **{
            entry.key: multicluster_status(look_up, entry)
            for entry in objects.of(MultiClusterService)
        },
        **{entry.key: drain_status(look_up, entry) for entry in objects.of(DrainRequest)},
    }
