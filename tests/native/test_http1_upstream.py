"""HTTP/1.1 towards endpoints: what they are sent, how connections are used again (RFC 9112)."""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.native.certificates import Authority
from tests.native.http1 import Raw, get, raw
from tests.native.support import (
    cluster,
    core,
    numbers,
    route,
    serve,
    simple,
    table,
    wait_until,
)
from tests.native.test_http1_clients import SMUGGLING
from tests.native.test_tls import WEST, east_side, peer, west_side

HTTP1 = {"clusters": [cluster(protocol="http1")], "route_tables": [table(route("echo"))]}


@dataclass
class Origin:
    """Python's own HTTP/1.1 server; it tells in JSON what it was sent."""

    connections: set[int] = field(default_factory=set)
    requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    gate: threading.Event | None = None
    """Requests wait for it when there is one."""
    close: bool = False
    """Each answer ends its connection."""
    address: str = ""


@contextmanager
def origin(**settings: object) -> Iterator[Origin]:
    state = Origin(**settings)  # type: ignore[arg-type]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            with state.lock:
                state.requests += 1
                state.connections.add(self.client_address[1])
            length = self.headers.get("content-length")
            chunked = self.headers.get("transfer-encoding") == "chunked"
            body = self.chunks() if chunked else self.rfile.read(int(length or 0))
            if state.gate is not None:
                state.gate.wait(10)
            seen = {
                "method": self.command,
                "path": self.path,
                "fields": {name.lower(): value for name, value in self.headers.items()},
                "body": len(body),
            }
            answer = json.dumps(seen).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            if state.close:
                self.send_header("connection", "close")
                self.close_connection = True
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

        def chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def scripted(run: Callable[[socket.socket], None]) -> Iterator[str]:
    """An endpoint that does with its listening socket what a test says; where it is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run, args=(listener,))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask(address: str, method: str = "GET", path: str = "/", **changes: object) -> tuple[int, dict]:  # type: ignore[type-arg]
    client = http.client.HTTPConnection(address, timeout=10)
    try:
        client.request(method, path, **changes)  # type: ignore[arg-type]
        answer = client.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if answer.status == 200 and text else {}
    finally:
        client.close()


def test_requests_and_bodies_pass() -> None:
    with origin() as server, core() as driver:
        address = serve(driver, simple(server.address, **HTTP1))
        assert ask(address, path="/a?b=c")[1]["path"] == "/a?b=c"
        assert ask(address, "HEAD") == (200, {})
        body = b"x" * 1_000_000
        by_length = ask(address, "POST", body=body)[1]
        assert (by_length["body"], by_length["fields"]["content-length"]) == (len(body), "1000000")
        in_chunks = ask(address, "PUT", body=iter([body, body]), encode_chunked=True)[1]
        assert in_chunks["body"] == 2 * len(body)
        assert in_chunks["fields"]["transfer-encoding"] == "chunked"
        wait_until(lambda: numbers(driver)["calls_open"] == 0, "all calls have ended")
        assert len(server.connections) == 1, "the connection is used again"
        assert numbers(driver)["connects"] == 1


def test_what_concerns_one_hop_does_not_pass() -> None:
    with origin() as server, core() as driver:
        address = serve(driver, simple(server.address, **HTTP1))
        fields = {
            "connection": "keep-alive, x-hop",
            "keep-alive": "timeout=5",
            "x-hop": "1",
            "proxy-connection": "keep-alive",
            "te": "gzip",
            "x-stays": "1",
        }
        seen = ask(address, headers=fields)[1]["fields"]
        assert seen["x-stays"] == "1"
        gone = {"connection", "keep-alive", "x-hop", "proxy-connection", "te"}
        assert gone.isdisjoint(seen)
        assert seen["host"] == address


def test_one_request_at_a_time_on_each_connection() -> None:
    gate = threading.Event()
    with origin(gate=gate) as server, core() as driver, ThreadPoolExecutor(20) as pool:
        address = serve(driver, simple(server.address, **HTTP1))
        asked = [pool.submit(ask, address) for _ in range(20)]
        wait_until(lambda: server.requests == 20, "all requests are there at once")
        assert len(server.connections) == 20
        gate.set()
        assert [it.result()[0] for it in asked] == [200] * 20
        again = [pool.submit(ask, address) for _ in range(20)]
        assert [it.result()[0] for it in again] == [200] * 20
        assert len(server.connections) == 20, "they are used again"


def test_the_bound_on_connections_holds() -> None:
    gate = threading.Event()
    clusters = [cluster(protocol="http1", max_connections=2)]
    with origin(gate=gate) as server, core() as driver, ThreadPoolExecutor(6) as pool:
        address = serve(driver, simple(server.address, **HTTP1 | {"clusters": clusters}))
        asked = [pool.submit(ask, address) for _ in range(6)]
        wait_until(lambda: numbers(driver)["calls_open"] == 6, "all calls are there")
        wait_until(lambda: server.requests == 2, "two of them at the endpoint")
        gate.set()
        assert [it.result()[0] for it in asked] == [200] * 6
        assert len(server.connections) == 2


def test_an_endpoint_that_closes_is_asked_on_new_connections() -> None:
    with origin(close=True) as server, core() as driver:
        address = serve(driver, simple(server.address, **HTTP1))
        for _ in range(5):
            assert ask(address)[0] == 200
        assert len(server.connections) == 5


@dataclass
class Fickle:
    """Closes a connection when its second request comes: its patience ended just then."""

    served: list[bytes] = field(default_factory=list)
    lost: list[bytes] = field(default_factory=list)

    def run(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                client = Raw(connection)
                try:
                    self.served.append(client.until(b"\r\n\r\n"))
                    client.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                    self.lost.append(client.until(b"\r\n\r\n"))
                except (EOFError, OSError):
                    continue


def test_a_request_that_met_a_closing_connection_is_sent_again_if_that_is_safe() -> None:
    fickle = Fickle()
    with scripted(fickle.run) as there, core() as driver:
        address = serve(driver, simple(there, **HTTP1))
        assert ask(address)[0] == 200
        assert ask(address)[0] == 200, "sent again on a new connection"
        assert (len(fickle.served), len(fickle.lost)) == (2, 1)
        assert numbers(driver)["transparent_retries"] == 1
        assert ask(address, "POST", body=b"x")[0] == 503, "it may have been done"


def test_a_response_without_a_length_ends_with_its_connection() -> None:
    def run(listener: socket.socket) -> None:
        for words in (
            b"HTTP/1.1 200 OK\r\n\r\nall of it",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome",
        ):
            connection, _ = listener.accept()
            with connection:
                client = Raw(connection)
                client.until(b"\r\n\r\n")
                client.say(words)

    with scripted(run) as there, core() as driver:
        address = serve(driver, simple(there, **HTTP1))
        with raw(address) as client:
            client.say(get())
            assert client.answer().body == b"all of it"
            client.say(get())
            head = client.answer(head_only=True)
            assert head.get("content-length") == "9"
            assert client.rest() == b"some", "what is not whole ends with the connection"


def hints(count: int) -> Callable[[socket.socket], None]:
    """An endpoint that tells something so many times before it answers."""

    def run(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            client = Raw(connection)
            client.until(b"\r\n\r\n")
            client.say(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n" * count)
            client.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            client.rest()

    return run


@pytest.mark.parametrize(("count", "status"), [(1, 200), (16, 200), (17, 503)])
def test_interim_responses_pass_within_bounds(count: int, status: int) -> None:
    with scripted(hints(count)) as there, core() as driver:
        address = serve(driver, simple(there, **HTTP1))
        with raw(address) as client:
            client.say(get())
            for _ in range(min(count, 16)):
                hint = client.answer()
                assert (hint.status, hint.get("link")) == (103, "</style.css>")
            assert client.answer().status == status


def test_an_answer_that_is_no_http_fails_the_request() -> None:
    def run(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            client = Raw(connection)
            client.until(b"\r\n\r\n")
            client.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx")
            client.rest()

    with scripted(run) as there, core() as driver:
        address = serve(driver, simple(there, **HTTP1))
        assert ask(address)[0] == 503
        assert numbers(driver)["protocol_errors"] == 1


def test_requests_cross_two_gateways_in_http2() -> None:
    ca = Authority()
    with origin() as server, core() as east, core() as west:
        clusters = [cluster(protocol="http1")]
        there = serve(east, east_side(ca, server.address, [WEST], clusters=clusters))
        west_update = west_side(ca, peer(there))
        west_update["clusters"][0]["protocol"] = "http1"
        address = serve(west, west_update)
        seen = ask(address, "POST", "/far?away", body=b"x" * 300_000)[1]
        assert (seen["path"], seen["body"]) == ("/far?away", 300_000)
        assert ask(address, "HEAD") == (200, {})
        assert numbers(west)["upstream_connections"] == 1


def test_what_the_only_peer_cannot_serve_is_told_at_once() -> None:
    """It says that nothing was processed, which nobody else is there to be asked after."""
    ca = Authority()
    with core() as east, core() as west:
        there = serve(east, east_side(ca, None, [WEST], clusters=[cluster(protocol="http1")]))
        west_update = west_side(ca, peer(there))
        west_update["clusters"][0]["protocol"] = "http1"
        west_update["clusters"][0]["outlier"] = {"consecutive_failures": 3}
        address = serve(west, west_update)
        for method in ["GET", "POST", "HEAD"]:
            assert ask(address, method)[0] == 503
        wait_until(lambda: numbers(west)["calls_open"] == 0, "no call is left")
        assert numbers(west)["ejections"] == 1, "its gateway failed three times"


@pytest.mark.parametrize("case", SMUGGLING)
def test_nothing_smuggled_reaches_an_endpoint(case: str) -> None:
    field, status = SMUGGLING[case]
    with origin() as server, core() as driver:
        address = serve(driver, simple(server.address, **HTTP1))
        with raw(address) as client:
            client.say(b"POST / HTTP/1.1\r\nHost: a\r\n", field, b"\r\n\r\n", get("/smuggled"))
            assert client.answer().status == status
            assert client.rest() == b""
        assert ask(address)[0] == 200
        assert server.requests == 1


def test_idle_connections_are_closed() -> None:
    with origin() as server, core(upstream_idle_ms=100) as driver:
        address = serve(driver, simple(server.address, **HTTP1))
        assert ask(address)[0] == 200
        wait_until(lambda: numbers(driver)["upstream_connections"] == 0, "it is closed")
        assert ask(address)[0] == 200
