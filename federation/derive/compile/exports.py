"""Statuses of ServiceExports (MCS API): Valid, Ready, Conflict (KEP-1645).

Decides: whether an export makes sense, has reached the federation, and agrees with the others.
Leaves to others: what is exported and published (``derive.exports``, the agent).
Invariants: the oldest export by etcd's create_revision is the measure (then the cluster's name);
every exporter of a service in conflict is told, with the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from federation.derive.compile.index import Index
from federation.derive.compile.problem import Problem, condition, verdict
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


def _ports(fact: ExportFact) -> str:
    ports = sorted((port.name, port.protocol, port.port) for port in fact.ports)
    return ", ".join(f"{name or '-'}:{number}/{protocol}" for name, protocol, number in ports)


_Compared = tuple[str, str, Callable[[ExportFact], object]]

_COMPARED: tuple[_Compared, ...] = (
    ("PortConflict", "ports", _ports),
    ("TypeConflict", "type", lambda fact: fact.type.value),
    ("SessionAffinityConflict", "session affinity", lambda fact: fact.session_affinity),
)
"""What must agree between exports, with the reason and the word for it."""


def _conflict(source: McsServiceExport, facts: Mapping[ClusterId, ExportFact]) -> Condition:
    if not facts:
        return condition(source, "Conflict", False, "NoConflicts")
    oldest = min(facts.values(), key=lambda fact: (fact.create_revision, fact.cluster))
    reasons: list[str] = []
    messages: list[str] = []
    for reason, word, value in _COMPARED:
        differing = sum(value(fact) != value(oldest) for fact in facts.values())
        if differing:
            reasons.append(reason)
            messages.append(
                f'Conflicting {word}. Using "{value(oldest)}" from oldest service export in '
                f'"{oldest.cluster}". {differing}/{len(facts)} clusters disagree.'
            )
    if not reasons:
        return condition(source, "Conflict", False, "NoConflicts")
    return condition(source, "Conflict", True, ",".join(reasons), " ".join(messages))
