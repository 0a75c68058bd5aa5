"""The metrics' names, kinds and numbers, from the core's counters as it gives them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import Reading, exposition, families
from gateway.metrics.catalogue import CATALOGUE, COUNTED_ELSEWHERE, LABELLED, PLAIN
from gateway.metrics.text import wants_openmetrics
from gateway.status import State, Status

STATS: dict[str, Any] = {
    "numbers": {
        "calls_open": 3,
        "connects": 7,
        "abuse_pings": 2,
        "tries_reset": 2,
        "tls_peer_ok": 4,
    },
    "latency_bounds_ms": [1, 2],
    "rpc": [
        {
            "service": "user.UserService",
            "method": "GetUser",
            "type": "unary",
            "destination_cluster": "us-east-1",
            "destination_region": "us-east",
            "started": 7,
            "msg_received": 7,
            "msg_sent": 6,
            "codes": {"0": 5, "14": 1},
            "latency": [1, 4, 1],
            "latency_us_sum": 9_000,
        }
    ],
    "calls": [
        {
            "route": "app/users/rule-0",
            "cluster": "service/app/users/9090",
            "codes": {"0": 5, "14": 1, "other": 1},
            "latency": [1, 4, 1],
            "latency_us_sum": 9_000,
        }
    ],
    "peer_calls": [{"source_cluster": "us-east-1", "codes": {"1": 2}}],
    "regions": [
        {"region": "us-east", "calls": 6, "request_bytes": 70, "response_bytes": 60},
    ],
    "clusters": [
        {
            "name": "service/app/users/9090",
            "tier": 1,
            "panic": False,
            "pending": 2,
            "drain_streams": 3,
            "ejections": {"consecutive_failures": 1},
            "breakers": {"max_pending": {"opened": 4, "full": True}},
        }
    ],
    "series": {"used": 30, "clusters_left_out": 0},
    "telemetry_homeless": 2,
    "tap": {"dropped": 5},
    "telemetry": [
        {
            "collector": "infra/otel/4317",
            "kind": "traces",
            "items": 9,
            "dropped": 1,
            "queued_bytes": 512,
        },
        {"file": "/dev/stdout", "lines": 8, "dropped": 2, "failing": "no space"},
    ],
    "exports": [
        {
            "collector": "infra/otel/4317",
            "queued_bytes": 64,
            "sent": {"traces": 7},
            "dropped": {"traces": {"unreachable": 1}},
        }
    ],
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

FULL = STATS | {"numbers": dict.fromkeys((*PLAIN, *LABELLED), 1) | STATS["numbers"]}
"""With every plain number, too."""

USERS = (("cluster", "service/app/users/9090"),)
CALL = tuple(
    sorted(
        {
            "grpc_service": "user.UserService",
            "grpc_method": "GetUser",
            "grpc_type": "unary",
            "source_cluster": "us-west-1",
            "source_region": "us-west",
            "destination_cluster": "us-east-1",
            "destination_region": "us-east",
        }.items()
    )
)


def status(**changes: Any) -> Status:
    fields: dict[str, Any] = {
        "name": "gw-1",
        "cluster": "us-west-1",
        "region": "us-west",
        "state": State.IN_SYNC,
        "version": 4,
        "age_s": 1.5,
        "listeners": {},
        "refused": {},
    }
    return Status(**(fields | changes))


def reading(stats: dict[str, Any] | None = None) -> Reading:
    given = STATS if stats is None else stats
    return Reading(given, status(), {"federation/identity": 1.9e9})


def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exposition(families(reading())).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def with_label(labels: tuple[tuple[str, str], ...], **more: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((*labels, *more.items())))


@pytest.mark.parametrize("given", [STATS, {}], ids=["all numbers", "a core without numbers"])
def test_the_exposition_has_exactly_the_families_of_the_catalogue(given: dict[str, Any]) -> None:
    text = exposition(families(reading(given))).decode()
    declared = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert declared == {spec.name: spec.kind for spec in CATALOGUE}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert family.type != "unknown", f"{sample.name} stands under no declared family"


def test_every_family_has_a_sample_with_its_labels_when_the_core_gives_all_numbers() -> None:
    without = [family.spec.name for family in families(reading(FULL)) if not family.points]
    assert without == []


def test_names_and_helps_are_as_prometheus_wants_them() -> None:
    names = [spec.name for spec in CATALOGUE]
    stems = [name.removesuffix("_total") for name in names]
    assert len(set(stems)) == len(stems), "in OpenMetrics a counter's family has no _total"
    for spec in CATALOGUE:
        assert re.fullmatch(r"(grpc_server|federation_gateway)_[a-z0-9_]+", spec.name)
        assert spec.name.endswith("_total") == (spec.kind == "counter"), spec.name
        assert re.fullmatch(r".+\.", spec.help), spec.name
        assert len({*spec.labels, "le"}) == len(spec.labels) + 1, spec.name
        if spec.unit:
            assert spec.name.removesuffix("_total").endswith(f"_{spec.unit}"), spec.name
    assert not set(PLAIN) & (set(LABELLED) | COUNTED_ELSEWHERE)


def test_both_formats_show_the_same_samples() -> None:
    text = exposition(families(reading()), openmetrics=True).decode()
    assert text.endswith("# EOF\n")
    shown = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    assert shown == samples()


def test_openmetrics_is_given_to_those_who_ask_for_it() -> None:
    prometheus = (
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    )
    assert wants_openmetrics(prometheus)
    for accept in ("", "*/*", "text/plain", "application/openmetrics-text;q=0"):
        assert not wants_openmetrics(accept)


def test_calls_have_code_names_buckets_and_both_ends() -> None:
    found = samples()
    assert found["grpc_server_started_total", CALL] == 7
    assert found["grpc_server_handled_total", with_label(CALL, grpc_code="OK")] == 5
    assert found["grpc_server_handled_total", with_label(CALL, grpc_code="Unavailable")] == 1
    assert found["grpc_server_msg_received_total", CALL] == 7
    assert found["grpc_server_msg_sent_total", CALL] == 6
    name = "grpc_server_handling_seconds"
    buckets = [found[f"{name}_bucket", with_label(CALL, le=le)] for le in ("0.001", "0.002")]
    assert buckets == [1, 5]
    assert found[f"{name}_bucket", with_label(CALL, le="+Inf")] == 6
    assert (found[f"{name}_count", CALL], found[f"{name}_sum", CALL]) == (6, 0.009)


def test_rules_peers_and_regions_have_theirs() -> None:
    found = samples()
    rule = (*USERS, ("route", "app/users/rule-0"))
    prefix = "federation_gateway"
    assert found[f"{prefix}_calls_total", with_label(rule, grpc_code="other")] == 1
    assert found[f"{prefix}_call_duration_seconds_count", rule] == 6
    peer = with_label((("source_cluster", "us-east-1"),), grpc_code="Canceled")
    assert found[f"{prefix}_peer_calls_total", peer] == 2
    pair = (("destination_region", "us-east"), ("source_region", "us-west"))
    assert found[f"{prefix}_region_calls_total", pair] == 6
    sent = with_label(pair, direction="response")
    assert found[f"{prefix}_region_bytes_total", sent] == 60


def test_clusters_have_tiers_breakers_and_what_waits() -> None:
    found = samples()
    prefix = "federation_gateway"
    service = (("service", "service/app/users/9090"), ("source_cluster", "us-west-1"))
    assert found[f"{prefix}_active_tier", service] == 1
    assert found[f"{prefix}_panic", service] == 0
    assert found[f"{prefix}_pending", USERS] == 2
    assert found[f"{prefix}_drain_streams", USERS] == 3
    ejected = with_label(USERS, reason="consecutive_failures")
    assert found[f"{prefix}_ejections_total", ejected] == 1
    breaker = with_label(USERS, breaker="max_pending")
    assert found[f"{prefix}_circuit_breaker_open_total", breaker] == 4
    assert found[f"{prefix}_circuit_breaker_full", breaker] == 1


def test_plain_numbers_and_state_carry_no_labels_of_requests() -> None:
    found = samples()
    assert found["federation_gateway_tries_total", (("outcome", "reset"),)] == 2
    handshakes = (("result", "ok"), ("side", "peer"))
    assert found["federation_gateway_tls_handshakes_total", handshakes] == 4
    assert found["federation_gateway_calls_open", ()] == 3
    assert found["federation_gateway_connects_total", ()] == 7
    assert found["federation_gateway_protocol_abuse_total", (("kind", "pings"),)] == 2
    assert found["federation_gateway_state", (("state", "InSync"),)] == 1
    assert found["federation_gateway_state", (("state", "AgentAway"),)] == 0
    assert found["federation_gateway_config_age_seconds", ()] == 1.5
    secret = (("secret", "federation/identity"),)
    assert found["federation_gateway_certificate_expiry_timestamp_seconds", secret] == 1.9e9
    log = (("file", "/dev/stdout"),)
    assert found["federation_gateway_access_log_failing", log] == 1
    assert found["federation_gateway_access_log_dropped_total", log] == 2


def test_rate_limits_have_counters_and_their_share() -> None:
    found = samples()
    limit = (("limit", "app/limits/rule-0"),)
    prefix = "federation_gateway"
    assert found[f"{prefix}_rate_limit_passed_total", limit] == 40
    assert found[f"{prefix}_rate_limited_total", limit] == 2
    assert found[f"{prefix}_rate_limit_shared_key_total", limit] == 1
    assert found[f"{prefix}_rate_limit_share_ratio", limit] == 0.25
    assert found[f"{prefix}_rate_limit_share_age_seconds", limit] == 1.5


def test_label_values_with_quotes_and_line_ends_are_escaped() -> None:
    limit = STATS["rate_limits"][0] | {"name": 'a"b\\c\nd'}
    text = exposition(families(reading(STATS | {"rate_limits": [limit]}))).decode()
    names = {
        sample.labels["limit"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "limit" in sample.labels
    }
    assert names == {'a"b\\c\nd'}


def test_ready_means_a_configuration_and_an_open_port() -> None:
    assert status().ready
    assert status(state=State.SERVING_FROM_SNAPSHOT).ready
    assert status(state=State.AGENT_AWAY, listeners={"a": None, "b": "taken"}).ready
    assert not status(listeners={"b": "taken"}).ready
    assert not status(state=State.STARTING).ready
    assert not status(state=State.DRAINING).ready
