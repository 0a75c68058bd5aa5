"""Readiness of failover: would the traffic of a lost region really arrive elsewhere?

Decides: ``FailoverReady`` of a policy, with the first rule that cannot be followed and why.
Leaves to others: the order itself (``derive.resolve``).
Invariants: every rule is judged for every import of the target route; health detection needs no
second object, it is part of every import (liveness of connections, ejection), so ``NoHealthSignal``
never occurs.
"""

from __future__ import annotations

from federation.derive.compile.index import Index
from federation.derive.compile.multicluster import cluster_problem
from federation.derive.compile.policies import target_key
from federation.derive.compile.problem import Problem
from federation.derive.imports import clusters_named
from federation.model.base import ServiceName
from federation.model.objects import (
    AnyRoute,
    BackendTrafficPolicy,
    FederatedServiceImport,
    GRPCRoute,
    HTTPRoute,
    McsServiceImport,
    ObjectKey,
    RegionFailover,
)


def failover_problem(index: Index, policy: BackendTrafficPolicy) -> Problem | None:
    """What keeps the failover of ``policy`` from working; ``None`` if it would."""
    failover = policy.spec.failover
    target = target_key(policy)
    route = index.objects.objects.get(target)
    if failover is None or not isinstance(route, GRPCRoute | HTTPRoute):
        return None
    services = imported_services(index, route)
    if not services:
        return Problem(
            "NoAlternative", f"{target} has no ServiceImport that is exported; a Service stays here"
        )
    for position, rule in enumerate(failover.region_failover):
        where = f"spec.failover.regionFailover[{position}]"
        problem = (
            _unknown(index, rule, where)
            or _same(index, rule, where)
            or _no_alternative(index, rule, services, where)
        )
        if problem is not None:
            return problem
    return None


def imported_services(index: Index, route: AnyRoute) -> tuple[ServiceName, ...]:
    """The clusterset services that the route's backends mean, sorted, as far as they resolve."""
    found: set[tuple[str, str]] = set()
    for rule in route.spec.rules:
        for ref in rule.backend_refs:
            namespace = ref.namespace or route.metadata.namespace
            source = index.objects.objects.get(ObjectKey(ref.group, ref.kind, namespace, ref.name))
            if isinstance(source, FederatedServiceImport | McsServiceImport):
                service = index.meaning(source)
                if service is not None:
                    found.add((service.namespace, service.name))
    return tuple(ServiceName(namespace=namespace, name=name) for namespace, name in sorted(found))


def _unknown(index: Index, rule: RegionFailover, where: str) -> Problem | None:
    for field, name, reason in (
        ("from", rule.source, "NoLocality"),
        ("to", rule.target, "NoAlternative"),
    ):
        if not clusters_named(name, index.regions):
            regions = ", ".join(sorted(set(index.regions.values())))
            message = (
                f"{where}.{field}: no cluster has the region or name {name}; regions: {regions}"
            )
            return Problem(reason, message)
    return None


def _same(index: Index, rule: RegionFailover, where: str) -> Problem | None:
    clusters = clusters_named(rule.target, index.regions)
    if clusters != clusters_named(rule.source, index.regions):
        return None
    message = (
        f"{where}: from {rule.source} and to {rule.target} both mean {', '.join(clusters)}, which "
        "cannot fail over to itself; name another region or cluster"
    )
    return Problem("NoAlternative", message)


def _no_alternative(
    index: Index, rule: RegionFailover, services: tuple[ServiceName, ...], where: str
) -> Problem | None:
    clusters = clusters_named(rule.target, index.regions)
    for service in services:
        problems = [cluster_problem(index, cluster, service) for cluster in clusters]
        if all(problem is not None for problem in problems):
            reasons = "; ".join(problem.message for problem in problems if problem is not None)
            return Problem("NoAlternative", f"{where}.to: {reasons}")
    return None
