"""The metrics' names, kinds and numbers, from the core's counters as it gives them."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import GatewayCollector, exposition
from gateway.status import State, Status

STATS: dict[str, Any] = {
    "numbers": {"calls_open": 3, "retries": 7},
    "calls": [
        {
            "route": "app/users/rule-0",
            "cluster": "service/app/users/9090",
            "codes": {"0": 5, "14": 1},
            "latency": [1, 4, 1],
            "latency_us_sum": 9_000,
        }
    ],
    "answered": {"us-west-1": 6},
    "latency_bounds_ms": [1, 2],
    "rate_limits": [
        {
            "name": "app/limits/rule-0",
            "global": True,
            "passed": 40,
            "refused": 2,
            "shared_key": 1,
            "share_per_million": 250_000,
            "share_age_ms": 1_500,
        }
    ],
}


def status(**changes: Any) -> Status:
    fields: dict[str, Any] = {
        "name": "gw-1",
        "cluster": "us-west-1",
        "state": State.IN_SYNC,
        "version": 4,
        "age_s": 1.5,
        "listeners": {},
        "refused": {},
    }
    return Status(**(fields | changes))


def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exposition(GatewayCollector(lambda: STATS, status)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_gauges_and_histograms_carry_the_cores_numbers() -> None:
    found = samples()
    call = (("cluster", "service/app/users/9090"), ("route", "app/users/rule-0"))
    assert found["federation_gateway_calls_open", ()] == 3
    assert found["federation_gateway_retries_total", ()] == 7
    assert found["federation_gateway_answered_total", (("cluster_id", "us-west-1"),)] == 6
    code = tuple(sorted((*call, ("grpc_code", "14"))))
    assert found["federation_gateway_calls_total", code] == 1
    duration = "federation_gateway_call_duration_seconds"
    assert [
        found[f"{duration}_bucket", tuple(sorted((*call, ("le", bound))))]
        for bound in ("0.001", "0.002", "+Inf")
    ] == [1, 5, 6]
    assert found[f"{duration}_count", call] == 6
    assert found[f"{duration}_sum", call] == 0.009
    assert found["federation_gateway_state", (("state", "InSync"),)] == 1
    assert found["federation_gateway_state", (("state", "AgentAway"),)] == 0
    assert found["federation_gateway_config_age_seconds", ()] == 1.5


def test_rate_limits_have_counters_and_their_share() -> None:
    found = samples()
    limit = (("limit", "app/limits/rule-0"),)
    prefix = "federation_gateway_rate_limit"
    assert found[f"{prefix}_passed_total", limit] == 40
    assert found[f"{prefix}_refused_total", limit] == 2
    assert found[f"{prefix}_shared_key_total", limit] == 1
    assert found[f"{prefix}_share_ratio", limit] == 0.25
    assert found[f"{prefix}_share_age_seconds", limit] == 1.5


def test_ready_means_a_configuration_and_an_open_port() -> None:
    assert status().ready
    assert status(state=State.SERVING_FROM_SNAPSHOT).ready
    assert status(state=State.AGENT_AWAY, listeners={"a": None, "b": "taken"}).ready
    assert not status(listeners={"b": "taken"}).ready
    assert not status(state=State.STARTING).ready
    assert not status(state=State.DRAINING).ready
