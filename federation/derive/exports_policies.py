"""What a cluster's objects ask of imports: weights and failover order, as facts for the resolver.

Decides: which MultiClusterService speaks for a service here (the oldest), which RegionFailover
holds for it (that of the oldest policy on a route to it), one fact for each service.
Leaves to others: agreement between clusters (``derive.resolve``: the oldest rules), conditions.
Invariants: a route takes one BackendTrafficPolicy, the oldest that is valid, whatever that one
says; a younger MultiClusterService of the same service changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from federation.derive.exports_meaning import Meanings
from federation.model.base import ClusterId, ServiceName
from federation.model.facts import ClusterWeight, FailoverRule, ServicePolicyFact
from federation.model.objects import (
    AnyBackendRef,
    AnyRoute,
    BackendTrafficPolicy,
    FederatedServiceImport,
    GRPCRoute,
    HTTPRoute,
    McsServiceImport,
    MultiClusterService,
    ObjectKey,
    ObjectSnapshot,
)

_IMPORT_GROUPS = (FederatedServiceImport.GROUP, McsServiceImport.GROUP)


@dataclass(frozen=True, slots=True)
class _Failover:
    rules: tuple[FailoverRule, ...]
    origin: str
    import_name: str


def derive_policies(
    *, cluster: ClusterId, objects: ObjectSnapshot, meanings: Meanings
) -> dict[tuple[ServiceName, str], ServicePolicyFact]:
    """The policies that the objects of ``cluster`` state."""
    weights = _weights(objects, meanings)
    failover = _failovers(objects, meanings)
    facts = {}
    for service in sorted({*weights, *failover}, key=str):
        ruling, order = weights.get(service), failover.get(service)
        import_name = (
            ruling.spec.service_import.name if ruling else (order.import_name if order else "")
        )
        facts[(service, import_name)] = ServicePolicyFact(
            cluster=cluster,
            service=service,
            import_name=import_name,
            weights=_lines(ruling) if ruling else None,
            weights_origin=str(ruling.key) if ruling else "",
            failover=order.rules if order else (),
            failover_origin=order.origin if order else "",
        )
    return facts


def _weights(objects: ObjectSnapshot, meanings: Meanings) -> dict[ServiceName, MultiClusterService]:
    ruling: dict[ServiceName, MultiClusterService] = {}
    for source in objects.of(MultiClusterService):
        meant = meanings.of_multi_cluster_service(source)
        if meant is not None:
            ruling.setdefault(meant, source)
    return ruling


def _lines(source: MultiClusterService) -> tuple[ClusterWeight, ...]:
    return tuple(
        ClusterWeight(target=backend.cluster, weight=backend.weight)
        for backend in sorted(source.spec.cluster_backends, key=lambda entry: entry.cluster)
    )


def _failovers(objects: ObjectSnapshot, meanings: Meanings) -> Mapping[ServiceName, _Failover]:
    """For each service the RegionFailover of the oldest policy that holds a route to it."""
    held: set[ObjectKey] = set()
    found: dict[ServiceName, _Failover] = {}
    for policy in objects.of(BackendTrafficPolicy):
        target = policy.spec.target_ref
        key = ObjectKey(target.group, target.kind, policy.metadata.namespace, target.name)
        if key in held or target.section_name is not None:
            continue  # a policy for a single rule is Invalid, so it holds nothing
        held.add(key)
        route = objects.objects.get(key)
        if not isinstance(route, GRPCRoute | HTTPRoute) or policy.spec.failover is None:
            continue
        rules = tuple(
            FailoverRule(source=entry.source, target=entry.target)
            for entry in policy.spec.failover.region_failover
        )
        for service, import_name in _imported(route, meanings):
            found.setdefault(service, _Failover(rules, str(policy.key), import_name))
    return found


def _imported(route: AnyRoute, meanings: Meanings) -> Iterator[tuple[ServiceName, str]]:
    """The services behind the imports of a route, with the imports' names."""
    for rule in route.spec.rules:
        for reference in rule.backend_refs:
            service = _meant(route, reference, meanings)
            if service is not None:
                yield service, reference.name


def _meant(route: AnyRoute, reference: AnyBackendRef, meanings: Meanings) -> ServiceName | None:
    if reference.kind != "ServiceImport" or reference.group not in _IMPORT_GROUPS:
        return None
    namespace = reference.namespace or route.metadata.namespace
    referent = ObjectKey(reference.group, reference.kind, namespace, reference.name)
    if not meanings.permits(route.key, referent):
        return None
    found = meanings.objects.objects.get(referent)
    if not isinstance(found, FederatedServiceImport | McsServiceImport):
        return None
    return meanings.of_import(found)
