"""One clusterset service from the exports of several clusters, and where they disagree (KEP-1645).

Decides: precedence (the oldest export by etcd's create_revision, then the cluster's name), the
union of ports, which fields are the oldest's as they are, and what counts as a conflict.
Leaves to others: statuses (``compile.exports``), imports as objects (``derive.mcs_imports``).
Invariants: the order in which exports are given does not matter; merged ports have distinct names
and distinct pairs of protocol and number; a single export has no conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from federation.model.base import ClusterId
from federation.model.facts import ExportFact, ServicePort, ServiceType


@dataclass(frozen=True, slots=True)
class Difference:
    """A field in which exports disagree: ``reason`` is the condition's, ``used`` what holds."""

    reason: str
    word: str
    used: str
    disagreeing: int


@dataclass(frozen=True, slots=True)
class MergedService:
    """What all clusters see of an exported service. ``clusters`` export it, sorted."""

    oldest: ExportFact
    clusters: tuple[ClusterId, ...]
    ports: tuple[ServicePort, ...]
    ip_families: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def type(self) -> ServiceType:
        """The oldest export's; headlessness is never merged."""
        return self.oldest.type

    def message(self) -> str:
        """The differences as the conditions' sentence; empty without any."""
        return " ".join(
            f'Conflicting {entry.word}. Using "{entry.used}" from oldest service export in '
            f'"{self.oldest.cluster}". {entry.disagreeing}/{len(self.clusters)} clusters disagree.'
            for entry in self.differences
        )


def merge(facts: Mapping[ClusterId, ExportFact]) -> MergedService:
    """The service that ``facts``, at least one, make together."""
    ordered = sorted(facts.values(), key=lambda fact: (fact.create_revision, fact.cluster))
    oldest = ordered[0]
    differences = []
    for reason, word, value in _COMPARED:
        count = sum(value(fact) != value(oldest) for fact in ordered)
        if count:
            differences.append(Difference(reason, word, value(oldest), count))
    return MergedService(
        oldest=oldest,
        clusters=tuple(sorted(facts)),
        ports=_union(ordered),
        ip_families=_families(ordered),
        differences=tuple(differences),
    )


def _union(ordered: list[ExportFact]) -> tuple[ServicePort, ...]:
    """Ports of all, by name first and then by protocol and number; the older export has its way."""
    names: set[str] = set()
    numbers: set[tuple[str, int]] = set()
    merged: list[ServicePort] = []
    for port in (port for fact in ordered for port in fact.ports):
        number = (port.protocol, port.port)
        if port.name in names or number in numbers:
            continue
        names.add(port.name)
        numbers.add(number)
        merged.append(port)
    return tuple(merged)


def _families(ordered: list[ExportFact]) -> tuple[str, ...]:
    """Families that all clusters serve; with none in common the oldest export's."""
    told = [fact.ip_families for fact in ordered if fact.ip_families]
    if not told:
        return ()
    common = tuple(family for family in told[0] if all(family in other for other in told))
    return common or told[0]


def _ports(fact: ExportFact) -> str:
    ports = sorted((port.name, port.protocol, port.port) for port in fact.ports)
    return ", ".join(f"{name or '-'}:{number}/{protocol}" for name, protocol, number in ports)


def _pairs(mapping: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={mapping[name]}" for name in sorted(mapping))


def _timeout(fact: ExportFact) -> str:
    seconds = fact.session_affinity_timeout_s
    return "" if seconds is None else f"timeoutSeconds: {seconds}"


_Compared = tuple[str, str, Callable[[ExportFact], str]]

_COMPARED: tuple[_Compared, ...] = (
    ("PortConflict", "ports", _ports),
    ("TypeConflict", "type", lambda fact: fact.type.value),
    ("SessionAffinityConflict", "session affinity", lambda fact: fact.session_affinity),
    ("SessionAffinityConfigConflict", "session affinity config", _timeout),
    ("LabelsConflict", "exported labels", lambda fact: _pairs(fact.labels)),
    ("AnnotationsConflict", "exported annotations", lambda fact: _pairs(fact.annotations)),
    (
        "InternalTrafficPolicyConflict",
        "internal traffic policy",
        lambda fact: fact.internal_traffic_policy or "Cluster",
    ),
    (
        "TrafficDistributionConflict",
        "traffic distribution",
        lambda fact: fact.traffic_distribution or "",
    ),
    ("IPFamilyConflict", "IP families", lambda fact: ", ".join(sorted(fact.ip_families))),
)
"""What must agree between exports, with the condition's reason and the word for it."""
