"""Statuses of imports: which Service they mean and which clusters stand behind them.

Decides: ``ResolvedRefs`` of the federation's ServiceImport, ``Ready`` and ``Stale`` of that and the
MCS API's, ``PortsServed`` of the latter where a port is not, ``DNSResolved`` where names are
answered, and of the federation's kind always, since that asks for it (``resolution: DNS``).
Leaves to others: the meaning itself (``derive.imports``), routes to imports (``backends``).
Invariants: ``Ready`` follows exports and endpoints as published, not this cluster's own guess; the
clusters listed are those that export, sorted.
"""

from __future__ import annotations

from collections.abc import Iterable

from federation.derive.compile.backends import not_exported
from federation.derive.compile.import_listeners import unserved_ports
from federation.derive.compile.import_names import name_resolved
from federation.derive.compile.index import AnyImport, Index
from federation.derive.compile.problem import Problem, condition, verdict
from federation.derive.mcs_imports import DERIVED_SERVICE, exporters, is_ours, unexplained
from federation.model.base import ClusterId
from federation.model.conditions import Condition
from federation.model.facts import ServiceType
from federation.model.objects import (
    ApiObject,
    FederatedServiceImport,
    McsServiceImport,
    Service,
)
from federation.model.status import ObjectStatus


def import_status(index: Index, source: AnyImport) -> ObjectStatus:
    """The status of an import of either kind."""
    service = index.meaning(source)
    clusters = tuple(sorted(index.exports(service))) if service is not None else ()
    if isinstance(source, McsServiceImport) and exporters(source) - {*clusters}:
        # What was behind it and has not said no: what stands there is all that is known of it.
        clusters = tuple(sorted({*clusters, *unexplained(source, index.view)}))
    conditions = [_ready(index, source), *_ports_served(index, source)]
    if isinstance(source, FederatedServiceImport) or index.settings.answers_names:
        conditions.append(name_resolved(index, source, service))
    conditions += stale(index, source, clusters)
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
    if isinstance(source, McsServiceImport):
        problem = address_problem(index, source)
        if problem is not None:
            return verdict(source, "Ready", problem)
    facts = index.exports(service)
    ready = sum(fact.ready for fact in facts.values())
    total = sum(fact.total for fact in facts.values())
    message = f"{ready} of {total} endpoints ready in {', '.join(sorted(facts))}"
    return condition(source, "Ready", True, "Ready", message)


def address_problem(index: Index, source: McsServiceImport) -> Problem | None:
    """Why an import of ours cannot be reached as its type has it; ``None``: it can."""
    if not is_ours(source):
        return None
    if source.spec.type is ServiceType.HEADLESS:
        return _family_problem(index, source)
    if index.settings.gateway_service is None or source.spec.ips:
        return None
    name = (source.metadata.annotations or {}).get(DERIVED_SERVICE, "")
    return Problem(
        "Pending",
        f"Service {source.metadata.namespace}/{name}, whose addresses are to be the import's, has "
        "none yet; the agent's log says so if the API server refuses it",
    )


def _family_problem(index: Index, source: McsServiceImport) -> Problem | None:
    """Addresses of endpoints are as their clusters have them: here they may be of no use."""
    own = index.objects.get(Service, "default", "kubernetes")
    supported = own.spec.ip_families if own is not None else ()
    asked = source.spec.ip_families
    if not supported or not asked or set(asked) & set(supported):
        return None
    return Problem(
        "IPFamilyNotSupported",
        f"its endpoints have {', '.join(asked)} addresses, and this cluster has "
        f"{', '.join(supported)}; export it from a cluster with such endpoints too",
    )


def _ports_served(index: Index, source: AnyImport) -> tuple[Condition, ...]:
    problem = unserved_ports(index, source) if isinstance(source, McsServiceImport) else None
    return (verdict(source, "PortsServed", problem),) if problem is not None else ()


def stale(index: Index, source: ApiObject, clusters: Iterable[ClusterId]) -> tuple[Condition, ...]:
    """``Stale`` while the agents of some of ``clusters`` are silent; silence moves no traffic."""
    silent = sorted(set(clusters) - set(index.view.heartbeats))
    # A gateway that stands alone, or has not joined yet, knows of nobody's life.
    if not silent or not index.view.heartbeats:
        return ()
    message = f"{', '.join(silent)} is silent; what it exported stays in force"
    return (condition(source, "Stale", True, "HeartbeatLost", message),)
