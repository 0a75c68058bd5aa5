"""Services as people look for them: states, filters, order and pages, over thousands of them.

Decides: in which states a service is (differing, unresolved, not ready, in conflict, draining), how
lists are filtered, ordered and cut.
Leaves to others: one service in depth (``service``), the numbers (``derive.resolve``).
Invariants: pure; a service that has not changed from one view to the next is not judged again; a
page costs what stands on it, not what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from federation.derive.merge import merge
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import ExportFact
from federation.model.resolved import ClusterShare, ResolvedService
from federation.model.traffic_report import TrafficReport
from federation.model.view import FederationView

Json = dict[str, Any]


class State(StrEnum):
    """What is remarkable about a service."""

    DIFFERS = "differs"
    UNRESOLVED = "unresolved"
    NOT_READY = "notready"
    CONFLICT = "conflict"
    DRAINING = "draining"


class Order(StrEnum):
    """How lists are ordered: by name, or the busiest or worst first."""

    NAME = "name"
    CALLS = "calls"
    ERRORS = "errors"


_Exports = Mapping[ClusterId, ExportFact]
_Source = tuple[tuple[ExportFact, ...], ResolvedService | None]


@dataclass(frozen=True, slots=True)
class Judged:
    """A service with its states."""

    service: ServiceName
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class Services:
    """All services of a view, by name, with how many are in each state."""

    judged: tuple[Judged, ...]
    states: Mapping[str, int]

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.judged)


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for; empty fields ask for everything. ``source`` is the callers' region."""

    text: str = ""
    namespace: str = ""
    cluster: str = ""
    state: State | None = None
    source: Region | None = None
    order: Order = Order.NAME
    page: int = 1
    per: int = 50


class ServiceIndex:
    """Judges the services of successive views. Memory: one entry for each service."""

    def __init__(self) -> None:
        self._known: dict[ServiceName, tuple[_Source, Judged]] = {}

    def read(self, view: FederationView) -> Services:
        """The services of ``view``."""
        names = sorted({*view.exports, *view.resolved}, key=lambda it: (it.namespace, it.name))
        self._known = {name: self._judge(view, name) for name in names}
        judged = tuple(entry for _, entry in self._known.values())
        counts = Counter(state.value for entry in judged for state in entry.states)
        return Services(judged, {state.value: counts[state.value] for state in State})

    def _judge(self, view: FederationView, name: ServiceName) -> tuple[_Source, Judged]:
        exports = view.exports.get(name, {})
        source = (tuple(exports.values()), view.resolved.get(name))
        known = self._known.get(name)
        if known is not None and _same(known[0], source):
            return known
        return source, Judged(name, _states(exports, source[1]))


def _same(one: _Source, other: _Source) -> bool:
    """By identity: readers of the view keep the values that have not changed."""
    return (
        one[1] is other[1]
        and len(one[0]) == len(other[0])
        and all(a is b for a, b in zip(one[0], other[0], strict=True))
    )


def _states(exports: _Exports, resolved: ResolvedService | None) -> tuple[State, ...]:
    found = []
    shares = [share for source in (resolved.sources if resolved else ()) for share in source.shares]
    if any(share.weight_asked_bp != share.weight_bp for share in shares):
        found.append(State.DIFFERS)
    if resolved is None or not shares:
        found.append(State.UNRESOLVED)
    if any(fact.ready == 0 for fact in exports.values()):
        found.append(State.NOT_READY)
    if len(exports) > 1 and merge(exports).differences:
        found.append(State.CONFLICT)
    if resolved is not None and resolved.drains:
        found.append(State.DRAINING)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Live traffic of one service."""

    calls_per_s: float
    errors_per_s: float
    p99_ms: float | None


def traffic_by_service(
    reports: Mapping[ClusterId, TrafficReport], source: Region | None = None
) -> dict[str, Traffic]:
    """Calls of each service (``NAMESPACE/NAME``), of callers in ``source`` or of all."""
    found: dict[str, Traffic] = {}
    for report in reports.values():
        if source is not None and report.region != source:
            continue
        for flow in report.flows:
            before = found.get(flow.service, Traffic(0.0, 0.0, None))
            latencies = [it for it in (before.p99_ms, flow.p99_ms) if it is not None]
            found[flow.service] = Traffic(
                round(before.calls_per_s + flow.calls_per_s, 3),
                round(before.errors_per_s + flow.errors_per_s, 3),
                max(latencies, default=None),
            )
    return found


def page(
    view: FederationView,
    services: Services,
    reports: Mapping[ClusterId, TrafficReport],
    query: Query,
) -> Json:
    """The page of services that ``query`` asks for."""
    regions = sorted({member.region for member in view.members.values()})
    source = query.source or (regions[0] if regions else Region(""))
    traffic = traffic_by_service(reports, source)
    matching = [entry for entry in services.judged if _wanted(view, entry, query)]
    none = Traffic(0.0, 0.0, None)
    if query.order is Order.CALLS:
        matching.sort(key=lambda it: -traffic.get(str(it.service), none).calls_per_s)
    elif query.order is Order.ERRORS:
        matching.sort(key=lambda it: -traffic.get(str(it.service), none).errors_per_s)
    first = (query.page - 1) * query.per
    return {
        "total": services.total,
        "matched": len(matching),
        "page": query.page,
        "per": query.per,
        "from": source,
        "regions": regions,
        "namespaces": sorted({entry.service.namespace for entry in services.judged}),
        "states": dict(services.states),
        "services": [
            _row(view, entry, source, traffic.get(str(entry.service)))
            for entry in matching[first : first + query.per]
        ],
    }


def _wanted(view: FederationView, entry: Judged, query: Query) -> bool:
    service = entry.service
    return (
        (not query.text or query.text.lower() in f"{service.namespace}/{service.name}".lower())
        and (not query.namespace or service.namespace == query.namespace)
        and (query.state is None or query.state in entry.states)
        and (not query.cluster or query.cluster in view.exports.get(service, {}))
    )


def _row(view: FederationView, entry: Judged, source: Region, traffic: Traffic | None) -> Json:
    exports = view.exports.get(entry.service, {})
    resolved = view.resolved.get(entry.service)
    resolution = resolved.source(source) if resolved else None
    shares = {share.cluster: share for share in (resolution.shares if resolution else ())}
    oldest = min(exports.values(), key=lambda it: (it.create_revision, it.cluster), default=None)
    return {
        "service": str(entry.service),
        "namespace": entry.service.namespace,
        "name": entry.service.name,
        "type": oldest.type.value if oldest else None,
        "states": [state.value for state in entry.states],
        "clusters": [
            {
                "cluster": cluster,
                "region": fact.region,
                "ready": fact.ready,
                "total": fact.total,
                "stale": cluster not in view.heartbeats,
                **_weights(shares.get(cluster)),
            }
            for cluster, fact in sorted(exports.items())
        ],
        "callsPerS": traffic.calls_per_s if traffic else None,
        "errorsPerS": traffic.errors_per_s if traffic else None,
        "p99Ms": traffic.p99_ms if traffic else None,
    }


def _weights(share: ClusterShare | None) -> Json:
    asked, given = (share.weight_asked_bp, share.weight_bp) if share else (0, 0)
    reason = None
    if share is not None and asked != given and share.reasons:
        # The last reason is what changed the number last.
        told = share.reasons[-1]
        reason = {"code": told.code.value, "message": told.message}
    return {"askedBp": asked, "inForceBp": given, "reason": reason}
