"""Metrics of a real core: each is moved by what it names, and stands in the catalogue."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.driver import Driver
from gateway.metrics import Reading, exposition, families
from gateway.metrics.catalogue import COUNTED_ELSEWHERE, LABELLED, PLAIN
from gateway.metrics.samples import CODE_NAMES
from gateway.status import State, Status
from tests.native.certificates import Authority
from tests.native.support import (
    DEADLINE_S,
    SERVICE,
    Backend,
    backends,
    call,
    channel,
    cluster,
    core,
    endpoints,
    failure,
    locality,
    numbers,
    route,
    serve,
    simple,
    table,
    unary,
    wait_until,
)
from tests.native.test_drain import OpenStream
from tests.native.test_tls import SOUTH, WEST, east_side, named, peer, terminating, west_side
from tests.testkit.ports import free_port

Labels = dict[str, str]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

HERE = {"source_cluster": "us-west-1", "source_region": "us-west"}
LOCAL = {"destination_cluster": "us-west-1", "destination_region": "us-west"}
NOWHERE = {"destination_cluster": "none", "destination_region": "none"}
ECHO = {"service": "echo", "source_cluster": "us-west-1"}
OWN = "federation_gateway_"


def text(driver: Driver) -> str:
    """A scrape of a gateway around this core."""
    status = Status("gw-1", "us-west-1", State.IN_SYNC, 1, 0.5, {}, {}, region="us-west")
    return exposition(families(Reading(driver.stats(), status, {}))).decode()


def scrape(driver: Driver) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text(driver))
        for sample in family.samples
    }


def value(driver: Driver, name: str, **labels: str) -> float:
    """The sum of the samples of ``name`` with these labels among theirs."""
    asked = labels.items()
    found = [v for (n, have), v in scrape(driver).items() if n == name and asked <= have]
    return sum(found)


def method(name: str, kind: str = "unknown") -> Labels:
    return {"grpc_service": SERVICE, "grpc_method": name, "grpc_type": kind}


def routed(*backends_: Backend, **changes: Any) -> dict[str, Any]:
    """One route that names ``test.Echo/Unary``, and one for the rest of the service."""
    names = {"exact": f"/{SERVICE}/Unary"}, {"prefix": f"/{SERVICE}/"}
    routes = [
        route("echo", name=f"app/echo/rule-{at}", match={"path": path})
        for at, path in enumerate(names)
    ]
    return simple(*(it.address for it in backends_), route_tables=[table(*routes)]) | changes


def answers(client: grpc.Channel, name: str) -> grpc.StatusCode:
    """How a call of any method of ``test.Echo`` ends."""
    try:
        unary(client, name)(b"hi", timeout=DEADLINE_S)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


# --- calls ---


def test_every_number_of_the_core_is_declared() -> None:
    with core() as driver:
        declared = {*PLAIN, *LABELLED, *COUNTED_ELSEWHERE}
        assert declared - set(numbers(driver)) == {"reflection_left_out"}
        assert set(numbers(driver)) - declared == set()


def test_calls_count_by_method_code_and_place() -> None:
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, routed(a))) as client:
            for _ in range(3):
                call(client)
            assert failure(client, metadata=(("x-fail-at", "a"),)).code().name == "UNAVAILABLE"
            assert answers(client, "Nobody").name == "UNIMPLEMENTED"
        labels = method("Unary") | HERE | LOCAL
        assert value(driver, "grpc_server_started_total", **labels) == 4
        handled = "grpc_server_handled_total"
        assert value(driver, handled, grpc_code="OK", **labels) == 3
        assert value(driver, handled, grpc_code="Unavailable", **labels) == 1
        assert value(driver, "grpc_server_handling_seconds_count", **labels) == 4
        assert value(driver, "grpc_server_handling_seconds_sum", **labels) > 0
        assert value(driver, "grpc_server_handling_seconds_bucket", le="+Inf", **labels) == 4
        assert value(driver, "grpc_server_msg_received_total", **labels) == 4
        assert value(driver, "grpc_server_msg_sent_total", **labels) == 3
        other = method("other") | HERE | LOCAL
        assert value(driver, handled, grpc_code="Unimplemented", **other) == 1
        pair = {"source_region": "us-west", "destination_region": "us-west"}
        assert value(driver, f"{OWN}region_calls_total", **pair) == 5
        received = value(driver, f"{OWN}region_bytes_total", direction="request", **pair)
        assert received == 5 * 7, "five bytes of framing and two of text"
        sent = value(driver, f"{OWN}region_bytes_total", direction="response", **pair)
        assert sent == 3 * 7
        rule = {"route": "app/echo/rule-0", "cluster": "echo"}
        assert value(driver, f"{OWN}calls_total", grpc_code="OK", **rule) == 3
        assert value(driver, f"{OWN}call_duration_seconds_count", **rule) == 4


def test_messages_of_a_stream_count_while_it_is_open() -> None:
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, routed(a))) as client:
            stream = OpenStream(client)
            for size in (1, 20_000, 0):
                stream.echo(b"x" * size)
            labels = method("other") | LOCAL
            assert value(driver, "grpc_server_started_total", **labels) == 1
            assert value(driver, "grpc_server_msg_received_total", **labels) == 3
            assert value(driver, "grpc_server_msg_sent_total", **labels) == 3
            sent = value(driver, f"{OWN}region_bytes_total", direction="response")
            assert sent == 20_001 + 3 * 5
            assert value(driver, "grpc_server_handled_total") == 0
            stream.finish()
        wait_until(lambda: value(driver, "grpc_server_handled_total") == 1, "it is counted")


def test_what_the_gateway_answers_itself_goes_nowhere() -> None:
    limit = {"name": "app/limit", "requests": 1, "unit": "day"}
    path = {"path": {"prefix": f"/{SERVICE}/"}}
    limited = table(route("echo", match=path, rate_limits=[limit]))
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, simple(a.address, route_tables=[limited]))) as client:
            call(client)
            assert failure(client).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            made_up: grpc.UnaryUnaryMultiCallable[bytes, bytes] = client.unary_unary("/made.Up/X")
            with contextlib.suppress(grpc.RpcError):
                made_up(b"", timeout=DEADLINE_S)
        handled = "grpc_server_handled_total"
        service = {"grpc_service": SERVICE, **NOWHERE}
        assert value(driver, handled, grpc_code="ResourceExhausted", **service) == 1
        unknown = {"grpc_service": "other", "grpc_method": "other", **NOWHERE}
        assert value(driver, handled, grpc_code="Unimplemented", **unknown) == 1
        assert value(driver, "grpc_server_started_total", **unknown) == 1
        assert value(driver, f"{OWN}rate_limited_total", limit="app/limit") == 1
        assert value(driver, f"{OWN}rate_limit_passed_total", limit="app/limit") == 1
        assert value(driver, f"{OWN}local_replies_total") == 2


def test_reflected_methods_have_names_and_types() -> None:
    with backends("a") as [a], core() as driver:
        driver.set_known_methods([{"service": SERVICE, "method": "Bidi", "type": "bidi_stream"}])
        with channel(serve(driver, simple(a.address))) as client:
            stream = OpenStream(client)
            stream.echo(b"1")
            driver.set_known_methods([{"service": SERVICE, "method": "Unary", "type": "unary"}])
            stream.echo(b"2")
            stream.finish()
            call(client)
        assert value(driver, "grpc_server_handled_total", **method("Unary", "unary")) == 1
        assert value(driver, "grpc_server_handled_total", **method("Bidi", "bidi_stream")) == 0, (
            "nobody knows it any more"
        )
        with pytest.raises(ValueError, match="known methods: unknown variant `odd`"):
            driver.set_known_methods([{"service": "a", "method": "b", "type": "odd"}])


# --- tries, bounds, places: one row each ---


def retrying(a: Backend, b: Backend, **retry: Any) -> dict[str, Any]:
    asked = {"on": ["unavailable", "connect-failure"], "attempts": 1, "base_ms": 1} | retry
    clusters = [cluster(lb="round_robin")]
    routes = [table(route("echo", retry=asked))]
    return simple(a.address, b.address, clusters=clusters, route_tables=routes)


def fail_at_a(client: grpc.Channel, count: int) -> None:
    for _ in range(count):
        with contextlib.suppress(grpc.RpcError):
            call(client, metadata=(("x-fail-at", "a"),))


def by_retry(driver: Driver, a: Backend, b: Backend) -> None:
    with channel(serve(driver, retrying(a, b))) as client:
        fail_at_a(client, 4)


def by_budget(driver: Driver, a: Backend, b: Backend) -> None:
    budget = {"budget_percent": 1, "min_retries": 1, "min_retries_interval_ms": 60_000}
    with channel(serve(driver, retrying(a, b, **budget))) as client:
        fail_at_a(client, 12)


def by_lost_endpoint(driver: Driver, a: Backend, b: Backend) -> None:
    a.stop()
    with channel(serve(driver, retrying(a, b))) as client:
        for _ in range(4):
            call(client)


def by_ejection(driver: Driver, a: Backend, b: Backend) -> None:
    outlier = {"consecutive_failures": 2, "base_ejection_ms": 60_000}
    clusters = [cluster(outlier=outlier, lb="round_robin")]
    with channel(serve(driver, simple(a.address, b.address, clusters=clusters))) as client:
        fail_at_a(client, 8)


def by_requests(driver: Driver, a: Backend, _b: Backend) -> None:
    clusters = [cluster(max_requests=1)]
    with channel(serve(driver, simple(a.address, clusters=clusters))) as client:
        hanging = unary(client, "Hang").future(b"", timeout=DEADLINE_S)
        wait_until(lambda: a.seen, "it hangs")
        assert "max_requests" in str(failure(client).details())
        hanging.cancel()


def by_pending(driver: Driver, a: Backend, _b: Backend) -> None:
    a.stop()
    a.options = (("grpc.max_concurrent_streams", 1),)
    a.start()
    clusters = [cluster(max_connections=1, max_pending_requests=1)]
    with channel(serve(driver, simple(a.address, clusters=clusters))) as client:
        call(client)  # which learns that a connection carries one stream
        hanging = [unary(client, "Hang").future(b"", timeout=DEADLINE_S) for _ in range(2)]
        wait_until(lambda: value(driver, f"{OWN}pending", cluster="echo") == 1, "one waits")
        assert "max_pending_requests" in str(failure(client).details())
        for one in hanging:
            one.cancel()
    wait_until(lambda: value(driver, f"{OWN}pending", cluster="echo") == 0, "none waits")


def by_failover(driver: Driver, a: Backend, b: Backend) -> None:
    lost = locality({"address": a.address, "health": "unhealthy"})
    far = locality(b.address, cluster_id="us-east-1", region="us-east", priority=3)
    with channel(serve(driver, simple(endpoints=[endpoints(lost, far)]))) as client:
        assert call(client)[1] == "b"


def by_panic(driver: Driver, a: Backend, b: Backend) -> None:
    unwell = [{"address": it.address, "health": "unhealthy"} for it in (a, b)]
    with channel(serve(driver, simple(endpoints=[endpoints(locality(*unwell))]))) as client:
        call(client)


def by_nothing_left(driver: Driver, _a: Backend, _b: Backend) -> None:
    with channel(serve(driver, simple(endpoints=[]))) as client:
        failure(client)


def by_timeout(driver: Driver, a: Backend, _b: Backend) -> None:
    retry = {"on": ["reset"], "attempts": 1, "base_ms": 1, "per_try_timeout_ms": 50}
    routes = [table(route("echo", retry=retry))]
    with channel(serve(driver, simple(a.address, route_tables=routes))) as client:
        assert answers(client, "Hang") is grpc.StatusCode.DEADLINE_EXCEEDED


def by_cancelling(driver: Driver, a: Backend, _b: Backend) -> None:
    with channel(serve(driver, simple(a.address))) as client:
        hanging = unary(client, "Hang").future(b"", timeout=DEADLINE_S)
        wait_until(lambda: a.seen, "it hangs")
        hanging.cancel()
    wait_until(lambda: not numbers(driver)["calls_open"], "it is over")


Provoke = Callable[[Driver, Backend, Backend], None]
FULL = f"{OWN}circuit_breaker_full"
OPENED = f"{OWN}circuit_breaker_open_total"

ROWS: list[tuple[Provoke, str, Labels, Callable[[float], bool]]] = [
    (by_retry, f"{OWN}tries_total", {"outcome": "ok"}, lambda it: it == 4),
    (by_retry, f"{OWN}tries_total", {"outcome": "error"}, lambda it: it == 2),
    (by_retry, f"{OWN}retries_total", {"reason": "error"}, lambda it: it == 2),
    (by_budget, f"{OWN}retries_over_budget_total", {}, lambda it: it >= 1),
    (by_budget, OPENED, {"cluster": "echo", "breaker": "retry_budget"}, lambda it: it >= 1),
    (by_lost_endpoint, f"{OWN}tries_total", {"outcome": "connect_failure"}, lambda it: it >= 1),
    (by_lost_endpoint, f"{OWN}retries_total", {"reason": "unprocessed"}, lambda it: it >= 1),
    (by_lost_endpoint, f"{OWN}connect_failures_total", {}, lambda it: it >= 1),
    (
        by_ejection,
        f"{OWN}ejections_total",
        {"cluster": "echo", "reason": "consecutive_failures"},
        lambda it: it == 1,
    ),
    (by_requests, OPENED, {"cluster": "echo", "breaker": "max_requests"}, lambda it: it == 1),
    (by_requests, FULL, {"cluster": "echo", "breaker": "max_requests"}, lambda it: it == 1),
    (by_requests, f"{OWN}request_overflows_total", {}, lambda it: it == 1),
    (by_pending, OPENED, {"cluster": "echo", "breaker": "max_pending"}, lambda it: it == 1),
    (by_pending, OPENED, {"cluster": "echo", "breaker": "max_connections"}, lambda it: it >= 1),
    (by_failover, f"{OWN}active_tier", ECHO, lambda it: it == 3),
    (by_failover, f"{OWN}panic", ECHO, lambda it: it == 0),
    (
        by_failover,
        f"{OWN}region_calls_total",
        {"destination_region": "us-east"},
        lambda it: it == 1,
    ),
    (by_panic, f"{OWN}panic", ECHO, lambda it: it == 1),
    (by_nothing_left, f"{OWN}active_tier", ECHO, lambda it: it == -1),
    (by_nothing_left, "grpc_server_handled_total", NOWHERE, lambda it: it == 1),
    (by_timeout, f"{OWN}tries_total", {"outcome": "timeout"}, lambda it: it >= 1),
    (by_cancelling, f"{OWN}tries_total", {"outcome": "abandoned"}, lambda it: it == 1),
    (by_cancelling, "grpc_server_handled_total", {"grpc_code": "Canceled"}, lambda it: it == 1),
]


@pytest.mark.parametrize(
    ("provoke", "name", "labels", "holds"),
    ROWS,
    ids=[f"{row[1].removeprefix(OWN)}-{row[0].__name__}" for row in ROWS],
)
def test_each_is_moved_by_what_it_names(
    provoke: Provoke, name: str, labels: Labels, holds: Callable[[float], bool]
) -> None:
    with backends("a", "b") as (a, b), core() as driver:
        before = value(driver, name, **labels)
        assert before == 0
        provoke(driver, a, b)
        wait_until(lambda: holds(value(driver, name, **labels)), f"{name} is moved")


def test_a_breaker_closes_when_no_call_meets_it() -> None:
    breaker = {"cluster": "echo", "breaker": "max_requests"}
    with backends("a", "b") as (a, b), core() as driver:
        by_requests(driver, a, b)
        assert value(driver, FULL, **breaker) == 1
        wait_until(lambda: value(driver, FULL, **breaker) == 0, "it is closed")
        assert value(driver, OPENED, **breaker) == 1
        with channel(
            serve(driver, simple(a.address, clusters=[cluster(max_requests=1)]))
        ) as client:
            call(client)
        assert value(driver, OPENED, **breaker) == 1, "nobody met it again"


def test_streams_on_a_draining_endpoint_are_told() -> None:
    streams = f"{OWN}drain_streams"
    with (
        backends("a", "b") as (a, b),
        core() as driver,
        channel(serve(driver, simple(a.address))) as client,
    ):
        stream = OpenStream(client)
        leaving = {"address": a.address, "health": "draining"}
        driver.apply(simple(endpoints=[endpoints(locality(leaving, b.address))]))
        wait_until(lambda: value(driver, streams, cluster="echo") == 1, "it is told")
        stream.finish()
        wait_until(lambda: value(driver, streams, cluster="echo") == 0, "it has ended")


# --- TLS and peers ---


def test_a_call_over_two_gateways_counts_once() -> None:
    ca = Authority()
    handshakes = f"{OWN}tls_handshakes_total"
    with backends("b") as [b], core() as east, core() as west:
        peers = peer(serve(east, east_side(ca, b.address, [WEST])), region="us-east")
        with channel(serve(west, west_side(ca, peers))) as client:
            for _ in range(3):
                call(client)
            failure(client, metadata=(("x-fail-at", "b"),))
        calls = [value(it, "grpc_server_handled_total") for it in (west, east)]
        assert calls == [4, 0]
        there = {"destination_cluster": "us-east-1", "destination_region": "us-east"}
        assert value(west, "grpc_server_started_total", **there) == 4
        peers_calls = f"{OWN}peer_calls_total"
        assert value(east, peers_calls, source_cluster="us-west-1", grpc_code="OK") == 3
        assert value(east, peers_calls, source_cluster="us-west-1", grpc_code="Unavailable") == 1
        assert value(west, peers_calls) == 0
        assert value(west, handshakes, side="peer", result="ok") == 1
        assert value(east, handshakes, side="client", result="ok") == 1
        assert value(east, f"{OWN}region_calls_total") == 0


def test_handshakes_that_fail_count_on_both_sides() -> None:
    ca = Authority()
    handshakes = f"{OWN}tls_handshakes_total"
    with backends("b") as [b], core() as east, core() as west:
        peers = peer(serve(east, east_side(ca, b.address, [SOUTH])))
        with channel(serve(west, west_side(ca, peers))) as client:
            failure(client)
        wait_until(lambda: value(east, handshakes, side="client", result="failed"), "it failed")
    with core() as driver:
        address = serve(driver, terminating("127.0.0.1:1", ca.leaf("a.example.com")))
        distrust = grpc.ssl_channel_credentials(Authority("other").pem.encode())
        with channel(address, credentials=distrust, options=named("a.example.com")) as client:
            failure(client, timeout=2)
        wait_until(lambda: value(driver, handshakes, side="client", result="failed"), "it failed")
        assert value(driver, handshakes, side="client", result="ok") == 0


# --- bounds ---


def series(driver: Driver) -> int:
    """Samples with labels of calls and clusters; those of state and kinds are few and fixed."""
    fixed = {"state", "kind", "outcome", "reason", "side"}
    return sum(
        1 for name, labels in scrape(driver) if labels and not {key for key, _ in labels} <= fixed
    )


def test_names_that_clients_make_up_are_no_labels() -> None:
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, routed(a))) as client:
            assert answers(client, "First") is grpc.StatusCode.UNIMPLEMENTED
            before = set(scrape(driver))
            for at in range(100):
                answers(client, f"Name{at}")
        assert set(scrape(driver)) == before
        assert "Name7" not in text(driver)


def test_beyond_the_bound_labels_are_other_and_no_call_is_lost() -> None:
    methods = [{"service": SERVICE, "method": f"M{at}", "type": "unary"} for at in range(300)]
    with backends("a") as [a], core(metric_series_max=1_000) as driver:
        driver.set_known_methods(methods)
        with channel(serve(driver, simple(a.address))) as client:
            for entry in methods:
                answers(client, str(entry["method"]))
        assert 700 < series(driver) <= 1_000
        assert value(driver, f"{OWN}metric_series") <= 1_000
        assert value(driver, "grpc_server_handled_total", grpc_code="Unimplemented") == 300
        limited = value(driver, "grpc_server_handled_total", grpc_service="other")
        assert limited == value(driver, f"{OWN}metric_series_limited_total") > 200
        other = dict.fromkeys(("grpc_service", "destination_cluster"), "other")
        started = value(driver, "grpc_server_started_total", **other)
        assert limited - 1 <= started <= limited, "the last one with room may have none for a code"


def test_clusters_with_something_to_tell_are_shown_first() -> None:
    names = [f"c{at:03}" for at in range(300)]
    with backends("a") as [a], core(metric_series_max=1_000) as driver:
        here, far = locality(a.address), locality(a.address, priority=2)
        places = [endpoints(far if name == "c250" else here, name=name) for name in names]
        serve(
            driver,
            simple(
                clusters=[cluster(name) for name in names],
                endpoints=places,
                route_tables=[table(route("c000"))],
            ),
        )
        assert series(driver) <= 1_000
        tier = f"{OWN}active_tier"
        assert value(driver, tier, service="c250") == 2
        shown = {dict(labels)["service"] for name, labels in scrape(driver) if name == tier}
        assert shown == {*names[: len(shown) - 1], "c250"}
        left_out = value(driver, f"{OWN}metric_clusters_left_out")
        assert left_out == len(names) - len(shown) > 0


def test_churn_of_routes_methods_clusters_and_places_leaves_nothing_behind() -> None:
    with backends("a") as [a], core() as driver:
        port, sizes = free_port(), set()
        for at in range(30):
            with channel(serve(driver, generation(a, at, port))) as client:
                call(client)
            sizes.add((series(driver), value(driver, f"{OWN}metric_series")))
        assert len(sizes) == 1, "after each change it is as much"
        shown = text(driver)
        assert "-28" not in shown
        assert "-29" in shown


def generation(a: Backend, at: int, port: int) -> dict[str, Any]:
    """Everything by another name."""
    match = {"path": {"exact": f"/{SERVICE}/Unary"}}
    where = locality(a.address, cluster_id=f"cluster-{at}", region=f"region-{at}")
    configuration = simple(
        clusters=[cluster(f"echo-{at}")],
        endpoints=[endpoints(where, name=f"echo-{at}")],
        route_tables=[table(route(f"echo-{at}", name=f"app/rule-{at}", match=match))],
    )
    configuration["listeners"][0]["port"] = port
    return configuration


@pytest.fixture
def busy() -> Iterator[Driver]:
    """A core near its bound on series."""
    methods = [{"service": SERVICE, "method": f"M{at}", "type": "unary"} for at in range(400)]
    with backends("a") as [a], core() as driver:
        driver.set_known_methods(methods)
        with channel(serve(driver, simple(a.address))) as client:
            running = [
                unary(client, str(it["method"])).future(b"", timeout=DEADLINE_S) for it in methods
            ]
            assert {it.code() for it in running} == {grpc.StatusCode.UNIMPLEMENTED}
        yield driver


def test_a_scrape_near_the_bound_takes_under_a_tenth_of_a_second(busy: Driver) -> None:
    def once() -> float:
        began = time.thread_time()
        text(busy)
        return time.thread_time() - began

    assert series(busy) > 7_500
    assert min(once() for _ in range(5)) < 0.1


def test_promtool_finds_nothing_wrong(busy: Driver) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool (Debian package prometheus)")
    done = subprocess.run(
        [program, "check", "metrics"],
        check=False,
        input=text(busy),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_code_names_are_those_of_grpc() -> None:
    ours = [name.upper() for name in CODE_NAMES]
    theirs = {code.value[0]: code.name.replace("_", "") for code in grpc.StatusCode}
    theirs[1] = "CANCELED"  # grpc-go spells it with one l
    assert ours == [theirs[number] for number in sorted(theirs)]
    assert json.dumps(CODE_NAMES).count("Canceled") == 1
