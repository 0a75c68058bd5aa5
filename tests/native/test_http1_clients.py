"""HTTP/1.1 from clients: the life of their connections, and what they are refused (RFC 9112)."""

from __future__ import annotations

import http.client

import pytest

from tests.native.http1 import get, raw
from tests.native.support import backends, call, channel, core, numbers, serve, simple, wait_until

GRPC = "Content-Type: application/grpc"


def test_a_call_of_grpc_is_told_what_it_needs() -> None:
    with core() as driver:
        address = serve(driver, simple())
        client = http.client.HTTPConnection(address, timeout=10)
        for _ in range(3):
            fields = {"content-type": "application/grpc", "te": "trailers"}
            client.request("POST", "/test.Echo/Unary", b"\0\0\0\0\0", fields)
            answer = client.getresponse()
            assert answer.status == 505
            assert b"HTTP/2 required: gRPC needs HTTP/2" in answer.read()
        client.close()
        assert numbers(driver)["downstream_accepted"] == 1, "the connection is kept"
        assert numbers(driver)["http1_refused"] == 3


def test_both_versions_on_one_port() -> None:
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address))
        with raw(address) as one, channel(address) as two:
            one.say(get("/", GRPC))
            assert call(two) == (b"hi", "a")
            assert one.answer().status == 505


def test_answers_come_in_the_order_of_requests() -> None:
    with core() as driver:
        address = serve(driver, simple())
        with raw(address) as client:
            client.say(get("/1", GRPC), get("/2", GRPC), get("/3", GRPC, "Connection: close"))
            answers = [client.answer() for _ in range(3)]
            assert [it.status for it in answers] == [505, 505, 505]
            assert [it.get("connection") for it in answers] == [None, None, "close"]
            assert client.rest() == b""


def test_an_old_client_is_served_and_closed() -> None:
    with core() as driver:
        address = serve(driver, simple())
        with raw(address) as client:
            client.say(b"GET / HTTP/1.0\r\nHost: a\r\nContent-Type: application/grpc\r\n\r\n")
            assert client.answer().status == 505
            assert client.rest() == b""


SMUGGLING = {
    "two lengths": (b"Content-Length: 5\r\nContent-Length: 50", 400),
    "length and chunks": (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    "chunks twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    "chunks in disguise": (b"Transfer-Encoding: xchunked", 501),
    "chunks not last": (b"Transfer-Encoding: chunked, identity", 501),
    "blank before the colon": (b"Content-Length : 5", 400),
    "folded": (b"X: a\r\n Content-Length: 5", 400),
    "bare LF": (b"X: a\nContent-Length: 5", 400),
    "bare CR": (b"X: a\rContent-Length: 5", 400),
    "NUL": (b"X: a\0b", 400),
    "two hosts": (b"Host: b", 400),
    "negative length": (b"Content-Length: -1", 400),
    "hexadecimal length": (b"Content-Length: 0x1", 400),
    "list of lengths": (b"Content-Length: 5, 5", 400),
}


@pytest.mark.parametrize("case", SMUGGLING)
def test_what_two_readers_could_understand_in_two_ways(case: str) -> None:
    field, status = SMUGGLING[case]
    with core() as driver:
        address = serve(driver, simple())
        with raw(address) as client:
            smuggled = get("/smuggled", GRPC)
            client.say(b"POST / HTTP/1.1\r\nHost: a\r\n", field, b"\r\n\r\n", smuggled)
            answer = client.answer()
            assert (answer.status, answer.get("connection")) == (status, "close")
            assert client.rest() == b"", "what follows is nobody's request"
        wait_until(lambda: numbers(driver)["protocol_errors"] == 1, "it is counted")
        assert numbers(driver)["http1_refused"] == 0


def test_a_chunk_that_is_malformed_ends_the_connection() -> None:
    with core() as driver:
        address = serve(driver, simple())
        for chunk in (b"5 \r\nhello\r\n", b"5\nhello\r\n", b"g\r\n", b"5\r\nhelloX"):
            with raw(address) as client:
                head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                client.say(head, chunk, get("/smuggled", GRPC))
                assert b"HTTP/1.1 505" not in client.rest()


def test_heads_are_bounded_in_size_and_time() -> None:
    with core(handshake_timeout_ms=300) as driver:
        address = serve(driver, simple())
        with raw(address) as large:
            large.say(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x" * 40_000)
            assert large.answer().status == 431
        with raw(address) as slow:
            slow.say(b"GET / HTTP/1.1\r\nHost: a\r\n")
            assert slow.rest() == b""
        with raw(address) as later:
            later.say(get("/", GRPC), b"GET / HT")
            assert later.answer().status == 505
            assert later.rest() == b""
        wait_until(lambda: numbers(driver)["slow_headers_ended"] >= 1, "it is counted")


def test_a_body_that_nobody_wants_is_not_waited_for() -> None:
    with core() as driver:
        address = serve(driver, simple())
        with raw(address) as client:
            client.say(b"POST / HTTP/1.1\r\nHost: a\r\n", GRPC.encode())
            client.say(b"\r\nContent-Length: 100000000\r\nExpect: 100-continue\r\n\r\n")
            assert client.answer().status == 505, "and not 100"
            assert client.rest() == b""


def test_goodbye_with_the_answer_while_draining() -> None:
    with core() as driver:
        address = serve(driver, simple())
        with raw(address) as idle, raw(address) as early:
            early.say(get("/", GRPC))
            idle.say(get("/", GRPC))
            assert early.answer().status == idle.answer().status == 505
            driver.drain(5_000)

            def is_last_answer() -> bool:
                early.say(get("/", GRPC))
                answer = early.answer()
                return (answer.status, answer.get("connection")) == (505, "close")

            wait_until(is_last_answer, "a request that crosses the goodbye is answered")
            assert early.rest() == b""
            assert idle.rest() == b"", "an idle connection is closed"
        wait_until(lambda: driver.drained, "nothing is left")
