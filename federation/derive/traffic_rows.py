"""Live traffic as people read it: one row for each flow, with what was asked for it.

Decides: rows, their order, and what stands beside a flow: the weight asked for and in force.
Leaves to others: reports (``derive.traffic``), layout (``cli.top``).
Invariants: pure; a share without any traffic has a row too, so that its absence is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from federation.model.base import ClusterId, Region, ServiceName, Value
from federation.model.resolved import ClusterShare
from federation.model.traffic_report import Flow, TrafficReport
from federation.model.view import FederationView


class TrafficRow(Value):
    """Traffic from the gateways of one cluster to a service in another, or in the same.

    ``service`` is empty for flows that are told together; ``to_cluster`` is empty where no endpoint
    was there to try. Weights are basis points of calls from that region, ``None`` where the flow
    is none of a resolved service's first choice (a tier behind it, or a Service of the own
    cluster). ``silent`` tells that the cluster's agent has taken its report back.
    """

    service: str
    imported: bool
    from_cluster: ClusterId
    from_region: Region
    to_cluster: ClusterId
    to_region: Region
    tier: int
    calls_per_s: float
    errors_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    open: int
    weight_asked_bp: int | None = None
    weight_bp: int | None = None
    silent: bool = False

    @property
    def error_ratio(self) -> float:
        """The part of the calls that failed."""
        return self.errors_per_s / self.calls_per_s if self.calls_per_s else 0.0


class RowOrder(StrEnum):
    """What rows are sorted by; the most comes first."""

    SERVICE = "service"
    CALLS = "calls"
    ERRORS = "errors"
    P99 = "p99"
    OPEN = "open"


def traffic_rows(
    reports: Iterable[TrafficReport],
    view: FederationView,
    *,
    silent: Iterable[ClusterId] = (),
    order: RowOrder = RowOrder.SERVICE,
) -> tuple[TrafficRow, ...]:
    """The rows of ``reports``, with the weights that ``view`` has for them."""
    gone = frozenset(silent)
    rows = [
        row.model_copy(update={"silent": report.cluster in gone})
        for report in reports
        for row in _rows(report, view)
    ]
    return tuple(sorted(rows, key=lambda row: (*_first(row, order), *_place(row))))


def _first(row: TrafficRow, order: RowOrder) -> Sequence[float]:
    match order:
        case RowOrder.SERVICE:
            return ()
        case RowOrder.CALLS:
            return (-row.calls_per_s,)
        case RowOrder.ERRORS:
            return (-row.errors_per_s,)
        case RowOrder.P99:
            return (-(row.p99_ms or 0.0),)
        case RowOrder.OPEN:
            return (-row.open,)


def _place(row: TrafficRow) -> tuple[object, ...]:
    """By service, those told together last; then by source and destination."""
    names = (row.service == "", row.service, not row.imported, row.from_region, row.from_cluster)
    return (*names, row.tier, row.to_region, row.to_cluster)


def _rows(report: TrafficReport, view: FederationView) -> list[TrafficRow]:
    carried = {flow.service for flow in report.flows if flow.imported and flow.service}
    shares = {
        (service, share.cluster): share
        for service in carried
        for share in _shares(view, service, report.region)
    }
    rows = []
    for flow in report.flows:
        found = None
        if flow.imported and flow.tier == 0:
            found = shares.pop((flow.service, flow.to_cluster), None)
        rows.append(_row(report, flow, found))
    for (service, cluster), share in shares.items():
        if share.weight_bp or share.weight_asked_bp:
            idle = Flow(service=service, to_cluster=cluster, to_region=share.region)
            rows.append(_row(report, idle, share))
    return rows


def _shares(view: FederationView, service: str, source: Region) -> tuple[ClusterShare, ...]:
    namespace, _, name = service.partition("/")
    resolved = view.resolved.get(ServiceName(namespace=namespace, name=name))
    entry = resolved.source(source) if resolved else None
    return entry.shares if entry else ()


def _row(report: TrafficReport, flow: Flow, share: ClusterShare | None) -> TrafficRow:
    return TrafficRow(
        **flow.model_dump(),
        from_cluster=report.cluster,
        from_region=report.region,
        weight_asked_bp=share.weight_asked_bp if share else None,
        weight_bp=share.weight_bp if share else None,
    )
