"""How long clients' connections live: age, grace, idleness, PING, and PINGs that are too many."""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

from gateway.driver import Driver
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


class Client:
    """One HTTP/2 connection by the `h2` library, read on demand."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self.h2.initiate_connection()
        self.send()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.socket.close()

    def send(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def ping(self) -> None:
        self.h2.ping(b"whatever")
        self.send()

    def events(self, *, answer: bool = True) -> Iterator[h2.events.Event]:
        """What comes until the gateway closes; ``answer``: as HTTP/2 asks for."""
        while data := self.socket.recv(65536):
            yield from self.h2.receive_data(data)
            if answer:
                self.send()

    def last_words(self, *, answer: bool = True) -> list[tuple[int, bytes]]:
        """Code and debug data of the GOAWAYs until the gateway closes."""
        return [
            (int(event.error_code or 0), event.additional_data or b"")
            for event in self.events(answer=answer)
            if isinstance(event, h2.events.ConnectionTerminated)
        ]


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


def asked_for(client: Client, size: int) -> None:
    """Asks for one message of this size, which is not read yet."""
    content = json.dumps({"count": 1, "size": size}).encode()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/test.Echo/ServerStream")]
    headers += [(":authority", "a"), ("content-type", "application/grpc"), ("te", "trailers")]
    client.h2.send_headers(1, headers)
    client.h2.send_data(1, struct.pack(">BI", 0, len(content)) + content, end_stream=True)
    client.send()


def frames(client: Client) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and content of what comes; the library takes nothing behind a GOAWAY."""
    unread = b""
    while data := client.socket.recv(65536):
        unread += data
        while len(unread) >= 9 and len(unread) >= 9 + (size := int.from_bytes(unread[:3])):
            yield unread[3], unread[4], unread[9 : 9 + size]
            unread = unread[9 + size :]


DATA, HEADERS, GOAWAY = 0, 1, 7
END_STREAM = 1


def widen(client: Client, by: int) -> None:
    """A WINDOW_UPDATE of the connection and one of the stream."""
    for stream in (0, 1):
        client.socket.sendall(b"\0\0\4\x08\0" + struct.pack(">II", stream, by))


def test_an_answer_that_is_being_read_outlives_the_age_of_its_connection(driver: Driver) -> None:
    """Its call is over when the gateway has all of it."""
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, max_age_ms=100))
        with Client(address) as client:
            asked_for(client, 90_000)
            size, ended = 0, False
            for kind, flags, content in frames(client):
                if kind == DATA:
                    size += len(content)
                elif kind == GOAWAY and content[:4] == b"\0\0\0\1":
                    assert size == 65_535, "the window of the stream"
                    widen(client, 1 << 20)
                elif kind == HEADERS:
                    ended |= bool(flags & END_STREAM)
            assert (size, ended) == (90_000 + 5, True)


def test_an_answer_under_way_survives_the_end_of_its_connection(driver: Driver) -> None:
    """What a client says after the gateway's last byte must not have the system drop the rest."""
    with backends("a") as [backend]:
        address = serve(driver, simple(backend.address))
        with Client(address) as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 22})
            asked_for(client, 300_000)
            widen(client, 1 << 22)
            wait_until(lambda: numbers(driver)["upstream_tries"] == 1, "the call is there")
            wait_until(lambda: numbers(driver)["calls_open"] == 0, "the answer is written")
            driver.drain(60_000)
            began = time.monotonic()

            def has_ended() -> bool:
                widen(client, 1)
                return time.monotonic() > began + 1.5

            wait_until(has_ended, "the final GOAWAY is out")
            all_frames = list(frames(client))
            assert sum(len(it) for kind, _, it in all_frames if kind == DATA) == 300_000 + 5
            assert any(kind == HEADERS and flags & END_STREAM for kind, flags, _ in all_frames)


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
        with Client(address) as client:
            assert client.last_words()[0] == (0, b"max_idle")
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
        with Client(address) as silent:
            said = list(silent.events(answer=False))
        assert sum(isinstance(event, h2.events.PingReceived) for event in said) == 1
        assert numbers(driver)["liveness_deaths"] == 1


def test_a_client_that_answers_pings_stays(driver: Driver) -> None:
    with backends("a") as [backend]:
        address = serve(driver, living(backend.address, ping_after_ms=50, ping_timeout_ms=2_000))
        with Client(address) as alive:
            pings = (e for e in alive.events() if isinstance(e, h2.events.PingReceived))
            assert len(list(itertools.islice(pings, 5))) == 5
        assert numbers(driver)["liveness_deaths"] == 0


def limited(**limit: Any) -> dict[str, Any]:
    return {"ping_limit": limit}


def test_pings_above_the_limit_end_the_connection(driver: Driver) -> None:
    with backends("a") as [backend]:
        limit = limited(min_interval_ms=60_000, without_calls=True, strikes=1)
        address = serve(driver, living(backend.address, **limit))
        with Client(address) as client:
            for _ in range(3):
                client.ping()
            calm = int(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            assert client.last_words()[-1] == (calm, b"too_many_pings")
        assert numbers(driver)["downstream_ping_limit_ended"] == 1


def test_pings_within_the_limit_are_answered(driver: Driver) -> None:
    with backends("a") as [backend]:
        limit = limited(min_interval_ms=60_000, without_calls=True, strikes=4)
        address = serve(driver, living(backend.address, **limit))
        with Client(address) as client:
            for _ in range(5):
                client.ping()
            answers = (e for e in client.events() if isinstance(e, h2.events.PingAckReceived))
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
