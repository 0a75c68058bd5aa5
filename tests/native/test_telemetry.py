"""Spans, access logs and tapped calls of real calls, read by OpenTelemetry's own messages."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.driver import Driver
from tests.native.certificates import Authority
from tests.native.support import (
    SERVICE,
    backends,
    call,
    channel,
    core,
    endpoints,
    failure,
    listener,
    locality,
    numbers,
    route,
    serve,
    simple,
    table,
    unary,
    update,
    wait_until,
)
from tests.native.test_http1_upstream import HTTP1, scripted
from tests.native.test_tls import WEST, east_side, peer, west_side
from tests.testkit.otlp import CLIENT, ERROR, SERVER, attributes, log_records, spans

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
EVERY = 1_000_000


def tracing(per_million: int = EVERY, **changes: Any) -> dict[str, Any]:
    return {"collector": "otel", "sampling_per_million": per_million} | changes


def told(*logs: dict[str, Any], trace: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"tracing": trace, "access_logs": list(logs)}


def traced(*addresses: str, per_million: int = EVERY, **changes: Any) -> dict[str, Any]:
    telemetry = told(trace=tracing(per_million))
    return simple(*addresses, listeners=[listener(telemetry=telemetry)], **changes)


class Taken:
    """What a core has handed over so far."""

    def __init__(self, *drivers: Driver) -> None:
        self._drivers = drivers
        self._spans: list[Any] = []
        self._logs: list[Any] = []

    def _take(self) -> None:
        for driver in self._drivers:
            for collector, kind, items, message in driver.take_telemetry():
                assert collector == "otel"
                if kind == "traces":
                    found = spans(message)
                    self._spans.extend(found)
                    servers = [it for it in found if it.kind == SERVER]
                    assert len(servers) == items, "a call is one item"
                else:
                    records = log_records(message)
                    assert len(records) == items
                    self._logs.extend(records)

    def spans(self, count: int) -> list[Any]:
        wait_until(lambda: self._take() or len(self._spans) >= count, f"{count} spans")
        assert len(self._spans) == count
        return sorted(self._spans, key=lambda it: it.start_time_unix_nano)

    def logs(self, count: int) -> list[Any]:
        wait_until(lambda: self._take() or len(self._logs) >= count, f"{count} log records")
        assert len(self._logs) == count
        return self._logs


def lines(path: Path, count: int) -> list[str]:
    def there() -> bool:
        return path.exists() and len(path.read_text().splitlines()) >= count

    wait_until(there, f"{count} lines in {path.name}")
    found = path.read_text().splitlines()
    assert len(found) == count
    return found


def state_of(driver: Driver, key: str, name: str) -> dict[str, Any]:
    all_of: list[dict[str, Any]] = driver.stats()["telemetry"]  # type: ignore[assignment]
    return next(it for it in all_of if it.get(key) == name)


# --- traces ---


def test_a_call_is_a_server_span_and_a_client_span() -> None:
    with backends("a") as [a], core(cluster="west") as driver:
        with channel(serve(driver, traced(a.address))) as client:
            call(client)
        server, try_ = Taken(driver).spans(2)
        assert (server.kind, try_.kind) == (SERVER, CLIENT)
        assert server.name == try_.name == f"{SERVICE}/Unary"
        assert server.trace_id == try_.trace_id
        assert server.parent_span_id == b""
        assert try_.parent_span_id == server.span_id
        assert server.start_time_unix_nano <= try_.start_time_unix_nano
        assert try_.end_time_unix_nano <= server.end_time_unix_nano
        assert server.status.code == 0
        of_server, of_try = attributes(server), attributes(try_)
        for each in (of_server, of_try):
            assert each["rpc.system.name"] == "grpc"
            assert each["rpc.method"] == f"{SERVICE}/Unary"
            assert each["rpc.response.status_code"] == "OK"
            assert each["server.address"] == "127.0.0.1"
            assert each["federation.rule"] == "app/echo/rule-0"
            assert each["federation.route"] == "app/echo"
            assert each["federation.destination.cluster"] == "us-west-1"
            assert each["federation.tier"] == 0
            assert "error.type" not in each
        assert of_server["federation.source.cluster"] == "west"
        assert of_server["client.address"] == "127.0.0.1"
        host, port = a.address.split(":")
        assert (of_try["network.peer.address"], of_try["network.peer.port"]) == (host, int(port))
        trace_id, span_id = server.trace_id.hex(), try_.span_id.hex()
        assert a.seen[0]["traceparent"] == f"00-{trace_id}-{span_id}-01"


def test_a_callers_trace_goes_on() -> None:
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, traced(a.address, per_million=0))) as client:
            metadata = (("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2"))
            unary(client)(b"", timeout=10, metadata=metadata)
        server, try_ = Taken(driver).spans(2)
        assert server.trace_id.hex() == try_.trace_id.hex() == PARENT.split("-")[1]
        assert server.parent_span_id.hex() == PARENT.split("-")[2]
        assert server.trace_state == "a=1,b=2"
        assert server.flags == 0x301, "sampled, and the parent is known to be remote"
        assert a.seen[0]["traceparent"] == f"00-{PARENT.split('-')[1]}-{try_.span_id.hex()}-01"
        assert a.seen[0]["tracestate"] == "a=1,b=2"


def test_a_caller_that_does_not_record_decides_too() -> None:
    unsampled = PARENT[:-2] + "00"
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, traced(a.address))) as client:
            unary(client)(b"", timeout=10, metadata=(("traceparent", unsampled),))
            assert a.seen[0]["traceparent"] == unsampled
            call(client)
        assert len(Taken(driver).spans(2)) == 2, "of the second call"


@pytest.mark.parametrize("bad", [PARENT.upper(), "00-0-0-01", PARENT + "-x", ""])
def test_a_context_that_breaks_a_rule_is_as_if_absent(bad: str) -> None:
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, traced(a.address))) as client:
            unary(client)(b"", timeout=10, metadata=(("traceparent", bad), ("tracestate", "a=1")))
        server, _ = Taken(driver).spans(2)
        assert server.parent_span_id == b""
        assert server.trace_id.hex() != PARENT.split("-")[1]
        assert server.trace_state == ""
        assert "tracestate" not in a.seen[0]
        assert numbers(driver)["trace_contexts_refused"] == 1


def test_without_a_policy_the_fields_pass_unchanged() -> None:
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, simple(a.address))) as client:
            unary(client)(b"", timeout=10, metadata=(("traceparent", "nonsense"),))
            call(client)
        assert a.seen[0]["traceparent"] == "nonsense"
        assert "traceparent" not in a.seen[1]
        assert driver.take_telemetry() == []
        assert driver.stats()["telemetry"] == []


def test_a_share_is_recorded_and_the_rest_says_so_to_endpoints() -> None:
    calls = 1_000
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, traced(a.address, per_million=200_000))) as client:
            for _ in range(calls):
                call(client)
        flags = [seen["traceparent"][-2:] for seen in a.seen]
        recorded = flags.count("01")
        assert recorded + flags.count("00") == calls
        assert 120 < recorded < 280, "200 expected; 6 standard deviations"
        assert len(Taken(driver).spans(2 * recorded)) == 2 * recorded
        assert len({seen["traceparent"].split("-")[1] for seen in a.seen}) == calls


def test_a_route_has_its_own_sampling_and_tags() -> None:
    tags = [
        {"name": "env", "literal": "test"},
        {"name": "tenant", "header": "x-tenant"},
        {"name": "zone", "header": "x-zone", "default": "none"},
        {"name": "absent", "header": "x-absent"},
        {"name": "token", "header": "authorization"},
    ]
    own = route("echo", tracing={"sampling_per_million": EVERY, "tags": tags})
    with backends("a") as [a], core() as driver:
        configuration = traced(a.address, per_million=0, route_tables=[table(own)])
        with channel(serve(driver, configuration)) as client:
            metadata = (("x-tenant", "t1"), ("authorization", "Bearer secret"))
            unary(client)(b"", timeout=10, metadata=metadata)
        server, try_ = Taken(driver).spans(2)
        found = attributes(server)
        assert (found["env"], found["tenant"], found["zone"]) == ("test", "t1", "none")
        assert found["token"] == "[redacted]"
        assert "absent" not in found
        assert "env" not in attributes(try_)


def test_each_try_is_a_span_with_its_number_and_reason() -> None:
    retry = {"on": ["unavailable"], "attempts": 2, "base_ms": 1, "max_ms": 1}
    with backends("a") as [a], core() as driver:
        a.fail = grpc.StatusCode.UNAVAILABLE
        configuration = traced(a.address, route_tables=[table(route("echo", retry=retry))])
        with channel(serve(driver, configuration)) as client:
            assert failure(client).code() is grpc.StatusCode.UNAVAILABLE
        server, *tries = Taken(driver).spans(4)
        assert [attributes(it).get("federation.retry.number") for it in tries] == [None, 1, 2]
        reasons = [attributes(it).get("federation.retry.reason") for it in tries]
        assert reasons == [None, "UNAVAILABLE", "UNAVAILABLE"]
        for it in (server, *tries):
            assert it.status.code == ERROR
            assert attributes(it)["error.type"] == "UNAVAILABLE"
        assert [it.name for it in server.events] == ["federation.retry"] * 2
        assert attributes(server)["federation.tries"] == 3
        assert attributes(server)["federation.answered_by"] == "application"
        seen = [it["traceparent"].split("-")[2] for it in a.seen]
        assert seen == [it.span_id.hex() for it in tries], "each try passes its own span on"


def test_names_that_clients_make_up_name_no_span() -> None:
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, traced(a.address))) as client:
            error = failure(client, "MadeUp")
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        server, try_ = Taken(driver).spans(2)
        assert server.name == try_.name == "app/echo/rule-0"
        found = attributes(server)
        assert found["rpc.method"] == "_OTHER"
        assert found["rpc.method_original"] == f"{SERVICE}/MadeUp"


def test_a_response_that_breaks_off_is_an_error_of_both_spans() -> None:
    """Its status was good, and the client has seen it."""

    def halved(listener: socket.socket) -> None:
        taken, _ = listener.accept()
        with taken:
            taken.recv(65536)
            taken.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    with scripted(halved) as address, core() as driver:
        configuration = traced(
            address, clusters=HTTP1["clusters"], route_tables=HTTP1["route_tables"]
        )
        client = http.client.HTTPConnection(serve(driver, configuration), timeout=10)
        with contextlib.closing(client):
            client.request("GET", "/page", headers={"host": "example.com"})
            answer = client.getresponse()
            assert answer.status == 200
            with pytest.raises(http.client.IncompleteRead):
                answer.read()
        server, try_ = Taken(driver).spans(2)
        for span in (server, try_):
            assert (span.status.code, span.status.message) == (ERROR, "reset")
            assert attributes(span)["error.type"] == "UNAVAILABLE"
        assert attributes(server)["http.response.status_code"] == 200


def test_calls_that_reach_no_cluster_have_a_span() -> None:
    other = route("echo", match={"path": {"exact": "/a.B/C"}})
    with backends("a") as [a], core() as driver:
        configuration = traced(a.address, route_tables=[table(other)])
        with channel(serve(driver, configuration)) as client:
            failure(client)
        [server] = Taken(driver).spans(1)
        assert server.name == "unrouted"
        assert server.status.message == "no_route"
        assert attributes(server)["federation.reason"] == "no_route"
        assert attributes(server)["federation.answered_by"] == "gateway"


def test_a_call_over_two_gateways_is_one_trace() -> None:
    ca = Authority()
    with backends("a") as [a], core(cluster="us-east-1") as east, core(cluster="w") as west:
        places = locality(a.address, cluster_id="us-east-1")
        east_config = east_side(ca, None, [WEST], endpoints=[endpoints(places)])
        for each in east_config["listeners"]:
            each["telemetry"] = told({"sink": {"otlp": "otel"}, "format": "json"}, trace=tracing(0))
        west_config = west_side(ca, peer(serve(east, east_config)))
        for each in west_config["listeners"]:
            each["telemetry"] = told(trace=tracing())
        with channel(serve(west, west_config)) as client:
            call(client)
        taken = Taken(west, east)
        by_id = {it.span_id: it for it in taken.spans(4)}
        assert len({it.trace_id for it in by_id.values()}) == 1
        [leaf] = [it for it in by_id.values() if it.span_id.hex() in a.seen[0]["traceparent"]]
        chain = [leaf]
        while chain[-1].parent_span_id:
            chain.append(by_id[chain[-1].parent_span_id])
        kinds = [it.kind for it in chain]
        assert kinds == [CLIENT, SERVER, CLIENT, SERVER]
        assert attributes(chain[2])["federation.destination.cluster"] == "us-east-1"
        assert attributes(chain[1])["federation.source.cluster"] == "us-west-1"
        [line] = taken.logs(1)
        assert attributes(line)["source_cluster"] == "us-west-1", "by its certificate"
        assert line.trace_id == leaf.trace_id


def test_what_a_peers_gateway_answers_is_told_apart() -> None:
    ca = Authority()
    with core() as east, core() as west:
        nobody = east_side(ca, None, [WEST], endpoints=[endpoints()])
        west_config = west_side(ca, peer(serve(east, nobody)))
        for each in west_config["listeners"]:
            each["telemetry"] = told({"sink": {"otlp": "otel"}, "format": "json"})
        with channel(serve(west, west_config)) as client:
            failure(client)
        found = attributes(Taken(west).logs(1)[0])
        assert found["answered_by"] == "peer_gateway"
        assert (found["reason"], found["response_flag"]) == ("no_endpoints", "NE")


# --- access logs ---


def logged(path: Path | str, *addresses: str, **changes: Any) -> dict[str, Any]:
    log = {"sink": {"file": str(path)}, "format": "json"} | changes.pop("log", {})
    return simple(*addresses, listeners=[listener(telemetry=told(log))], **changes)


def test_a_line_tells_everything_by_default(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with backends("a") as [a], core(cluster="west", region="us-west") as driver:
        with channel(serve(driver, logged(path, a.address))) as client:
            unary(client)(b"hello", timeout=10, metadata=(("x-a", "b"),))
        line = json.loads(lines(path, 1)[0])
        assert list(line) == [word.lower() for word in default_fields()]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["start_time"])
        expected = {
            "trace_id": "",
            "listener": "public",
            "route": "app/echo",
            "rule": "app/echo/rule-0",
            "protocol": "grpc",
            "method": f"/{SERVICE}/Unary",
            "source_cluster": "west",
            "source_region": "us-west",
            "destination_cluster": "us-west-1",
            "destination_region": "us-west",
            "tier": 0,
            "endpoint": a.address,
            "tries": 1,
            "bytes_received": 10,
            "bytes_sent": 10,
            "messages_received": 1,
            "messages_sent": 1,
            "grpc_status": "OK",
            "http_status": 200,
            "answered_by": "application",
            "response_flag": "-",
            "reason": "",
            "peer": "127.0.0.1",
        }
        assert {key: line[key] for key in expected} == expected
        assert line["user_agent"].startswith("grpc-python")
        assert 0 < line["queue_us"] < line["queue_us"] + line["upstream_us"] <= line["duration_us"]
        wait_until(lambda: state_of(driver, "file", str(path))["lines"] == 1, "it is counted")


def default_fields() -> list[str]:
    source = Path(__file__).parents[2] / "gateway" / "core" / "src" / "access.rs"
    rows = re.findall(
        r'^\s+\w+\s+"([A-Z_]+)"\s+"\w+"\s+(true|false)\s', source.read_text(), re.MULTILINE
    )
    assert len(rows) > 30
    return [word for word, default in rows if default == "true"]


def test_streams_count_messages_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, logged(path, a.address))) as client:
            sent = [b"x" * size for size in (0, 1, 70_000, 5)]
            answers = client.stream_stream(f"/{SERVICE}/Bidi")(iter(sent), timeout=10)
            assert list(answers) == sent
        line = json.loads(lines(path, 1)[0])
        whole = sum(len(it) + 5 for it in sent)
        assert (line["messages_received"], line["messages_sent"]) == (4, 4)
        assert (line["bytes_received"], line["bytes_sent"]) == (whole, whole)


def test_chosen_fields_and_texts(tmp_path: Path) -> None:
    chosen, text = tmp_path / "chosen", tmp_path / "text"
    logs = [
        {
            "sink": {"file": str(chosen)},
            "format": {
                "json": [["to", "%DESTINATION_CLUSTER%"], ["n", "%TRIES%"], ["t", "%TRIES%x"]]
            },
        },
        {
            "sink": {"file": str(text)},
            "format": {
                "text": "100%% %GRPC_STATUS% %REQ(X-Tenant)% %REQ(x-none)% "
                "%REQ(authorization)% %REASON%"
            },
        },
    ]
    with backends("a") as [a], core() as driver:
        configuration = simple(a.address, listeners=[listener(telemetry=told(*logs))])
        with channel(serve(driver, configuration)) as client:
            metadata = (("x-tenant", "t1"), ("authorization", "Bearer secret"))
            unary(client)(b"", timeout=10, metadata=metadata)
        assert json.loads(lines(chosen, 1)[0]) == {"to": "us-west-1", "n": 1, "t": "1x"}
        assert lines(text, 1) == ["100% OK t1 - [redacted] -"]


def test_log_records_carry_fields_as_attributes_or_a_text() -> None:
    logs = [
        {"sink": {"otlp": "otel"}, "format": {"json": [["n", "%TRIES%"], ["s", "%GRPC_STATUS%"]]}},
        {"sink": {"otlp": "otel"}, "format": {"text": "%METHOD%"}},
    ]
    with backends("a") as [a], core() as driver:
        configuration = simple(a.address, listeners=[listener(telemetry=told(*logs))])
        with channel(serve(driver, configuration)) as client:
            call(client)
        first, second = Taken(driver).logs(2)
        assert attributes(first) == {"n": 1, "s": "OK"}
        assert (first.severity_text, first.event_name) == ("INFO", "federation.call")
        assert second.body.string_value == f"/{SERVICE}/Unary"
        assert attributes(second) == {}


def test_a_log_for_a_rule_takes_the_place_of_that_for_all(tmp_path: Path) -> None:
    everything, own = tmp_path / "all", tmp_path / "own"
    logs = [
        {"sink": {"file": str(everything)}, "format": {"text": "%RULE%"}},
        {"sink": {"file": str(own)}, "format": {"text": "%RULE%"}, "routes": ["app/own/rule-0"]},
    ]
    special = {"path": {"prefix": "/"}, "headers": [{"name": "x-own", "present": True}]}
    routes = [route("echo", name="app/own/rule-0", match=special), route("echo")]
    with backends("a") as [a], core() as driver:
        listeners = [listener(telemetry=told(*logs))]
        configuration = simple(a.address, listeners=listeners, route_tables=[table(*routes)])
        with channel(serve(driver, configuration)) as client:
            call(client, metadata=(("x-own", "1"),))
            call(client)
    assert own.read_text().split() == ["app/own/rule-0"]
    assert everything.read_text().split() == ["app/echo/rule-0"]


def test_who_made_the_status_has_a_flag_and_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "log"
    limited = {"name": "l", "requests": 1, "unit": "day"}

    def only_with(header: str) -> dict[str, Any]:
        headers = [{"name": header, "present": True}]
        return {"path": {"prefix": f"/{SERVICE}/"}, "headers": headers}

    refusal = {"reply": {"grpc_status": 7, "message": "no"}}
    routes = [
        route("echo", name="r/limited", match=only_with("x-l"), rate_limits=[limited]),
        route(name="r/reply", match=only_with("x-r"), action=refusal),
        route("echo", name="r/slow", match=only_with("x-s"), timeout_ms=50),
        route("echo", match={"path": {"prefix": f"/{SERVICE}/"}}),
    ]
    with backends("a") as [a], core() as driver:
        configuration = logged(path, a.address, route_tables=[table(*routes, host="a.example")])
        options = [("grpc.default_authority", "a.example")]
        with channel(serve(driver, configuration), options=options) as client:
            call(client, metadata=(("x-l", "1"),))
            failure(client, metadata=(("x-l", "1"),))
            failure(client, metadata=(("x-r", "1"),))
            failure(client, "Hang", metadata=(("x-s", "1"),))
            hanging = unary(client, "Hang").future(b"", timeout=30)
            wait_until(lambda: len(a.seen) == 3, "it is on its way")
            hanging.cancel()
            a.fail = grpc.StatusCode.NOT_FOUND
            failure(client)
        found = [json.loads(line) for line in lines(path, 6)]
        table_of = [
            (it["grpc_status"], it["answered_by"], it["response_flag"], it["reason"])
            for it in found
        ]
        assert table_of == [
            ("OK", "application", "-", ""),
            ("RESOURCE_EXHAUSTED", "gateway", "RL", "rate_limit"),
            ("PERMISSION_DENIED", "gateway", "RR", "route_reply"),
            ("DEADLINE_EXCEEDED", "gateway", "UT", "deadline"),
            ("CANCELLED", "gateway", "DC", "cancelled"),
            ("NOT_FOUND", "application", "-", ""),
        ]
        with channel(
            serve(driver, configuration), options=[("grpc.default_authority", "b")]
        ) as client:
            failure(client)
        last = json.loads(lines(path, 7)[-1])
        assert (last["rule"], last["response_flag"], last["tries"]) == ("", "NR", 0)


def test_an_endpoint_that_is_away_has_its_flag(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with backends("a") as [a]:
        gone = a.address
    with core() as driver:
        with channel(serve(driver, logged(path, gone))) as client:
            failure(client)
        line = json.loads(lines(path, 1)[0])
        assert (line["response_flag"], line["endpoint"]) == ("UF", gone)


def test_a_full_disk_stops_the_log_and_not_traffic(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, logged(path, a.address))) as client:
            call(client)
            wait_until(lambda: state_of(driver, "file", str(path))["failing"], "it fails")
            assert "No space left" in state_of(driver, "file", str(path))["failing"]
            for _ in range(50):
                call(client)
            path.unlink()
            path.touch()
            driver.reopen_logs()
            lines(path, 51)
        state = state_of(driver, "file", str(path))
        assert (state["failing"], state["dropped"]) == (None, 0)


def test_lines_beyond_the_bound_are_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "no" / "log"
    text = {"format": {"text": "%REQ(x-long)%" * 60}}
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, logged(path, a.address, log=text))) as client:
            for _ in range(120):
                call(client, metadata=(("x-long", "x" * 1_000),))
            wait_until(lambda: state_of(driver, "file", str(path))["dropped"] > 20, "some go")
            assert "cannot open" in state_of(driver, "file", str(path))["failing"]
            path.parent.mkdir()
            wait_until(lambda: state_of(driver, "file", str(path))["failing"] is None, "it goes on")
        wait_until(
            lambda: (
                sum(state_of(driver, "file", str(path))[it] for it in ("lines", "dropped")) == 120
            ),
            "each call is a line or counted",
        )
        found = path.read_text().splitlines()
        assert {len(it) for it in found} == {60_000}, "lines are whole"


def test_a_file_that_was_moved_is_opened_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, logged(path, a.address))) as client:
            call(client)
            lines(path, 1)
            path.rename(moved)
            call(client)
            lines(moved, 2)
            driver.reopen_logs()
            call(client)
            lines(path, 1)
            lines(moved, 2)
        assert path.stat().st_mode & 0o777 == 0o640 & ~umask()


def test_a_file_that_no_policy_names_any_more_is_closed(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "other"

    def is_open(file: Path) -> bool:
        held = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed by another thread
                held.append(descriptor.readlink())
        return file in held

    with backends("a") as [a], core() as driver:
        with channel(serve(driver, logged(path, a.address))) as client:
            call(client)
            lines(path, 1)
            assert is_open(path)
        with channel(serve(driver, logged(other, a.address, version="2"))) as client:
            call(client)
            lines(other, 1)
            wait_until(lambda: not is_open(path), "it is closed")
            assert is_open(other)


def umask() -> int:
    present = os.umask(0o022)
    os.umask(present)
    return present


def test_lines_are_written_before_the_core_ends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with (
        backends("a") as [a],
        core() as driver,
        channel(serve(driver, logged(path, a.address))) as client,
    ):
        for _ in range(5):
            call(client)
    assert len(path.read_text().splitlines()) == 5


def test_nobody_taking_costs_bounded_memory() -> None:
    text = {
        "sink": {"otlp": "otel"},
        "format": {"json": [[f"k{n}", "%REQ(x-long)%x"] for n in range(60)]},
    }
    with backends("a") as [a], core() as driver:
        configuration = simple(a.address, listeners=[listener(telemetry=told(text))])
        with channel(serve(driver, configuration)) as client:
            for _ in range(120):
                call(client, metadata=(("x-long", "x" * 1_000),))
        wait_until(lambda: state_of(driver, "kind", "logs")["dropped"] > 20, "some go")
        state = state_of(driver, "kind", "logs")
        assert state["queued_bytes"] <= 4 << 20
        taken = sum(items for _, _, items, _ in driver.take_telemetry(1 << 30))
        assert taken + state_of(driver, "kind", "logs")["dropped"] <= 120
        # Taking in parts: one batch at least, and what fits.
        assert driver.take_telemetry(1) == []
        assert update()["full"], "a new configuration forgets what it does not name"
        driver.apply(simple(a.address))
        assert driver.stats()["telemetry"] == []


# --- tap ---


@contextlib.contextmanager
def tapped(tap: dict[str, Any]) -> Iterator[tuple[Driver, grpc.Channel, Any]]:
    with (
        backends("a") as [a],
        core() as driver,
        channel(serve(driver, simple(a.address))) as client,
    ):
        driver.set_tap(tap)
        yield driver, client, a


def test_a_tap_shows_calls_that_fit() -> None:
    with tapped({"code": "not_found", "method": f"{SERVICE}/Unary"}) as (driver, client, a):
        call(client)
        failure(client, "MadeUp")
        a.fail = grpc.StatusCode.NOT_FOUND
        failure(client, metadata=(("authorization", "Bearer secret"),))
        shown: list[dict[str, Any]] = []
        wait_until(lambda: shown.extend(driver.take_tap()) or shown, "it is shown")
        [line] = shown
        assert (line["grpc_status"], line["sampled_per_million"]) == ("NOT_FOUND", EVERY)
        assert line["endpoint"] == a.address
        assert "secret" not in json.dumps(line)
        driver.set_tap(None)
        failure(client)
        assert driver.take_tap() == []


def test_a_tap_shows_no_more_than_it_may() -> None:
    with tapped({"calls_per_s_max": 5, "to_cluster": "us-west-1"}) as (driver, client, _):
        for _ in range(200):
            call(client)
        shown = driver.take_tap()
        # Seconds may turn while the calls are made.
        assert 5 <= len(shown) <= 100
        driver.set_tap({"to_cluster": "elsewhere"})
        call(client)
        assert driver.take_tap() == []


def test_taps_that_are_none_are_refused() -> None:
    with core() as driver:
        for wrong in ({"x": 1}, {"calls_per_s_max": 0}, {"header": ["cookie", "a"]}, {"code": "X"}):
            with pytest.raises(ValueError, match=r"tap|must"):
                driver.set_tap(wrong)


def test_a_tap_does_not_show_what_the_one_before_has_drawn() -> None:
    with tapped({}) as (driver, client, _):
        asked = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b"one"
            asked.wait(20)

        answers = client.stream_stream(f"/{SERVICE}/Bidi")(requests(), timeout=20)
        next(answers)
        driver.set_tap({"route": "app/echo"})
        call(client)
        shown: list[dict[str, Any]] = []
        wait_until(lambda: shown.extend(driver.take_tap()) or shown, "the tap is on")
        asked.set()
        assert list(answers) == []
        call(client)
        wait_until(
            lambda: shown.extend(driver.take_tap()) or len(shown) > 1, "the next one is shown"
        )
        assert {it["method"] for it in shown} == {f"/{SERVICE}/Unary"}
