"""``fedctl top``: rows and the table, from values."""

from __future__ import annotations

import io

from rich.console import Console

from federation.cli.federation_traffic import LiveTraffic, SeenReport
from federation.cli.top import render
from federation.derive.traffic_rows import RowOrder, TrafficRow, traffic_rows
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.resolved import ClusterShare, ResolvedService, SourceResolution
from federation.model.traffic_report import Flow, GatewayTraffic, TrafficReport
from federation.model.view import FederationView

WEST, EAST = ClusterId("west-a"), ClusterId("us-east-1")
R_WEST, R_EAST = Region("us-west-1"), Region("us-east-1")
USERS = ServiceName(namespace="app", name="users")
NOW = 100.0


def share(cluster: ClusterId, region: Region, asked: int, in_force: int) -> ClusterShare:
    return ClusterShare(
        cluster=cluster,
        region=region,
        weight_asked_bp=asked,
        weight_bp=in_force,
        failover=(),
        reasons=(),
    )


def view(*shares: ClusterShare) -> FederationView:
    source = SourceResolution(region=R_WEST, shares=shares, reasons=())
    return FederationView(resolved={USERS: ResolvedService(service=USERS, sources=(source,))})


SPLIT = view(share(WEST, R_WEST, 6_000, 10_000), share(EAST, R_EAST, 4_000, 0))


def flow(to: ClusterId = WEST, region: Region = R_WEST, **more: object) -> Flow:
    base = {"service": "app/users", "to_cluster": to, "to_region": region, "calls_per_s": 10.0}
    return Flow.model_validate(base | more)


def report(*flows: Flow, **more: object) -> TrafficReport:
    gateways = (GatewayTraffic(name="gw-1"),)
    base = {"at": 1.0, "cluster": WEST, "region": R_WEST, "gateways": gateways, "flows": flows}
    return TrafficReport.model_validate(base | more)


def shown(known: LiveTraffic, rows: tuple[TrafficRow, ...]) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(render(known, rows, NOW))
    return console.export_text()


def seen(*reports: TrafficReport, gone_at: float | None = None) -> LiveTraffic:
    found = {report.cluster: SeenReport(report, NOW - 3, gone_at) for report in reports}
    return LiveTraffic(found)


def test_a_row_has_the_weights_of_its_share_and_a_share_without_calls_has_a_row() -> None:
    east, west, behind = traffic_rows([report(flow(), flow(tier=1))], SPLIT)
    assert (west.weight_asked_bp, west.weight_bp, west.calls_per_s) == (6_000, 10_000, 10.0)
    # Asked for, and nothing goes there: that is what one wants to see in a drain.
    assert (east.to_cluster, east.calls_per_s) == (EAST, 0.0)
    assert (east.weight_asked_bp, east.weight_bp) == (4_000, 0)
    assert (behind.tier, behind.weight_bp) == (1, None)


def test_a_service_of_the_own_cluster_has_no_weights() -> None:
    (row,) = traffic_rows([report(flow(imported=False))], SPLIT)
    assert row.weight_bp is None


def test_rows_are_sorted_by_what_was_asked() -> None:
    flows = (
        flow(service="a/quiet", calls_per_s=1.0, p99_ms=90.0),
        flow(service="b/busy", calls_per_s=9.0, errors_per_s=1.0, p99_ms=5.0),
        flow(service="c/open", calls_per_s=2.0, open=8),
        flow(service="", calls_per_s=5.0),
    )
    orders = {
        order: [row.service for row in traffic_rows([report(*flows)], SPLIT, order=order)]
        for order in RowOrder
    }
    assert orders[RowOrder.SERVICE] == ["a/quiet", "b/busy", "c/open", ""]
    assert orders[RowOrder.CALLS][0] == orders[RowOrder.ERRORS][0] == "b/busy"
    assert (orders[RowOrder.P99][0], orders[RowOrder.OPEN][0]) == ("a/quiet", "c/open")


def test_the_table_says_where_calls_go_and_how_they_fare() -> None:
    found = report(
        flow(errors_per_s=0.5, p50_ms=1.5, p99_ms=30.0, open=4),
        flow(ClusterId(""), Region(""), calls_per_s=2.0, errors_per_s=2.0),
    )
    text = shown(seen(found), traffic_rows([found], SPLIT))
    assert "12.0 calls/s   2.5 errors/s   4 open" in text
    heading, nowhere, east, west = (" ".join(it.split()) for it in text.splitlines()[1:5])
    assert heading == "SERVICE FROM TO CALLS/S ERRORS P50 MS P99 MS OPEN TIER ASKED IN FORCE"
    assert nowhere.startswith("app/users us-west-1/west-a nowhere: no endpoint 2.0 100 %")
    # A region and its cluster of one name are told once.
    assert east == "app/users us-west-1/west-a us-east-1 0.0 - - - 0 0 40 % 0 %"
    there = "us-west-1/west-a us-west-1/west-a"
    assert west == f"app/users {there} 10.0 5 % ≤ 1.5 ≤ 30 4 0 60 % 100 %"


def test_what_is_not_known_is_said() -> None:
    assert "No cluster reports its traffic yet" in shown(LiveTraffic(), ())
    empty = report(gateways=())
    text = shown(seen(empty), ())
    assert "No calls are carried now." in text
    assert "west-a: no gateway reports to its agent" in text
    old = report(flow(), truncated=7)
    text = shown(seen(old, gone_at=NOW - 12), traffic_rows([old], SPLIT, silent=[WEST]))
    assert "west-a: its agent has been silent for 12 s" in text
    assert "west-a: 7 quieter flows are told together" in text
    text = shown(LiveTraffic({}, away="127.0.0.1:1 does not answer"), ())
    assert "etcd is away: 127.0.0.1:1 does not answer; traffic goes on" in text
