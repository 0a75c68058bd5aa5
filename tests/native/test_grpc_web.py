"""gRPC-Web from browsers to real gRPC servers; the client is written after the protocol's page."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from tests.native.http1 import raw
from tests.native.support import (
    Backend,
    backends,
    core,
    listener,
    numbers,
    route,
    serve,
    simple,
    table,
    wait_until,
)

BINARY = "application/grpc-web+proto"
TEXT = "application/grpc-web-text+proto"


def framed(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


@dataclass
class Response:
    """What a browser makes of a response."""

    http_status: int
    fields: dict[str, str]
    messages: list[bytes] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return int((self.trailers or self.fields)["grpc-status"])


def from_text(body: bytes) -> bytes:
    """Pieces of base64, each padded for itself."""
    quads = [body[at : at + 4] for at in range(0, len(body), 4)]
    return b"".join(base64.b64decode(quad, validate=True) for quad in quads)


def understood(status: int, fields: dict[str, str], body: bytes) -> Response:
    response = Response(status, fields)
    if fields["content-type"].startswith("application/grpc-web-text"):
        body = from_text(body)
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        payload, body = body[5 : 5 + length], body[5 + length :]
        assert len(payload) == length
        if flags & 0x80:
            lines = payload.decode().split("\r\n")
            assert lines.pop() == ""
            response.trailers = dict(line.split(": ", 1) for line in lines)
            assert body == b"", "trailers are the last frame"
        else:
            response.messages.append(payload)
    return response


def ask(
    address: str,
    message: bytes = b"hi",
    *,
    method: str = "Unary",
    content_type: str = BINARY,
    body: bytes | Iterator[bytes] | None = None,
    **fields: str,
) -> Response:
    client = http.client.HTTPConnection(address, timeout=15)
    try:
        if body is None:
            body = framed(message)
            if "text" in content_type:
                body = base64.b64encode(body)
        head = {"content-type": content_type, "accept": content_type, "x-grpc-web": "1"} | fields
        client.request("POST", f"/test.Echo/{method}", body, head)
        answer = client.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return understood(answer.status, names, answer.read())
    finally:
        client.close()


@pytest.mark.parametrize("content_type", [BINARY, TEXT])
def test_a_call_over_http1(content_type: str) -> None:
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address))
        for message in (b"", b"hi", b"x" * 100_001):
            response = ask(address, message, content_type=content_type)
            assert response.http_status == 200
            assert response.fields["content-type"] == content_type.replace("+proto", "")
            assert response.fields["x-served-by"] == "a"
            assert response.messages == [message]
            assert response.trailers["grpc-status"] == "0"
            assert response.trailers["x-trailer"] == "t"
        seen = backend.seen[-1]
        assert seen["x-grpc-web"] == "1"
        assert {"accept", "content-length"}.isdisjoint(seen)


@pytest.mark.parametrize("content_type", [BINARY, TEXT])
def test_messages_stream_as_they_come(content_type: str) -> None:
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address))
        spec = json.dumps({"count": 50, "size": 9_999}).encode()
        response = ask(address, spec, method="ServerStream", content_type=content_type)
        assert [len(it) for it in response.messages] == [9_999] * 50
        assert response.status == 0


def test_a_request_in_pieces_of_base64() -> None:
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address))
        pieces = [framed(b"one"), framed(b"three"), framed(b"seventeen")]
        text = b"".join(base64.b64encode(piece) for piece in pieces)
        cut = iter([text[at : at + 7] for at in range(0, len(text), 7)])
        response = ask(address, method="ClientStream", content_type=TEXT, body=cut)
        assert response.messages == [b"17"]
        assert response.status == 0


def test_the_form_of_the_response_is_for_the_client_to_choose() -> None:
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address))
        response = ask(address, content_type=BINARY, accept="application/grpc-web-text")
        assert response.fields["content-type"] == "application/grpc-web-text"
        assert response.messages == [b"hi"]


@pytest.mark.parametrize("content_type", [BINARY, TEXT])
def test_errors_have_the_form_of_the_call(content_type: str) -> None:
    failing = Backend("b", fail=grpc.StatusCode.NOT_FOUND).start()
    try:
        with core() as driver:
            address = serve(driver, simple(failing.address))
            response = ask(address, content_type=content_type)
            assert (response.http_status, response.status) == (200, 5)
            assert "grpc-web" in response.fields["content-type"]
            serve(driver, simple())
            response = ask(address, content_type=content_type)
            assert (response.http_status, response.status) == (200, 14)
            assert response.fields["content-type"] == content_type
            assert "no endpoint" in response.fields["grpc-message"]
    finally:
        failing.stop()


def test_no_route_and_no_base64() -> None:
    only = {"path": {"exact": "/test.Echo/Unary"}, "grpc": True}
    with backends("a") as [backend], core() as driver:
        tables = [table(route("echo", match=only))]
        address = serve(driver, simple(backend.address, route_tables=tables))
        assert ask(address, method="Other").status == 12
        assert ask(address).status == 0
        for body in (b"AAA", b"!!!!", b"A==="):
            response = ask(address, content_type=TEXT, body=body)
            assert response.status == 13
            assert "base64" in response.fields["grpc-message"]


def test_a_deadline_amid_the_response() -> None:
    tables = [table(route("echo", timeout_ms=400))]
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address, route_tables=tables))
        response = ask(address, method="Hang", content_type=TEXT)
        assert response.status == 4
        client = http.client.HTTPConnection(address, timeout=15)
        head = {"content-type": BINARY, "transfer-encoding": "chunked"}
        client.putrequest("POST", "/test.Echo/Bidi")
        for name, value in head.items():
            client.putheader(name, value)
        client.endheaders()
        message = framed(b"first")
        client.send(b"%x\r\n%s\r\n" % (len(message), message))
        answer = client.getresponse()
        body = answer.read()
        response = understood(200, {"content-type": str(answer.getheader("content-type"))}, body)
        assert response.messages == [b"first"]
        assert response.trailers["grpc-status"] == "4"
        client.close()


def test_a_browser_that_leaves_cancels_its_call() -> None:
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address))
        with raw(address) as client:
            body = framed(b"hi")
            head = b"Host: a\r\nContent-Type: application/grpc-web\r\nContent-Length: 7\r\n\r\n"
            client.say(b"POST /test.Echo/Hang HTTP/1.1\r\n", head, body)
            wait_until(lambda: backend.seen, "the call is there")
            assert numbers(driver)["calls_open"] == 1
        wait_until(lambda: numbers(driver)["calls_open"] == 0, "it is over")


@pytest.mark.parametrize("content_type", [BINARY, TEXT])
def test_a_call_over_http2(content_type: str, tmp_path: Path) -> None:
    body, out, head = tmp_path / "body", tmp_path / "out", tmp_path / "head"
    message = framed(b"hi")
    body.write_bytes(base64.b64encode(message) if content_type == TEXT else message)
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address))
        command = ["curl", "-sS", "--http2-prior-knowledge", "--max-time", "15"]
        files = ["--data-binary", f"@{body}", "-o", str(out), "-D", str(head)]
        fields = ["-H", f"content-type: {content_type}"]
        url = f"http://{address}/test.Echo/Unary"
        subprocess.run([*command, *files, *fields, url], check=True, timeout=20)
    status, *lines = head.read_text().strip().splitlines()
    assert status.startswith("HTTP/2 200")
    names = dict(line.split(": ", 1) for line in lines if line)
    response = understood(200, names, out.read_bytes())
    assert (response.messages, response.status) == ([b"hi"], 0)


def test_between_gateways_it_is_no_grpc() -> None:
    with core() as driver:
        address = serve(driver, simple(listeners=[listener(kind="east_west")]))
        client = http.client.HTTPConnection(address, timeout=15)
        client.request("POST", "/test.Echo/Unary", framed(b"hi"), {"content-type": BINARY})
        assert client.getresponse().status == 505
        client.close()
