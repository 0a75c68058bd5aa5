"""Statuses of MultiClusterServices: Accepted, ResolvedRefs, BackendsReady.

Decides: which MultiClusterService rules an import, and whether the clusters it lists can serve.
Leaves to others: weights in force (``derive.resolve``).
Invariants: of two in one cluster the older rules; of two clusters' the one whose policy entered the
store first; a listed cluster that cannot serve is named with its reason and never silently skipped.
"""

from __future__ import annotations

from federation.derive.compile.backends import not_exported
from federation.derive.compile.imports import stale
from federation.derive.compile.index import (
    AnyImport,
    Index,
    find_import,
    import_key,
    import_name,
    weights_subject,
)
from federation.derive.compile.problem import Problem, verdict
from federation.derive.imports import candidates, clusters_named
from federation.model.base import ClusterId, ServiceName
from federation.model.facts import ServicePolicyFact
from federation.model.objects import (
    ClusterBackend,
    MultiClusterService,
)
from federation.model.resolved import ReasonCode
from federation.model.status import ObjectStatus


def multicluster_status(index: Index, source: MultiClusterService) -> ObjectStatus:
    """The status of a MultiClusterService of this cluster."""
    found = find_import(index.objects, import_name(source))
    unresolved = _unresolved(index, source, found)
    service = index.meaning(found) if found is not None and unresolved is None else None
    return ObjectStatus(
        observed_generation=source.metadata.generation,
        conditions=(
            verdict(source, "Accepted", _conflict(index, source, found, service)),
            verdict(
                source,
                "ResolvedRefs",
                unresolved,
                message=f"ServiceImport {import_name(source)} means Service {service}",
            ),
            verdict(source, "BackendsReady", _not_ready(index, source, found)),
            *stale(index, source, index.exports(service) if service is not None else ()),
        ),
    )


def _unresolved(
    index: Index, source: MultiClusterService, found: AnyImport | None
) -> Problem | None:
    referent = import_key(index.objects, source)
    if not index.permitted(source.key, referent):  # said first: it must not tell what exists there
        return Problem(
            "RefNotPermitted",
            f"spec.serviceImport: no ReferenceGrant in namespace {referent.namespace} lets "
            f"{source.key} refer to ServiceImport {import_name(source)}",
        )
    if found is None:
        return Problem(
            "BackendNotFound",
            f"spec.serviceImport: ServiceImport {import_name(source)} does not exist",
        )
    if index.meaning(found) is None:
        return Problem("BackendNotFound", f"spec.serviceImport: {not_exported(found)}")
    return None


def _conflict(
    index: Index,
    source: MultiClusterService,
    found: AnyImport | None,
    service: ServiceName | None,
) -> Problem | None:
    subject = weights_subject(index.objects, index.view, source)
    oldest = index.weight_owners.get(subject)
    if oldest is None or not index.permitted(source.key, import_key(index.objects, source)):
        return None
    if oldest is not source:
        message = f"{oldest.key} is older and sets the weights of {subject}"
        return Problem("Conflicted", message)
    if found is None or service is None:
        return None
    ruling = _ruling(index, service)
    if ruling is None or ruling.cluster == index.cluster or _agrees(source, ruling):
        return None
    return Problem(
        "Conflicted",
        f"{ruling.weights_origin or 'the weights'} in {ruling.cluster} is older and sets other "
        f"weights for {service}; make them equal",
    )


def _ruling(index: Index, service: ServiceName) -> ServicePolicyFact | None:
    facts = [fact for fact in index.view.policies.get(service, {}).values() if fact.weights]
    return min(facts, key=lambda fact: (fact.create_revision, fact.cluster), default=None)


def _agrees(source: MultiClusterService, ruling: ServicePolicyFact) -> bool:
    mine = {entry.cluster: entry.weight for entry in source.spec.cluster_backends}
    return mine == {entry.target: entry.weight for entry in ruling.weights or ()}


def _not_ready(
    index: Index, source: MultiClusterService, found: AnyImport | None
) -> Problem | None:
    if found is None or not index.permitted(source.key, found.key):
        return _unresolved(index, source, found)
    # While nobody exports, the last reading of the name stands for what is missing.
    service = index.meaning(found) or candidates(found)[-1]
    problems = [
        problem
        for position, entry in enumerate(source.spec.cluster_backends)
        for problem in _backend_problems(index, entry, position, service)
    ]
    if not problems:
        return None
    return Problem(problems[0].reason, "; ".join(problem.message for problem in problems))


def _backend_problems(
    index: Index, entry: ClusterBackend, position: int, service: ServiceName
) -> list[Problem]:
    clusters = clusters_named(entry.cluster, index.regions)
    if not clusters:
        known = ", ".join(f"{name} ({index.regions[name]})" for name in sorted(index.regions))
        message = (
            f"spec.clusterBackends[{position}].cluster: no member cluster or region is named "
            f"{entry.cluster}; members: {known}"
        )
        return [Problem(ReasonCode.UNKNOWN_CLUSTER.value, message)]
    found = (cluster_problem(index, cluster, service) for cluster in clusters)
    return [problem for problem in found if problem is not None]


def cluster_problem(index: Index, cluster: ClusterId, service: ServiceName) -> Problem | None:
    """Why ``cluster`` cannot serve ``service``; ``None`` if it can."""
    fact = index.exports(service).get(cluster)
    if fact is None:
        return Problem(ReasonCode.NOT_EXPORTED.value, f"{cluster} does not export {service}")
    if not fact.ready:
        message = f"{cluster} has no ready endpoint of {service} ({fact.total} in all)"
        return Problem(ReasonCode.NO_READY_ENDPOINTS.value, message)
    gateways = index.view.gateways.get(cluster)
    if cluster != index.cluster and (gateways is None or not gateways.gateways):
        message = f"{cluster} has published no gateway that other clusters can reach"
        return Problem(ReasonCode.NO_GATEWAY.value, message)
    return None
