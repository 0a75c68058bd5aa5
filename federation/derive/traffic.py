"""Traffic of a cluster from the loads of its gateways, and what it says of drains.

Decides: how counts of several gateways become one flow, which flows are told one by one, and how
many streams a drain has still to wait for.
Leaves to others: where loads come from (``discovery``), the stored form (``wire.etcd_traffic``).
Invariants: pure; the order of gateways does not matter, nor whether a gateway's counts come in one
load or in several of the same interval; beyond the bounds nothing is lost but the names.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from federation.model.base import ClusterId, Region
from federation.model.drain import Drain, DrainTargetKind
from federation.model.load import FlowKey, FlowLoad, GatewayLoad
from federation.model.traffic_report import FLOWS_MAX, GATEWAYS_MAX, Flow, TrafficReport

RATE_DIGITS = 2
"""Digits after the point of a rate: a call in 100 s is still seen."""


@dataclass(slots=True)
class _Sum:
    """Counts of one flow over gateways; those that ended by the interval they ended in."""

    ended: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)
    latencies: Counter[float] = field(default_factory=Counter)
    open: int = 0

    def add(self, load: FlowLoad, interval_ms: int) -> None:
        """Take in one gateway's counts."""
        self.ended[interval_ms] += load.succeeded + load.failed
        self.failed[interval_ms] += load.failed
        self.latencies.update(load.latencies)
        self.open += load.open


def aggregate(
    loads: Iterable[GatewayLoad], *, cluster: ClusterId, region: Region, at: float
) -> TrafficReport:
    """What the gateways of ``cluster`` carry together, within the bounds of a report."""
    sums: defaultdict[FlowKey, _Sum] = defaultdict(_Sum)
    gateways = {}
    for load in loads:
        gateways[load.gateway.name] = load.gateway
        for key, flow in load.flows.items():
            sums[key].add(flow, load.interval_ms)
    flows = [_flow(key, total) for key, total in sums.items()]
    whole = TrafficReport(
        at=at,
        cluster=cluster,
        region=region,
        gateways=tuple(gateways[name] for name in sorted(gateways)),
        flows=tuple(sorted((flow for flow in flows if _is_seen(flow)), key=_busiest_first)),
    )
    return bounded(whole)


def bounded(
    report: TrafficReport, *, flows_max: int = FLOWS_MAX, gateways_max: int = GATEWAYS_MAX
) -> TrafficReport:
    """``report`` with the busiest flows one by one, and the others added up by where they lead."""
    named = sorted((flow for flow in report.flows if flow.service), key=_busiest_first)
    if len(named) <= flows_max and len(report.gateways) <= gateways_max:
        return report
    told = named[:flows_max]
    rest = [*named[flows_max:], *(flow for flow in report.flows if not flow.service)]
    return report.model_copy(
        update={
            "gateways": report.gateways[:gateways_max],
            "flows": (*told, *_added_up(rest)),
            "truncated": report.truncated + len(named) - len(told),
        }
    )


def _flow(key: FlowKey, total: _Sum) -> Flow:
    return Flow(
        service=key.service,
        imported=key.imported,
        to_cluster=key.to_cluster,
        to_region=key.to_region,
        tier=key.tier,
        calls_per_s=_per_s(total.ended),
        errors_per_s=_per_s(total.failed),
        p50_ms=percentile(total.latencies, 50),
        p99_ms=percentile(total.latencies, 99),
        open=total.open,
    )


def _per_s(counts: Mapping[int, int]) -> float:
    """A rate from counts by interval: exact until it is rounded, so that any split is the same."""
    total = sum((Fraction(count * 1000, ms) for ms, count in counts.items()), Fraction(0))
    return float(round(total, RATE_DIGITS))


def percentile(counts: Mapping[float, int], percent: int) -> float | None:
    """The upper bound of the bucket that holds the value below which ``percent`` % are."""
    total = sum(counts.values())
    wanted, seen = -(-total * percent // 100), 0
    for bound in sorted(counts):
        seen += counts[bound]
        if counts[bound] and seen >= wanted:
            return bound
    return None


def _is_seen(flow: Flow) -> bool:
    return bool(flow.calls_per_s or flow.open)


def _busiest_first(flow: Flow) -> tuple[object, ...]:
    busy = (-flow.calls_per_s, -flow.open)
    return (*busy, flow.service, flow.imported, flow.to_cluster, flow.to_region, flow.tier)


def _added_up(flows: Sequence[Flow]) -> list[Flow]:
    """One flow for each cluster and tier led to: so nothing is missing of a drain's count."""
    groups: defaultdict[tuple[bool, ClusterId, Region, int], list[Flow]] = defaultdict(list)
    for flow in flows:
        groups[flow.imported, flow.to_cluster, flow.to_region, flow.tier].append(flow)
    return [
        Flow(
            imported=key[0],
            to_cluster=key[1],
            to_region=key[2],
            tier=key[3],
            calls_per_s=_sum(flow.calls_per_s for flow in members),
            errors_per_s=_sum(flow.errors_per_s for flow in members),
            open=sum(flow.open for flow in members),
        )
        for key, members in sorted(groups.items())
    ]


def _sum(rates: Iterable[float]) -> float:
    scale = 10.0**RATE_DIGITS
    return sum(round(rate * scale) for rate in rates) / scale


def streams_left(drain: Drain, reports: Iterable[TrafficReport]) -> int | None:
    """Calls that go on at what ``drain`` drains, over all clusters; ``None``: nobody reports.

    Those of a drained service that stand among flows that are added up are not counted, and those
    of a cluster that does not report neither: then it is a lower bound.
    """
    told = list(reports)
    if not told:
        return None
    service = None if drain.service is None else str(drain.service)
    return sum(
        flow.open
        for report in told
        for flow in report.flows
        if flow.imported and _leads_to(flow, drain) and (service is None or flow.service == service)
    )


def _leads_to(flow: Flow, drain: Drain) -> bool:
    if drain.target_kind is DrainTargetKind.REGION:
        return flow.to_region == drain.target
    return flow.to_cluster == drain.target
