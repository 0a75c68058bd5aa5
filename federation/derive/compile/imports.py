"""Statuses of imports: which Service they mean and which clusters stand behind them.

Decides: ``ResolvedRefs`` of the federation's ServiceImport, ``Ready`` and ``Stale`` of that and the
MCS API's.
Leaves to others: the meaning itself (``derive.imports``), routes to imports (``backends``).
Invariants: ``Ready`` follows exports and endpoints as published, not this cluster's own guess; the
clusters listed are those that export, sorted.
"""

from __future__ import annotations

from collections.abc import Iterable

from federation.derive.compile.backends import not_exported
from federation.derive.compile.index import AnyImport, Index
from federation.derive.compile.problem import Problem, condition, verdict
from federation.model.base import ClusterId
from federation.model.conditions import Condition
from federation.model.objects import ApiObject, FederatedServiceImport
from federation.model.status import ObjectStatus


def import_status(index: Index, source: AnyImport) -> ObjectStatus:
    """The status of an import of either kind."""
    service = index.meaning(source)
    clusters = tuple(sorted(index.exports(service))) if service is not None else ()
    conditions = [_ready(index, source), *stale(index, source, clusters)]
    if isinstance(source, FederatedServiceImport):
        conditions.insert(0, _resolved_refs(index, source))
    return ObjectStatus(
        observed_generation=source.metadata.generation,
        conditions=tuple(conditions),
        clusters=clusters,
    )


def _resolved_refs(index: Index, source: AnyImport) -> Condition:
    service = index.meaning(source)
    problem = Problem("BackendNotFound", not_exported(source)) if service is None else None
    clusters = ", ".join(sorted(index.exports(service))) if service is not None else ""
    return verdict(
        source, "ResolvedRefs", problem, message=f"means Service {service}, exported by {clusters}"
    )


def _ready(index: Index, source: AnyImport) -> Condition:
    service = index.meaning(source)
    if service is None:
        return condition(source, "Ready", False, "Pending", not_exported(source))
    facts = index.exports(service)
    ready = sum(fact.ready for fact in facts.values())
    total = sum(fact.total for fact in facts.values())
    message = f"{ready} of {total} endpoints ready in {', '.join(sorted(facts))}"
    return condition(source, "Ready", True, "Ready", message)


def stale(index: Index, source: ApiObject, clusters: Iterable[ClusterId]) -> tuple[Condition, ...]:
    """``Stale`` while the agents of some of ``clusters`` are silent; silence moves no traffic."""
    silent = sorted(set(clusters) - set(index.view.heartbeats))
    # A gateway that stands alone, or has not joined yet, knows of nobody's life.
    if not silent or not index.view.heartbeats:
        return ()
    message = f"{', '.join(silent)} is silent; what it exported stays in force"
    return (condition(source, "Stale", True, "HeartbeatLost", message),)
