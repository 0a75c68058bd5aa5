"""What the gateway answers itself: proper gRPC with a message that says which rule and why."""

from __future__ import annotations

import socket

import grpc
import pytest

from gateway.driver import Driver
from gateway.errors import CoreClosed, SettingsRejected, SnapshotRejected
from tests.native.support import (
    backends,
    call,
    channel,
    cluster,
    core,
    failure,
    listener,
    numbers,
    route,
    serve,
    simple,
    table,
    unary,
    wait_until,
)
from tests.testkit.http2_server import http2_server, silence
from tests.testkit.ports import free_port


def test_no_route_for_the_path() -> None:
    only = route("echo", match={"path": {"exact": "/other.Service/Method"}})
    with core() as driver:
        address = serve(driver, simple(route_tables=[table(only)]))
        with channel(address) as client:
            error = failure(client)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == (
        f"no route for host `{address}`, path `/test.Echo/Unary` on listener `public`: "
        "no rule of this host matches"
    )


def test_no_route_for_the_host() -> None:
    with core() as driver:
        tables = [table(route("echo"), host="grpc.example.com")]
        with channel(serve(driver, simple(route_tables=tables))) as client:
            error = failure(client)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "no route has this host" in error.details()


def test_no_endpoint_names_rule_and_cluster() -> None:
    with core() as driver, channel(serve(driver, simple(endpoints=[]))) as client:
        error = failure(client)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == (
        "rule `app/echo/rule-0`, cluster `echo`: the cluster has no endpoints"
    )


def test_connection_refused_by_the_only_endpoint() -> None:
    with core() as driver:
        nowhere = f"127.0.0.1:{free_port()}"
        with channel(serve(driver, simple(nowhere))) as client:
            error = failure(client)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert nowhere in error.details()
        assert "`app/echo/rule-0`" in error.details()
        wait_until(
            lambda: driver.stats()["endpoints"][0]["down"], "the endpoint is held to be down"
        )


def test_all_weights_zero() -> None:
    with core() as driver:
        tables = [table(route(("echo", 0)))]
        with channel(serve(driver, simple(route_tables=tables))) as client:
            error = failure(client)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "rule `app/echo/rule-0`: the weights of all its backends are 0"


def test_deadline_of_the_route_is_a_deadline() -> None:
    tables = [table(route("echo", timeout_ms=100))]
    # A gRPC server knows the deadline too, and its own word may come first.
    with http2_server(silence) as backend, core() as driver:
        with channel(serve(driver, simple(backend.address, route_tables=tables))) as client:
            error = failure(client, "Hang")
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.details().startswith(
            "deadline of 100 ms exceeded while waiting for a response"
        )
        assert numbers(driver)["deadlines_exceeded"] == 1


def test_the_callers_deadline_only_goes_down() -> None:
    tables = [table(route("echo", timeout_ms=60_000))]
    remaining: list[float] = []

    with backends("a") as [backend], core() as driver:
        original = backend.unary

        def unary_with_deadline(request: bytes, context: grpc.ServicerContext) -> bytes:
            remaining.append(context.time_remaining())
            return original(request, context)

        backend.unary = unary_with_deadline  # type: ignore[method-assign]
        with channel(serve(driver, simple(backend.address, route_tables=tables))) as client:
            call(client, timeout=2)
    assert 0 < remaining[0] < 2.5


def test_an_idle_stream_ends() -> None:
    tables = [table(route("echo", idle_timeout_ms=100))]
    with (
        backends("a") as [backend],
        core() as driver,
        channel(serve(driver, simple(backend.address, route_tables=tables))) as client,
    ):
        error = failure(client, "Hang")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "idle timeout" in error.details()


def test_a_stream_of_great_age_ends() -> None:
    tables = [table(route("echo", max_stream_ms=100))]
    with (
        backends("a") as [backend],
        core() as driver,
        channel(serve(driver, simple(backend.address, route_tables=tables))) as client,
    ):
        error = failure(client, "Hang")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "greatest age of 100 ms" in error.details()


def test_too_many_waiting_requests_fail_fast() -> None:
    with socket.socket() as silent, core() as driver:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        clusters = [cluster(max_pending_requests=1)]
        with channel(serve(driver, simple(place, clusters=clusters))) as client:
            waits = unary(client).future(b"", timeout=10)
            wait_until(lambda: numbers(driver)["calls_open"] == 1, "the first call waits")
            error = failure(client)
            waits.cancel()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "max_pending_requests" in error.details()


def test_http1_between_gateways_is_told_what_to_use() -> None:
    with core() as driver:
        address = serve(driver, simple(listeners=[listener(kind="east_west")]))
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
            answer = b""
            while part := client.recv(4096):
                answer += part
    assert answer.startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")
    assert b"HTTP/2 required: gateways speak HTTP/2 to each other" in answer


def test_health_check_of_a_peer_is_answered_by_the_gateway() -> None:
    with core() as driver:
        address = serve(driver, simple(listeners=[listener(kind="east_west")]))
        with channel(address) as client:
            check = client.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", timeout=5) == b"\x08\x01"


def test_answers_towards_peers_are_marked() -> None:
    with core() as driver:
        address = serve(driver, simple(listeners=[listener(kind="east_west")], endpoints=[]))
        with channel(address) as client:
            error = failure(client)
    assert dict(error.trailing_metadata() or ())["x-federation-reason"] == "no_endpoints"


def test_a_port_in_use_is_reported_and_stops_no_other_listener() -> None:
    with socket.socket() as taken, core(workers=2) as driver, backends("a") as [backend]:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        configuration = simple(
            backend.address, listeners=[listener("first", port=port), listener("second")]
        )
        states = {it.name: it for it in driver.apply(configuration).listeners}
        assert states["first"].error is not None
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in states["first"].error
        assert states["second"].error is None
        with channel(states["second"].address) as client:
            assert call(client) == (b"hi", "a")
        assert [it["listener"] for it in driver.events()] == ["first"]


def test_a_wrong_update_is_refused_with_its_path_and_changes_nothing() -> None:
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address))
        wrong = simple(backend.address, clusters=[cluster(panic_percent="many")])
        with pytest.raises(SnapshotRejected, match="panic_percent") as caught:
            driver.apply(wrong)
        assert caught.value.path == "clusters[0].panic_percent"
        with channel(address) as client:
            assert call(client) == (b"hi", "a")


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsRejected, match="`workers` is 0, allowed are 1 to 256"):
        Driver({"workers": 0})
    with pytest.raises(SettingsRejected, match="`buffers_max_bytes` is 1, allowed are 16777216 to"):
        Driver({"buffers_max_bytes": 1})
    with pytest.raises(SettingsRejected, match="unknown field `threads`"):
        Driver({"threads": 1})


def test_a_core_that_does_not_run_says_so() -> None:
    driver = Driver()
    with pytest.raises(CoreClosed, match="not started"):
        driver.apply(simple())
    driver.start()
    driver.stop()
    with pytest.raises(CoreClosed, match="stopped"):
        driver.apply(simple())
