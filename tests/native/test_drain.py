"""Leaving without a failed call: endpoints, listeners, the process; reloads that drop nothing."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from typing import Any

import grpc

from tests.native.support import (
    DEADLINE_S,
    SERVICE,
    backends,
    call,
    channel,
    cluster,
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
    wait_until,
)
from tests.testkit.ports import free_port


class OpenStream:
    """A bidirectional stream that stays open, and what it ended with."""

    def __init__(self, client: grpc.Channel) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = client.stream_stream(f"/{SERVICE}/Bidi")(self._send(), timeout=60)
        self.served_by = str(dict(self._call.initial_metadata())["x-served-by"])

    def _send(self) -> Iterator[bytes]:
        while (request := self._requests.get()) is not None:
            yield request

    def echo(self, message: bytes) -> bytes:
        self._requests.put(message)
        return bytes(next(self._call))

    def finish(self) -> None:
        self._requests.put(None)
        assert list(self._call) == []

    def error(self) -> grpc.RpcError:
        try:
            next(self._call)
        except grpc.RpcError as error:
            return error
        finally:
            self._requests.put(None)
        raise AssertionError("the stream did not end with an error")


def two(first: str, second: str, **first_state: Any) -> dict[str, Any]:
    return simple(
        clusters=[cluster(lb="round_robin")],
        endpoints=[endpoints(locality({"address": first} | first_state, second))],
    )


def draining(grace_ms: int | None) -> dict[str, Any]:
    return {"health": "draining", "drain_grace_ms": grace_ms}


def stream_on(client: grpc.Channel, name: str) -> OpenStream:
    while True:
        stream = OpenStream(client)
        if stream.served_by == name:
            return stream
        stream.finish()


def test_a_draining_endpoint_gets_nothing_new_and_its_streams_end_after_the_grace() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        with channel(serve(driver, two(a.address, b.address))) as client:
            stream = stream_on(client, "a")
            driver.apply(two(a.address, b.address, **draining(400)))
            assert stream.echo(b"still here") == b"still here"
            assert {call(client)[1] for _ in range(30)} == {"b"}
            wait_until(
                lambda: bool(call(client)) and numbers(driver)["downstream_accepted"] > 1,
                "GOAWAY moves the client to a new connection",
            )
            error = stream.error()
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "was drained" in error.details()
        kinds = {it["event"]: it for it in driver.events()}
        assert kinds["drain_started"]["streams"] == 1
        assert kinds["streams_ended"]["streams"] == 1


def test_short_calls_are_not_disturbed_by_drains() -> None:
    """Not even those of clients that would not send again what GOAWAY kept them from sending."""
    with backends("a", "b") as [a, b], core() as driver:
        with channel(serve(driver, simple(a.address))) as client:
            first = call(client)
            futures = []
            for turn in range(40):
                futures += [unary(client).future(b"hi", timeout=DEADLINE_S) for _ in range(20)]
                here, there = (a, b) if turn % 2 else (b, a)
                driver.apply(two(here.address, there.address, **draining(None)))
            assert {future.result() for future in futures} == {first[0]}
        kinds = [it["event"] for it in driver.events()]
        assert kinds.count("drain_started") > 10
        assert numbers(driver)["downstream_accepted"] == 1


def test_a_drain_that_is_taken_back_ends_nothing() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        with channel(serve(driver, two(a.address, b.address))) as client:
            stream = stream_on(client, "a")
            driver.apply(two(a.address, b.address, **draining(150)))
            driver.apply(two(a.address, b.address))
            wait_until(lambda: call(client)[1] == "a", "the endpoint takes traffic again")
            other = OpenStream(client)
            began = time.monotonic()
            wait_until(
                lambda: other.echo(b"x") and time.monotonic() > began + 0.3, "the grace is over"
            )
            assert stream.echo(b"alive") == b"alive"
            stream.finish()
            other.finish()
        assert "streams_ended" not in {it["event"] for it in driver.events()}


def test_an_endpoint_that_is_removed_finishes_its_streams() -> None:
    with (
        backends("a", "b") as [a, b],
        core() as driver,
        channel(serve(driver, two(a.address, b.address))) as client,
    ):
        stream = stream_on(client, "a")
        driver.apply(simple(b.address))
        assert stream.echo(b"on") == b"on"
        assert {call(client)[1] for _ in range(10)} == {"b"}
        stream.finish()
        wait_until(lambda: numbers(driver)["upstream_connections"] == 1, "its connection is closed")


def test_routes_change_under_a_standing_connection() -> None:
    with backends("a", "b") as [a, b], core() as driver:

        def split(one: int, two: int) -> dict[str, Any]:
            return simple(
                route_tables=[table(route(("one", one), ("two", two)))],
                clusters=[cluster("one"), cluster("two")],
                endpoints=[
                    endpoints(locality(a.address), name="one"),
                    endpoints(locality(b.address), name="two"),
                ],
            )

        with channel(serve(driver, split(1, 0))) as client:
            stream = stream_on(client, "a")
            for n in range(20):
                driver.apply(split(n % 2, (n + 1) % 2))
                assert call(client)[1] == "ba"[n % 2]
            assert stream.echo(b"on") == b"on"
            stream.finish()
        assert numbers(driver)["downstream_accepted"] == 1


def test_a_removed_listener_lets_its_connections_finish() -> None:
    with backends("a") as [a], core() as driver:
        both = simple(a.address, listeners=[listener("first"), listener("second")])
        first, second = (it.address for it in driver.apply(both).listeners)
        with channel(first) as client, channel(second) as other:
            stream = OpenStream(client)
            driver.apply(simple(a.address, listeners=[listener("second")]))
            assert stream.echo(b"on") == b"on"
            assert call(other)[1] == "a"
            stream.finish()
            wait_until(
                lambda: numbers(driver)["downstream_connections"] == 1,
                "the client of the removed listener is gone",
            )
            assert failure(client, timeout=2).code() is grpc.StatusCode.UNAVAILABLE


def test_a_drain_of_the_process_waits_for_streams() -> None:
    with (
        backends("a") as [a],
        core(workers=2) as driver,
        channel(serve(driver, simple(a.address))) as client,
    ):
        stream = OpenStream(client)
        driver.drain(30_000)
        assert stream.echo(b"on") == b"on"
        assert not driver.drained
        stream.finish()
        wait_until(lambda: driver.drained, "the last client is gone")


def test_what_is_left_at_the_deadline_ends_with_unavailable() -> None:
    with (
        backends("a") as [a],
        core() as driver,
        channel(serve(driver, simple(a.address))) as client,
    ):
        stream = OpenStream(client)
        driver.drain(200)
        error = stream.error()
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() == "the gateway is shutting down"
        wait_until(lambda: driver.drained, "nothing is left", within_s=DEADLINE_S)


def test_a_core_without_clients_is_drained_at_once() -> None:
    with core(workers=2) as driver:
        serve(driver, simple())
        driver.drain(60_000)
        wait_until(lambda: driver.drained, "nothing is left")


def test_a_renamed_listener_keeps_its_port() -> None:
    port = free_port()
    with backends("a") as [a], core(workers=2) as driver:
        serve(driver, simple(a.address, listeners=[listener("old", port=port)]))
        with channel(serve(driver, simple(a.address, listeners=[listener("new", port=port)]))) as c:
            assert call(c)[1] == "a"


def test_a_draining_core_follows_its_configuration_but_opens_no_listener() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        address = serve(driver, simple(a.address))
        with channel(address) as client:
            stream = OpenStream(client)
            driver.drain(30_000)
            listeners = [listener(), listener("late")]
            states = driver.apply(simple(b.address, listeners=listeners)).listeners
            assert {it.name: it.error is None for it in states} == {"public": True, "late": False}
            stream.finish()
        wait_until(lambda: driver.drained, "nothing is left")


def test_a_slow_reader_gets_its_whole_response_before_the_connection_closes() -> None:
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, simple(a.address))) as client:
            spec = json.dumps({"count": 40, "size": 100_000}).encode()
            stream = client.unary_stream(f"/{SERVICE}/ServerStream")(spec, timeout=30)
            first = next(stream)
            driver.drain(20_000)
            assert len(first) + sum(len(it) for it in stream) == 40 * 100_000
        wait_until(lambda: driver.drained, "nothing is left")
