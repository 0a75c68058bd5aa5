"""Adding up traffic: any order, any split, and bounds that hold."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.derive.traffic import aggregate, bounded
from federation.model.base import ClusterId, Region
from federation.model.load import FlowKey, FlowLoad, GatewayLoad
from federation.model.traffic_report import (
    FLOWS_MAX,
    GATEWAYS_MAX,
    REPORT_BYTES_MAX,
    Flow,
    GatewayTraffic,
    TrafficReport,
)
from federation.wire.etcd_traffic import traffic_to_bytes

WEST, REGION = ClusterId("west"), Region("us-west")
CLUSTERS = [ClusterId(name) for name in ("west", "east", "")]

keys = st.builds(
    FlowKey,
    service=st.sampled_from(["app/users", "app/orders", ""]),
    imported=st.booleans(),
    to_cluster=st.sampled_from(CLUSTERS),
    to_region=st.just(REGION),
    tier=st.integers(0, 2),
)
counts = st.integers(0, 10_000)
flow_loads = st.builds(
    FlowLoad,
    succeeded=counts,
    failed=counts,
    open=counts,
    latencies=st.dictionaries(st.sampled_from([0.1, 1.0, 50.0, 60_000.0]), counts),
)
loads = st.builds(
    GatewayLoad,
    gateway=st.sampled_from([GatewayTraffic(name=name) for name in "abc"]),
    interval_ms=st.integers(1, 60_000),
    flows=st.dictionaries(keys, flow_loads, max_size=5),
)


def added_up(found: list[GatewayLoad]) -> TrafficReport:
    return aggregate(found, cluster=WEST, region=REGION, at=0.0)


def split(load: GatewayLoad, rng: random.Random) -> tuple[GatewayLoad, GatewayLoad]:
    """Two loads of the same interval that together are ``load``."""
    parts: tuple[dict[FlowKey, FlowLoad], dict[FlowKey, FlowLoad]] = ({}, {})
    for key, flow in load.flows.items():
        first = FlowLoad(
            rng.randint(0, flow.succeeded),
            rng.randint(0, flow.failed),
            rng.randint(0, flow.open),
            {bound: rng.randint(0, count) for bound, count in flow.latencies.items()},
        )
        parts[0][key] = first
        parts[1][key] = FlowLoad(
            flow.succeeded - first.succeeded,
            flow.failed - first.failed,
            flow.open - first.open,
            {bound: count - first.latencies[bound] for bound, count in flow.latencies.items()},
        )
    return (
        GatewayLoad(load.gateway, load.interval_ms, parts[0]),
        GatewayLoad(load.gateway, load.interval_ms, parts[1]),
    )


@given(st.lists(loads, max_size=6), st.randoms(use_true_random=False))
def test_any_split_in_any_order_adds_up_to_the_same(
    found: list[GatewayLoad], rng: random.Random
) -> None:
    parts = [part for load in found for part in split(load, rng)]
    rng.shuffle(parts)
    assert added_up(parts) == added_up(found)


@given(st.lists(loads, max_size=6))
def test_nothing_is_lost_and_nothing_is_invented(found: list[GatewayLoad]) -> None:
    report = added_up(found)
    assert sum(flow.open for flow in report.flows) == sum(
        flow.open for load in found for flow in load.flows.values()
    )
    for flow in report.flows:
        assert 0 <= flow.errors_per_s <= flow.calls_per_s
        assert (flow.p50_ms is None) == (flow.p99_ms is None)
        assert (flow.p50_ms or 0) <= (flow.p99_ms or 0)
        assert flow.calls_per_s or flow.open


names = st.text("abcdefgh-", min_size=1, max_size=63)
flows = st.builds(
    Flow,
    service=st.builds("{}/{}".format, names, names),
    to_cluster=st.sampled_from(CLUSTERS),
    to_region=st.just(REGION),
    calls_per_s=st.integers(0, 10**9).map(lambda count: count / 100),
    errors_per_s=st.integers(0, 10**9).map(lambda count: count / 100),
    open=st.integers(0, 10**6),
)


@settings(max_examples=30)
@given(
    st.lists(flows, max_size=8),
    st.integers(1, 80),
    st.integers(0, 300),
    st.integers(0, 2 * FLOWS_MAX),
)
def test_bounds_hold_and_what_is_not_named_is_added_up(
    some: list[Flow], times: int, gateways: int, flows_max: int
) -> None:
    report = TrafficReport(
        at=0.0,
        cluster=WEST,
        region=REGION,
        gateways=tuple(GatewayTraffic(name=str(number)) for number in range(gateways)),
        flows=tuple(some * times),
    )
    found = bounded(report, flows_max=flows_max)
    assert sum(bool(flow.service) for flow in found.flows) <= flows_max
    assert len(found.gateways) <= GATEWAYS_MAX
    assert found.truncated == len(report.flows) - sum(bool(f.service) for f in found.flows)
    assert _by_cluster(found) == _by_cluster(report)
    encoded = traffic_to_bytes(report)
    assert len(encoded) <= REPORT_BYTES_MAX
    assert _by_cluster(TrafficReport.model_validate_json(encoded)) == _by_cluster(report)


def _by_cluster(report: TrafficReport) -> Counter[tuple[ClusterId, str]]:
    """Hundredths of calls a second and open calls, by where they go."""
    sums: Counter[tuple[ClusterId, str]] = Counter()
    for flow in report.flows:
        sums[flow.to_cluster, "calls"] += round(flow.calls_per_s * 100)
        sums[flow.to_cluster, "errors"] += round(flow.errors_per_s * 100)
        sums[flow.to_cluster, "open"] += flow.open
    return sums
