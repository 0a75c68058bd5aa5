"""Clients that hold a connection and give nothing are let go in time, and cost others nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.native import frames
from tests.native.certificates import Authority
from tests.native.support import (
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

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = bytes(3) + b"\x04" + bytes(5)
DESCRIPTORS = Path("/proc/self/fd")


def reach(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def dial(address: str, words: bytes = b"") -> socket.socket:
    client = socket.create_connection(reach(address), timeout=10)
    client.sendall(words)
    return client


def rest_of(client: socket.socket) -> bytes:
    """What comes until the gateway closes."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            said += part
    return said


@pytest.mark.parametrize("words", [b"", b"PRI", PREFACE, PREFACE + EMPTY_SETTINGS[:5], b"GET /"])
def test_a_client_that_begins_and_stops_is_let_go(words: bytes) -> None:
    """Slow prefaces: the time for setting up ends with SETTINGS, not with the first byte."""
    with core(handshake_timeout_ms=150) as driver:
        with dial(serve(driver, simple()), words) as client:
            rest_of(client)
        wait_until(lambda: numbers(driver)["downstream_connections"] == 0, "it is closed")
        assert numbers(driver)["downstream_handshake_failures"] == 1


def test_a_tls_handshake_that_stops_is_let_go() -> None:
    leaf = Authority().leaf("a.example.com")
    tls = {"certificates": ["web"], "client_ca": None, "allowed_spiffe": []}
    configuration = simple(listeners=[listener(tls=tls)], secrets=[leaf.secret("web")])
    with core(handshake_timeout_ms=150) as driver:
        address = serve(driver, configuration)
        hello = ssl.MemoryBIO()
        context = ssl.create_default_context()
        session = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="a.example.com")
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        with dial(address, hello.read()) as client:
            rest_of(client)
        wait_until(lambda: numbers(driver)["downstream_handshake_failures"] == 1, "it is counted")


def test_a_connection_without_calls_is_asked_to_leave_and_closed() -> None:
    with core(downstream_idle_ms=100) as driver:
        with frames.client(serve(driver, simple())) as client:
            client.all_frames()
        assert [last for last, *_ in client.goodbyes()] == [2**31 - 1, 0]
        assert numbers(driver)["downstream_idle_closed"] == 1
        wait_until(lambda: numbers(driver)["downstream_connections"] == 0, "it is closed")


def test_calls_keep_a_connection_and_idleness_costs_none() -> None:
    with (
        backends("a") as [backend],
        core(downstream_idle_ms=200) as driver,
        channel(serve(driver, simple(backend.address))) as client,
    ):
        hanging = unary(client, "Hang").future(b"", timeout=10)
        wait_until(lambda: backend.seen, "the call is there")
        with pytest.raises(grpc.FutureTimeoutError):
            hanging.result(timeout=0.6)
        assert numbers(driver)["downstream_idle_closed"] == 0
        hanging.cancel()
        wait_until(lambda: numbers(driver)["downstream_idle_closed"] == 1, "it is idle")
        assert call(client) == (b"hi", "a")


def test_a_client_that_does_not_read_its_answer_is_closed_when_idle() -> None:
    """What waits for a window that never opens goes with the connection."""
    no_window = bytes.fromhex("000006040000000000000400000000")
    head = b"\x83\x86\x41\x01h\x44\x05/none\x5f\x10application/grpc"
    request = len(head).to_bytes(3) + b"\x01\x05" + (1).to_bytes(4) + head
    with backends("a") as [backend], core(downstream_idle_ms=100) as driver:
        address = serve(driver, simple(backend.address))
        with dial(address, PREFACE + no_window + request) as client:
            rest_of(client)
        wait_until(lambda: numbers(driver)["downstream_connections"] == 0, "it is closed")


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Lower the limit of open files to what is open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(it.name) for it in DESCRIPTORS.iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    gaps = []
    try:
        with contextlib.suppress(OSError):
            while True:
                gaps.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for gap in gaps:
            os.close(gap)


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="needs /proc")
def test_descriptors_at_their_limit_stop_accepting_and_not_serving() -> None:
    paths = ({"path": {"prefix": "/test.Echo/Hang"}}, {"path": {"prefix": "/"}})
    routes = [route("other", name="o", match=paths[0]), route("echo", name="e", match=paths[1])]
    with (
        backends("a") as [backend],
        core() as driver,
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.socket() as late,
    ):
        silent_address = f"127.0.0.1:{silent.getsockname()[1]}"
        known = [
            endpoints(locality(backend.address)),
            endpoints(locality(silent_address), name="other"),
        ]
        configuration = simple(
            route_tables=[table(*routes)],
            clusters=[cluster(), cluster("other")],
            endpoints=known,
        )
        address = serve(driver, configuration)
        with channel(address) as client:
            call(client)
            with no_descriptors():
                late.settimeout(10)
                late.connect(reach(address))
                late.sendall(PREFACE + EMPTY_SETTINGS)
                wait_until(lambda: numbers(driver)["accept_pauses"] >= 3, "it pauses and asks")
                assert call(client) == (b"hi", "a")
                # A new endpoint is still connected to: the descriptor was kept for it.
                error = failure(client, "Hang", timeout=0.3)
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                assert numbers(driver)["upstream_connections"] == 2
                assert numbers(driver)["connect_failures"] == 0
            assert late.recv(9)[3] == 4, "the client that waited is served"
        told = [it["error"] for it in driver.events() if it["event"] == "listener_error"]
        assert len(told) == 1
        assert str(told[0]).startswith("new connections wait, those that stand are served: ")


def test_a_large_request_that_is_kept_for_another_try_arrives_whole() -> None:
    """A whole kept request waits for the window of the next endpoint: none of it may be lost."""
    retry = {"on": ["unavailable"], "attempts": 1, "base_ms": 1, "buffer_bytes": 8 << 20}
    with backends("a", "b") as [a, b], core() as driver:
        a.fail = grpc.StatusCode.UNAVAILABLE
        tiers = [locality(it.address, priority=tier) for tier, it in enumerate([a, b])]
        tables = [table(route("echo", retry=retry))]
        configuration = simple(route_tables=tables, endpoints=[endpoints(*tiers)])
        message = os.urandom(6 << 20)
        with channel(serve(driver, configuration)) as client:
            assert call(client, message) == (message, "b")
        assert numbers(driver)["retries"] == 1


def test_a_connection_to_an_endpoint_without_calls_is_closed_and_made_again() -> None:
    with (
        backends("a") as [backend],
        core(upstream_idle_ms=100) as driver,
        channel(serve(driver, simple(backend.address))) as client,
    ):
        for connects in (1, 2):
            assert call(client) == (b"hi", "a")
            assert numbers(driver)["connects"] == connects
            wait_until(lambda: numbers(driver)["upstream_connections"] == 0, "it is closed")
        assert driver.events() == []


def test_a_call_keeps_its_connection_to_the_endpoint() -> None:
    with (
        backends("a") as [backend],
        core(upstream_idle_ms=100) as driver,
        channel(serve(driver, simple(backend.address))) as client,
    ):
        hanging = unary(client, "Hang").future(b"", timeout=10)
        with pytest.raises(grpc.FutureTimeoutError):
            hanging.result(timeout=0.5)
        assert numbers(driver)["upstream_connections"] == 1


def test_a_client_in_its_handshake_when_a_drain_begins_is_served_and_asked_to_leave() -> None:
    with core() as driver:
        with dial(serve(driver, simple())) as client:
            wait_until(lambda: numbers(driver)["downstream_connections"] == 1, "it is taken")
            driver.drain(10_000)
            client.sendall(PREFACE + EMPTY_SETTINGS)
            served = frames.Client(client)
            served.all_frames()
        assert [last for last, *_ in served.goodbyes()] == [2**31 - 1, 0]
        wait_until(lambda: driver.drained, "nobody is left")
