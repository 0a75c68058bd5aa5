"""TCP that is passed on: plain from clients, in mutual TLS between two gateways."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.driver import Driver
from tests.native.certificates import Authority
from tests.native.support import (
    DEADLINE_S,
    backends,
    call,
    channel,
    cluster,
    core,
    endpoints,
    listener,
    locality,
    numbers,
    route,
    serve,
    table,
    update,
    wait_until,
)
from tests.testkit.ports import free_port

EAST, WEST, SOUTH = (f"spiffe://clusterset.local/cluster/{name}" for name in ("e", "w", "s"))
NAME = "p42.hello.app.tcp.clusterset.local"


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture
def west() -> Iterator[Driver]:
    with core(handshake_timeout_ms=1_000) as driver:
        yield driver


@pytest.fixture
def east() -> Iterator[Driver]:
    with core(handshake_timeout_ms=1_000) as driver:
        yield driver


def greet(conn: socket.socket) -> None:
    """A server that speaks first and waits for nothing."""
    conn.sendall(b"pod ip 10.0.0.1")


def echo(conn: socket.socket) -> None:
    """A server that says all back once the client has said all."""
    heard = bytearray()
    while part := conn.recv(65536):
        heard += part
    conn.sendall(heard)


@contextlib.contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve_all() -> None:
            with contextlib.suppress(OSError):
                while True:
                    conn, _ = listening.accept()
                    with conn, contextlib.suppress(ConnectionError):
                        talk(conn)

        thread = threading.Thread(target=serve_all, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(DEADLINE_S)


def passing(*addresses: Any, **clusters: Any) -> dict[str, Any]:
    """A listener without TLS whose connections go on to ``addresses``, each a tier of its own."""
    target = {"name": "hello", "weighted": [{"cluster": "hello", "weight": 1}]}
    tiers = [locality(at, priority=number) for number, at in enumerate(addresses)]
    return update(
        listeners=[listener(passthrough=target, route_table=None)],
        clusters=[cluster("hello", connect_timeout_ms=500, **clusters)],
        endpoints=[endpoints(*tiers, name="hello")],
    )


def east_side(ca: Authority, address: str, allowed: str = WEST) -> dict[str, Any]:
    """An east-west listener: TCP by server name, calls of everybody else."""
    target = {"name": "hello", "weighted": [{"cluster": "hello", "weight": 1}]}
    chain = {"server_names": [NAME], "certificates": ["me"], "passthrough": target}
    tls = {
        "certificates": ["me"],
        "client_ca": "peers",
        "allowed_spiffe": [allowed],
        "chains": [chain],
    }
    return update(
        listeners=[listener("east-west", kind="east_west", tls=tls)],
        route_tables=[table(route("hello"))],
        clusters=[cluster("hello")],
        endpoints=[endpoints(locality(address), name="hello")],
        secrets=[ca.leaf(spiffe=EAST).secret("me"), ca.secret("peers")],
    )


def west_side(ca: Authority, address: str) -> dict[str, Any]:
    peer_tls = {"secret": "me", "ca": "peers", "sni": NAME, "allowed_spiffe": [EAST]}
    document = passing({"address": address, "peer": True}, peer_tls=peer_tls)
    return document | {"secrets": [ca.leaf(spiffe=WEST).secret("me"), ca.secret("peers")]}


def say(address: str, words: bytes = b"") -> bytes:
    """All that comes back to ``words``; empty when the connection is ended."""
    host, _, port = address.rpartition(":")
    got = bytearray()
    with (
        socket.create_connection((host, int(port)), timeout=DEADLINE_S) as client,
        contextlib.suppress(ConnectionError),
    ):
        sending = threading.Thread(target=_send, args=(client, words))
        sending.start()
        while part := client.recv(65536):
            got += part
        sending.join(DEADLINE_S)
    return bytes(got)


def _send(client: socket.socket, words: bytes) -> None:
    with contextlib.suppress(OSError):
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)


def test_a_server_may_speak_first(west: Driver) -> None:
    with server(greet) as address:
        assert say(serve(west, passing(address)), b"hi\n") == b"pod ip 10.0.0.1"
    wait_until(lambda: numbers(west)["passthrough_connections"] == 0, "closed")
    wait_until(lambda: numbers(west)["downstream_connections"] == 0, "gone")


def test_a_dead_endpoint_is_passed_over(west: Driver) -> None:
    with server(greet) as address:
        at = serve(west, passing(f"127.0.0.1:{free_port()}", address))
        assert [say(at) for _ in range(5)] == [b"pod ip 10.0.0.1"] * 5
    assert numbers(west)["passthrough_failed"] == 0


def test_bytes_cross_two_gateways_under_mutual_tls(
    ca: Authority, east: Driver, west: Driver
) -> None:
    words = bytes(range(256)) * 16_384
    with server(echo) as address:
        at = serve(west, west_side(ca, serve(east, east_side(ca, address))))
        assert say(at, words) == words
    with server(greet) as address:
        at = serve(west, west_side(ca, serve(east, east_side(ca, address))))
        assert say(at) == b"pod ip 10.0.0.1"
    for driver in (east, west):
        wait_until(lambda: numbers(driver)["passthrough_connections"] == 0, "closed")  # noqa: B023


def test_calls_of_the_same_listener_are_routed_as_before(ca: Authority, east: Driver) -> None:
    with backends("b") as [b], core() as west:
        peer_tls = {"secret": "me", "ca": "peers", "sni": "east-west", "allowed_spiffe": [EAST]}
        there = {"address": serve(east, east_side(ca, b.address)), "peer": True}
        document = update(
            listeners=[listener()],
            route_tables=[table(route("hello"))],
            clusters=[cluster("hello", peer_tls=peer_tls)],
            endpoints=[endpoints(locality(there), name="hello")],
            secrets=[ca.leaf(spiffe=WEST).secret("me"), ca.secret("peers")],
        )
        with channel(serve(west, document)) as client:
            assert call(client)[1] == "b"


def test_a_stranger_reaches_no_server(ca: Authority, east: Driver, west: Driver) -> None:
    """Neither one without a certificate nor a peer with another identity."""
    reached = threading.Event()
    with server(lambda _: reached.set()) as address:
        at = serve(east, east_side(ca, address, allowed=SOUTH))
        assert say(serve(west, west_side(ca, at)), b"hi") == b""
        assert _said_without_a_certificate(at) == b""
    assert not reached.is_set()
    assert numbers(east)["downstream_handshake_failures"] >= 2
    assert numbers(east)["passthrough_connections"] == 0


def _said_without_a_certificate(at: str) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = at.rpartition(":")
    got = b""
    with (
        socket.create_connection((host, int(port)), timeout=DEADLINE_S) as plain,
        contextlib.suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(plain, server_hostname=NAME) as client,
    ):
        client.sendall(b"hi")
        while part := client.recv(1024):
            got += part
    return got


def test_half_a_handshake_ends_in_time(ca: Authority, east: Driver) -> None:
    with server(greet) as address:
        at = serve(east, east_side(ca, address))
        context = ssl.create_default_context()
        outgoing = ssl.MemoryBIO()
        tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        host, _, port = at.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as client:
            client.sendall(outgoing.read())
            while client.recv(65536):
                pass
    assert numbers(east)["downstream_handshake_failures"] == 1
