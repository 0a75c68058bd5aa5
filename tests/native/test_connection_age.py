"""How long clients' connections live: age, grace, idleness, PING, and PINGs that are too many."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hyperframe.frame import PingFrame

from gateway.driver import Driver
from tests.native import frames
from tests.native.support import (
    DEADLINE_S,
    backends,
    call,
    channel,
    core,
    failure,
    listener,
    numbers,
    serve,
    simple,
    unary,
    wait_until,
)

PLAIN_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
"""As clients are by default: a call that meets a GOAWAY before it left goes elsewhere."""

ENHANCE_YOUR_CALM = 0xB


@pytest.fixture
def driver() -> Iterator[Driver]:
    with core() as driver:
        yield driver


def living(address: str, **connection: Any) -> dict[str, Any]:
    return simple(address, listeners=[listener(connection=connection)])


def test_no_call_is_lost_while_connections_age(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, max_age_ms=400, max_age_grace_ms=10_000))
        stop = threading.Event()
        failures: list[Exception] = []
        done = [0, 0, 0]

        def load(number: int) -> None:
            with grpc.insecure_channel(address, PLAIN_OPTIONS) as client:
                while not stop.is_set():
                    try:
                        assert unary(client)(b"x", timeout=DEADLINE_S) == b"x"
                    except grpc.RpcError as failure:
                        failures.append(failure)
                        return
                    done[number] += 1

        threads = [threading.Thread(target=load, args=(number,)) for number in range(len(done))]
        for thread in threads:
            thread.start()
        wait_until(lambda: failures or numbers(driver)["downstream_aged"] >= 15, "aging")
        stop.set()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert failures == []
        assert all(count > 100 for count in done)
        assert numbers(driver)["downstream_cut_calls"] == 0


def test_a_long_call_outlives_the_age_of_its_connection(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, max_age_ms=100))
        with grpc.insecure_channel(address, PLAIN_OPTIONS) as client:
            go_on = threading.Event()

            def requests() -> Iterator[bytes]:
                yield b"1"
                go_on.wait(DEADLINE_S)
                yield b"2"

            bidi: grpc.StreamStreamMultiCallable[Any, Any] = client.stream_stream("/test.Echo/Bidi")
            stream = bidi(requests(), timeout=DEADLINE_S)
            assert next(stream) == b"1"
            wait_until(lambda: numbers(driver)["downstream_aged"] == 1, "the connection is old")
            # Calls after that go to another connection; that of the stream stands.
            wait_until(
                lambda: call(client)[0] and numbers(driver)["downstream_accepted"] >= 2,
                "a call on a new connection",
            )
            go_on.set()
            assert list(stream) == [b"2"]


def test_calls_that_outlive_the_grace_end_as_unavailable(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, max_age_ms=100, max_age_grace_ms=200))
        with channel(address) as client:
            error = failure(client, "Hang")
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "maximum age" in (error.details() or "")
        assert numbers(driver)["downstream_cut_calls"] == 1


def test_a_connection_without_calls_is_asked_to_leave(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, max_idle_ms=200))
        with frames.client(address) as client:
            client.all_frames()
            assert client.goodbyes()[0] == (2**31 - 1, 0, b"max_idle")
        with grpc.insecure_channel(address, PLAIN_OPTIONS) as caller:
            call(caller)
            wait_until(lambda: numbers(driver)["downstream_idle_closed"] == 2, "idle after a call")
            call(caller)


def test_idleness_does_not_begin_before_the_last_call_ends(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, max_idle_ms=100))
        with channel(address) as client:
            assert failure(client, "Hang", timeout=1).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert numbers(driver)["downstream_accepted"] == 1
        assert numbers(driver)["downstream_idle_closed"] == 0


def test_a_client_that_answers_no_ping_is_dead(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, ping_after_ms=100, ping_timeout_ms=200))
        with frames.client(address) as silent:
            said = silent.all_frames(answer=False)
        assert sum(isinstance(frame, PingFrame) for frame in said) == 1
        assert numbers(driver)["liveness_deaths"] == 1


def test_a_client_that_answers_pings_stays(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, ping_after_ms=50, ping_timeout_ms=2_000))
        with frames.client(address) as alive:
            pings = (it for it in alive.frames() if isinstance(it, PingFrame))
            assert len(list(itertools.islice(pings, 5))) == 5
        assert numbers(driver)["liveness_deaths"] == 0


def limited(**limit: Any) -> dict[str, Any]:
    return {"ping_limit": limit}


def test_pings_above_the_limit_end_the_connection(driver: Driver) -> None:
    with backends("a") as [backend]:
        limit = limited(min_interval_ms=60_000, without_calls=True, strikes=1)
        address = serve(driver, living(backend.address, **limit))
        with frames.client(address) as client:
            for _ in range(3):
                client.say(PingFrame(0, opaque_data=b"whatever"))
            client.all_frames()
            assert client.goodbyes() == [(0, ENHANCE_YOUR_CALM, b"too_many_pings")]
        assert numbers(driver)["downstream_ping_limit_ended"] == 1


def test_pings_within_the_limit_are_answered(driver: Driver) -> None:
    with backends("a") as [backend]:
        limit = limited(min_interval_ms=60_000, without_calls=True, strikes=4)
        address = serve(driver, living(backend.address, **limit))
        with frames.client(address) as client:
            for _ in range(5):
                client.say(PingFrame(0, opaque_data=b"whatever"))
            answers = (
                it for it in client.frames() if isinstance(it, PingFrame) and "ACK" in it.flags
            )
            assert len(list(itertools.islice(answers, 5))) == 5
        assert numbers(driver)["downstream_ping_limit_ended"] == 0


def test_a_grpc_client_that_pings_too_often_is_calmed_down(driver: Driver) -> None:
    with backends("a") as [backend]:
        limit = limited(min_interval_ms=60_000, strikes=1)
        address = serve(driver, living(backend.address, **limit))
        options = (
            ("grpc.keepalive_time_ms", 50),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.keepalive_permit_without_calls", 1),
        )
        with channel(address, options=options) as client:
            error = failure(client, "Hang")
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "too_many_pings" in (error.details() or "").lower().replace(" ", "_")
        assert numbers(driver)["downstream_ping_limit_ended"] >= 1
