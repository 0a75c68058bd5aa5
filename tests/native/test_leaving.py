"""The end of a client's connection: no call that the gateway has taken is lost with it.

One that it has not taken is known to the client as such: it lies above the last GOAWAY's stream.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame

from gateway.driver import Driver
from tests.native import frames
from tests.native.http1 import get, raw
from tests.native.support import (
    backends,
    core,
    listener,
    numbers,
    serve,
    simple,
    wait_until,
)

GRACEFUL = 2**31 - 1
GRPC = "Content-Type: application/grpc"


@pytest.fixture
def driver() -> Iterator[Driver]:
    with core() as driver:
        yield driver


def living(address: str, **connection: Any) -> dict[str, Any]:
    return simple(address, listeners=[listener(connection=connection)])


def pass_time(seconds: float) -> None:
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, "time passes")


@pytest.mark.parametrize("why", ["max_age_ms", "max_idle_ms"])
def test_a_call_of_a_client_that_hears_late_is_served(driver: Driver, why: str) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, **{why: 50}))
        with frames.client(address) as late:
            counter = {"max_age_ms": "downstream_aged", "max_idle_ms": "downstream_idle_closed"}
            wait_until(lambda: numbers(driver)[counter[why]] == 1, "the client is asked to leave")
            # Far more than a round trip: only the answer to the PING says what was heard.
            pass_time(1.5)
            late.call(1, "Unary", b"hi")
            late.all_frames()
            assert late.data(1) == b"\0\0\0\0\2hi"
            assert late.ended(1)
            assert [last for last, *_ in late.goodbyes()] == [GRACEFUL, 1]
        assert numbers(driver)["downstream_cut_calls"] == 0


def test_a_call_after_the_last_goodbye_is_known_to_be_untaken(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, max_age_ms=50))
        with frames.client(address) as stubborn:
            stubborn.until_goodbye()
            stubborn.until_goodbye()
            # A reset of the connection would fail the second of these, and could eat the GOAWAY.
            for stream_id in range(1, 9, 2):
                stubborn.call(stream_id, "Unary", b"hi")
            heard = stubborn.all_frames()
            assert [it.stream_id for it in heard if it.stream_id != 0] == []
            assert [last for last, *_ in stubborn.goodbyes()] == [GRACEFUL, 0]
        assert backend.seen == []


def test_a_client_that_reads_slowly_and_speaks_meanwhile_gets_everything(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, simple(backend.address))
        with frames.client(address) as slow:
            # What it does not take lies with the gateway's system when the connection ends.
            slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
            spec = json.dumps({"count": 20, "size": 15_000}).encode()
            slow.call(1, "ServerStream", spec)
            wait_until(lambda: backend.seen, "the call is on its way")
            wait_until(lambda: numbers(driver)["calls_open"] == 0, "all is answered")
            driver.drain(4_000)
            # Half of the grace later the connection has nothing more to say.
            pass_time(2.2)
            for _ in range(3):
                slow.say(PingFrame(0, opaque_data=b"slowly.."))
                pass_time(0.01)
            slow.all_frames(answer=False)
            assert len(slow.data(1)) == 20 * 15_005
            assert slow.ended(1)
            assert [last for last, *_ in slow.goodbyes()] == [GRACEFUL, 1]
        wait_until(lambda: driver.drained, "nothing is left")


def test_an_answer_that_waits_for_its_reader_outlives_the_age(driver: Driver) -> None:
    """The call is over for its server long before the client has read what it was told."""
    with backends("a") as [backend]:
        grace = {"max_age_ms": 50, "max_age_grace_ms": 30_000}
        address = serve(driver, living(backend.address, **grace))
        with frames.client(address, window=50_000) as slow:
            slow.call(1, "ServerStream", json.dumps({"count": 8, "size": 10_000}).encode())
            slow.until_goodbye()
            slow.until_goodbye()
            wait_until(lambda: numbers(driver)["calls_open"] == 0, "its server is done")
            pass_time(1.5)
            slow.widen(1, 100_000)
            slow.all_frames()
            assert len(slow.data(1)) == 8 * 10_005
            assert slow.ended(1)


def test_a_drain_ends_as_soon_as_its_clients_have_heard(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, simple(backend.address))
        with frames.client(address) as client:
            client.call(1, "Unary", b"hi")
            next(it for it in client.frames() if it.stream_id == 1 and "END_STREAM" in it.flags)
            driver.drain(60_000)
            began = time.monotonic()
            client.all_frames()
            assert time.monotonic() - began < 10, "no fixed time is waited for"
            assert isinstance(client.heard[-1], GoAwayFrame)
        wait_until(lambda: driver.drained, "nothing is left")


def test_a_request_of_http1_that_has_begun_is_answered_with_close(driver: Driver) -> None:
    address = serve(driver, simple())
    with raw(address) as busy, raw(address) as idle:
        for client in (busy, idle):
            client.say(get("/", GRPC))
            assert client.answer().get("connection") is None
        request = get("/", GRPC)
        busy.say(request[:10])
        wait_until(lambda: numbers(driver)["downstream_connections"] == 2, "both stand")
        driver.drain(8_000)
        assert idle.rest() == b"", "it ends after a moment"
        busy.say(request[10:])
        assert busy.answer().get("connection") == "close"
        assert busy.rest() == b""
    wait_until(lambda: driver.drained, "nothing is left")


def test_who_has_said_nothing_does_not_hold_up_a_drain(driver: Driver) -> None:
    address = serve(driver, simple())
    with raw(address) as silent:
        wait_until(lambda: numbers(driver)["downstream_connections"] == 1, "it is taken")
        driver.drain(60_000)
        assert silent.rest() == b""
        wait_until(lambda: driver.drained, "nothing is left", within_s=5)
