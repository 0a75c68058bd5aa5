"""Statuses of ServiceExports (MCS API): Valid, Ready, Conflict (KEP-1645).

Decides: whether an export makes sense, has reached the federation, and agrees with the others.
Leaves to others: what is exported and published (``derive.exports``, the agent), what counts as a
conflict (``derive.merge``).
Invariants: every exporter of a service in conflict is told, with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping

from federation.derive.compile.index import Index
from federation.derive.compile.problem import Problem, condition, verdict
from federation.derive.merge import merge
from federation.model.base import ClusterId, ServiceName
from federation.model.conditions import Condition
from federation.model.facts import ExportFact
from federation.model.objects import CoreServiceType, McsServiceExport
from federation.model.status import ObjectStatus


def export_status(index: Index, source: McsServiceExport) -> ObjectStatus:
    """The status of a ServiceExport of this cluster."""
    name = ServiceName(namespace=source.metadata.namespace, name=source.metadata.name)
    invalid = _invalid(index, name)
    return ObjectStatus(
        observed_generation=source.metadata.generation,
        conditions=(
            verdict(source, "Valid", invalid),
            _ready(index, source, name, invalid),
            _conflict(source, index.exports(name)),
        ),
    )


def _invalid(index: Index, name: ServiceName) -> Problem | None:
    service = index.service(name)
    if service is None:
        return Problem("NoService", f"Service {name} does not exist in {index.cluster}")
    if service.spec.type is CoreServiceType.EXTERNAL_NAME:
        return Problem("InvalidServiceType", f"Service {name} is of type ExternalName")
    return None


def _ready(
    index: Index, source: McsServiceExport, name: ServiceName, invalid: Problem | None
) -> Condition:
    if invalid is not None:
        return condition(source, "Ready", False, "Failed", invalid.message)
    fact = index.exports(name).get(index.cluster)
    if fact is None:
        message = f"{name} is not published to the federation yet"
        return condition(source, "Ready", False, "Pending", message)
    message = f"published with {fact.ready} of {fact.total} endpoints ready"
    return condition(source, "Ready", True, "Exported", message)


def _conflict(source: McsServiceExport, facts: Mapping[ClusterId, ExportFact]) -> Condition:
    merged = merge(facts) if facts else None
    if merged is None or not merged.differences:
        return condition(source, "Conflict", False, "NoConflicts")
    reasons = ",".join(entry.reason for entry in merged.differences)
    return condition(source, "Conflict", True, reasons, merged.message())
