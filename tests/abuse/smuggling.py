"""Requests that two readers might take for different ones.

Each is refused by the gateway (the stream reset, or an answer of its own): the backend never sees
it.
"""

from __future__ import annotations

import json

import grpc

from tests.abuse.attack import Attack, Fate, Stage, Target
from tests.abuse.backend import CASE_KEY, CASES, ECHO
from tests.abuse.wire import (
    END_HEADERS,
    END_STREAM,
    Attacker,
    Header,
    frame,
    message,
    request_headers,
)

ANSWER_TIMEOUT_S = 3.0
BODY = message(b"body")

EXTRA: dict[str, Header] = {
    "CR in a value": (b"x-a", b"1\r2"),
    "LF in a value": (b"x-a", b"1\n2"),
    "CR LF and a field in a value": (b"x-a", b"1\r\nx-b: 2"),
    "NUL in a value": (b"x-a", b"1\x002"),
    "space before a value": (b"x-a", b" 1"),
    "tab behind a value": (b"x-a", b"1\t"),
    "CR LF in a name": (b"x-a\r\nx-b", b"1"),
    "space in a name": (b"x a", b"1"),
    "colon in a name": (b"x:a", b"1"),
    "empty name": (b"", b"1"),
    "upper case name": (b"X-A", b"1"),
    "name of 8 bits": (b"x-\xe9", b"1"),
    "connection": (b"connection", b"keep-alive"),
    "connection names a field": (b"connection", b"x-a"),
    "keep-alive": (b"keep-alive", b"timeout=5"),
    "proxy-connection": (b"proxy-connection", b"keep-alive"),
    "transfer-encoding": (b"transfer-encoding", b"chunked"),
    "upgrade": (b"upgrade", b"h2c"),
    "te of something else": (b"te", b"gzip"),
    "te of two": (b"te", b"trailers, deflate"),
    "pseudo header behind the others": (b":path", b"/other"),
    "unknown pseudo header": (b":evil", b"1"),
    "status in a request": (b":status", b"200"),
    "content-length too small": (b"content-length", b"3"),
    "content-length too large": (b"content-length", b"3000"),
    "content-length with a sign": (b"content-length", b"+9"),
    "content-length as a list": (b"content-length", b"9, 9"),
    "content-length of no number": (b"content-length", b"0x9"),
    "content-length out of range": (b"content-length", b"99999999999999999999999"),
}
"""One field more than a good request has."""

CHANGED: dict[str, Header] = {
    "empty path": (b":path", b""),
    "path without a slash": (b":path", ECHO[1:].encode()),
    "path of a whole URI": (b":path", b"http://other" + ECHO.encode()),
    "path of a star": (b":path", b"*"),
    "path with a space": (b":path", ECHO.encode() + b" HTTP/1.1"),
    "path with CR LF": (b":path", ECHO.encode() + b"\r\nx-a: 1"),
    "path with NUL": (b":path", ECHO.encode() + b"\0"),
    "path with a fragment": (b":path", ECHO.encode() + b"#x"),
    "path of 8 bits": (b":path", ECHO.encode() + b"\xff"),
    "authority with a space": (b":authority", b"back end"),
    "authority with CR LF": (b":authority", b"backend\r\nx-a: 1"),
    "authority with user info": (b":authority", b"user:word@backend"),
    "authority with a path": (b":authority", b"backend/other"),
    "method with a space": (b":method", b"POST /other"),
    "method of CONNECT": (b":method", b"CONNECT"),
    "scheme of nonsense": (b":scheme", b"java script"),
    "scheme of none": (b":scheme", b""),
}
"""A pseudo header with another value."""

TWICE = (b":method", b":scheme", b":authority", b":path")
MISSING = (b":method", b":scheme", b":path")


def _cases() -> dict[str, list[Header]]:
    good = request_headers(ECHO)
    cases = {name: [*good, field] for name, field in EXTRA.items()}
    for name, (key, value) in CHANGED.items():
        cases[name] = [(key, value) if each[0] == key else each for each in good]
    for key in TWICE:
        cases[f"{key.decode()} twice"] = [each for each in good if each[0] == key] + good
    for key in MISSING:
        cases[f"no {key.decode()}"] = [each for each in good if each[0] != key]
    lengths = [(b"content-length", b"9"), (b"content-length", b"8")]
    cases["host twice"] = [*good, (b"host", b"backend"), (b"host", b"other")]
    cases["content-length twice"] = [*good, *lengths]
    return cases


def _run(target: Target, _stage: Stage) -> Fate:
    cases = _cases()
    for number, (name, fields) in enumerate(cases.items()):
        with Attacker(target.port) as attacker:
            _send(attacker, [*fields, (CASE_KEY.encode(), f"{number}".encode())])
            attacker.wait_for_answer(1, ANSWER_TIMEOUT_S)
            if not (attacker.answers or attacker.resets or attacker.ended):
                return Fate("unanswered", f"no answer to: {name}")
    seen = _seen(target)
    let_through = [name for number, name in enumerate(cases) if str(number) in seen]
    fault = f"reached the backend: {', '.join(let_through)}" if let_through else None
    return Fate(f"{len(cases) - len(let_through)} of {len(cases)} shapes refused", fault)


def _send(attacker: Attacker, fields: list[Header]) -> None:
    block = attacker.encoder.encode(fields, huffman=False)
    attacker.send(
        frame("headers", 1, block, flags=END_HEADERS) + frame("data", 1, BODY, flags=END_STREAM)
    )


def _seen(target: Target) -> set[str]:
    with grpc.insecure_channel(f"127.0.0.1:{target.backend_port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CASES)
        return set(json.loads(call(b"", timeout=ANSWER_TIMEOUT_S, wait_for_ready=True)))


ATTACKS = (Attack("smuggling", _run, "stream_errors", 40),)
