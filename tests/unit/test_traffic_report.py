"""Traffic reports: adding up gateways, bounds, and their stored form."""

from __future__ import annotations

from typing import Any

import pytest

from federation.derive.traffic import aggregate, bounded, percentile, streams_left
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import Drain, DrainTargetKind
from federation.model.load import FlowKey, FlowLoad, GatewayLoad
from federation.model.traffic_report import (
    REPORT_BYTES_MAX,
    Flow,
    GatewayTraffic,
    TrafficReport,
)
from federation.ports import Entry
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import TrafficReader, traffic_to_bytes

WEST, EAST = ClusterId("west"), ClusterId("east")
KEYS = Keys()
USERS = "app/users"
TO_EAST = FlowKey(USERS, imported=True, to_cluster=EAST, to_region=Region("r-east"))
TO_WEST = FlowKey(USERS, imported=True, to_cluster=WEST, to_region=Region("r-west"))


def load(name: str, flows: dict[FlowKey, FlowLoad], interval_ms: int = 2000) -> GatewayLoad:
    return GatewayLoad(GatewayTraffic(name=name, state="InSync"), interval_ms, flows)


def report_of(*flows: Flow, cluster: ClusterId = WEST, gateways: int = 0) -> TrafficReport:
    return TrafficReport(
        at=1.5,
        cluster=cluster,
        region=Region("r-west"),
        gateways=tuple(GatewayTraffic(name=f"gateway-{n}", admin="h:1") for n in range(gateways)),
        flows=flows,
    )


def many(count: int, to: ClusterId = EAST) -> list[Flow]:
    return [
        Flow(
            service=f"{'n' * 60}/{number:060d}", to_cluster=to, calls_per_s=(number + 1) / 4, open=1
        )
        for number in range(count)
    ]


def test_gateways_add_up_whatever_their_intervals_are() -> None:
    one = FlowLoad(succeeded=9, failed=1, open=3, latencies={5.0: 8, 50.0: 2})
    two = FlowLoad(succeeded=40, open=1, latencies={5.0: 39, 500.0: 1})
    found = aggregate(
        [load("b", {TO_EAST: one, TO_WEST: FlowLoad()}), load("a", {TO_EAST: two}, 4000)],
        cluster=WEST,
        region=Region("r-west"),
        at=7.0,
    )
    assert [gateway.name for gateway in found.gateways] == ["a", "b"]
    (flow,) = found.flows  # what carries nothing is not told
    assert (flow.service, flow.to_cluster, flow.to_region) == (USERS, EAST, "r-east")
    assert (flow.calls_per_s, flow.errors_per_s, flow.open) == (15.0, 0.5, 4)
    assert (flow.p50_ms, flow.p99_ms) == (5.0, 500.0)


def test_percentiles_are_upper_bounds_of_buckets() -> None:
    assert percentile({}, 50) is None
    assert percentile({1.0: 1}, 99) == 1.0
    assert percentile({1.0: 50, 10.0: 49, 100.0: 1}, 50) == 1.0
    assert percentile({1.0: 50, 10.0: 49, 100.0: 1}, 99) == 10.0
    assert percentile({1.0: 0, 10.0: 1}, 50) == 10.0


def test_of_too_many_flows_the_others_are_added_up() -> None:
    quiet = Flow(service=USERS, to_cluster=WEST, calls_per_s=0.01, errors_per_s=0.01, open=2)
    found = bounded(report_of(*many(500), quiet))
    assert (len(found.flows), found.truncated) == (501, 1)
    rest = found.flows[-1]
    assert (rest.service, rest.to_cluster) == ("", WEST)
    assert (rest.calls_per_s, rest.errors_per_s, rest.open) == (0.01, 0.01, 2)
    # Once more changes nothing: what is added up stays so.
    assert bounded(found) == found


def test_a_stored_report_is_read_as_it_was_written() -> None:
    report = report_of(Flow(service=USERS, to_cluster=EAST, open=1, p50_ms=0.5), gateways=2)
    entry = Entry(KEYS.traffic_of(WEST), traffic_to_bytes(report), 1, 1)
    assert TrafficReader(KEYS).read([entry]).reports == {WEST: report}


def test_a_stored_report_is_never_larger_than_its_bound() -> None:
    report = report_of(*many(500), gateways=128)
    encoded = traffic_to_bytes(report)
    assert REPORT_BYTES_MAX // 2 < len(encoded) <= REPORT_BYTES_MAX
    read = TrafficReport.model_validate_json(encoded)
    assert len(read.gateways) == 128
    assert read.truncated == 500 - sum(bool(flow.service) for flow in read.flows) > 0
    # No stream is lost from the count of a drain.
    assert sum(flow.open for flow in read.flows) == 500
    assert len(traffic_to_bytes(report, limit=2000)) <= 2000


def test_a_report_that_is_not_where_it_belongs_hides_no_other() -> None:
    good = report_of(cluster=EAST)
    entries = [
        Entry(KEYS.traffic_of(EAST), traffic_to_bytes(good), 1, 1),
        Entry(KEYS.traffic_of(WEST), traffic_to_bytes(good), 1, 1),
        Entry(KEYS.traffic_of(ClusterId("north")), b'{"at": "x"}', 1, 1),
    ]
    reading = TrafficReader(KEYS).read(entries)
    assert reading.reports == {EAST: good}
    first, second = map(str, reading.problems)
    assert first.endswith("the report says it is of cluster east; skipped")
    assert "not a valid TrafficReport: at" in second


@pytest.mark.parametrize(
    ("kind", "target", "service", "left"),
    [
        (DrainTargetKind.CLUSTER, "east", None, 7),
        (DrainTargetKind.REGION, "r-east", None, 7),
        (DrainTargetKind.CLUSTER, "east", ServiceName(namespace="app", name="users"), 5),
        (DrainTargetKind.CLUSTER, "west", None, 0),
        (DrainTargetKind.CLUSTER, "r-east", None, 0),
    ],
)
def test_streams_left_count_what_goes_to_the_drained(
    kind: DrainTargetKind, target: str, service: ServiceName | None, left: int
) -> None:
    to_east: dict[str, Any] = {"to_cluster": EAST, "to_region": Region("r-east")}
    reports = [
        report_of(Flow(service=USERS, open=3, **to_east), Flow(open=2, **to_east)),
        report_of(
            Flow(service=USERS, open=2, **to_east),
            # Drains leave the own Services of a cluster alone.
            Flow(service=USERS, imported=False, open=9, **to_east),
            cluster=EAST,
        ),
    ]
    drain = Drain(name="d", target_kind=kind, target=target, service=service)
    assert streams_left(drain, reports) == left
    assert streams_left(drain, []) is None
