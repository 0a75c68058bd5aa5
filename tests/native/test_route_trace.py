"""The tester's choice of a route is the core's: random tables and requests, asked of both.

Every route answers by itself with a message that names it, so that the answer tells which one took
the request.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest

from federation.derive.route_trace import Request, trace
from federation.model.http import QueryMatch
from federation.model.snapshot import (
    FilterChain,
    HeaderMatch,
    Listener,
    ListenerKind,
    MatchKind,
    PathMatch,
    Refuse,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
)
from federation.wire.xds_routes import route_configuration
from gateway.xds_translate.routes import translate_routes
from tests.native.http1 import Raw
from tests.native.support import channel, core, listener, serve, update

LISTENER = Listener("public", ListenerKind.INGRESS, 80, (FilterChain("all"),), "main")
HOSTS = ("grpc.example.com", "*.example.com", "*.b.example.com", "example.com", "*")
ASKED_HOSTS = (
    *("grpc.example.com", "GRPC.Example.com:443", "a.b.example.com", "b.example.com"),
    *("example.com.", ".example.com", "other.org", "x.y.b.example.com"),
)
PATHS = ("/a.S/M", "/a.S/N", "/a.S/", "/b.S/M", "/a.S", "/a.S/M/more", "/", "/b.S/M1")
WORDS = ("x", "y", "xy", "", "x y", "X")
PATH_MATCHES = (
    *(PathMatch(MatchKind.EXACT, path) for path in ("/a.S/M", "/b.S/M")),
    *(PathMatch(MatchKind.PREFIX, path) for path in ("/a.S/", "/", "/b")),
    *(PathMatch(MatchKind.SEGMENTS, path) for path in ("/b.S", "/a.S", "/a.S/M")),
    *(PathMatch(MatchKind.REGEX, path) for path in ("/[^/]+/M", "/a\\.S/(M|N)", "/b.*[0-9]$")),
)


def a_match(draw: random.Random) -> RouteMatch:
    headers = tuple(
        HeaderMatch(name, kind, draw.choice(("x", "y", "x|y", "[a-y]+", ".*")))
        for name in ("x-one", "x-two")
        for kind in (draw.choice((MatchKind.EXACT, MatchKind.REGEX)),)
        if draw.random() < 0.3
    )
    query = (QueryMatch("q", draw.choice(("1", "2", "[0-9]*")), draw.random() < 0.5),)
    return RouteMatch(
        path=draw.choice(PATH_MATCHES),
        headers=headers,
        grpc=draw.random() < 0.6,
        query=query if draw.random() < 0.2 else (),
        method=draw.choice(("", "", "", "GET", "POST")),
    )


def a_table(draw: random.Random) -> RouteTable:
    hosts = []
    for hostname in draw.sample(HOSTS, draw.randint(1, len(HOSTS))):
        routes = tuple(
            Route(
                name=f"{hostname}-{number}",
                rule=f"{hostname}-{number}",
                match=a_match(draw),
                action=Refuse(f"taken by {hostname}-{number}", 503),
            )
            for number in range(draw.randint(1, 6))
        )
        hosts.append(VirtualHost(hostname, routes))
    return RouteTable("main", tuple(hosts))


def a_request(draw: random.Random) -> Request:
    is_grpc = draw.random() < 0.6
    query = draw.choice(("", "", "?q=1", "?q=2&q=1", "?p=1&q", "?q=12"))
    headers = tuple(
        (name, draw.choice(WORDS)) for name in ("x-one", "x-two", "x-one") if draw.random() < 0.4
    )
    return Request(
        host=draw.choice(ASKED_HOSTS),
        path=draw.choice(PATHS) + query,
        headers=headers,
        grpc=is_grpc,
        method="POST" if is_grpc else draw.choice(("GET", "POST")),
    )


@dataclass
class Asked:
    """The core, asked over gRPC or HTTP/1.1."""

    address: str

    def takes(self, request: Request) -> str:
        """Who took the request; empty: nobody."""
        said = self._by_grpc(request) if request.grpc else self._by_http(request)
        return said.partition("taken by ")[2].strip()

    def _by_grpc(self, request: Request) -> str:
        options = [("grpc.default_authority", request.host)]
        with channel(self.address, options=options) as client:
            call = client.unary_unary(request.path)
            with pytest.raises(grpc.RpcError) as failed:
                call(b"", metadata=request.headers, timeout=10)
        return str(failed.value.details())

    def _by_http(self, request: Request) -> str:
        host, port = self.address.rsplit(":", 1)
        lines = [
            f"{request.method} {request.path} HTTP/1.1",
            f"Host: {request.host}",
            *(f"{name}: {value}" for name, value in request.headers),
            "Content-Length: 0",
            "Connection: close",
        ]
        with contextlib.closing(socket.create_connection((host, int(port)), 10)) as sock:
            raw = Raw(sock)
            raw.say("\r\n".join([*lines, "", ""]).encode())
            return raw.answer().body.decode()


@contextlib.contextmanager
def serving(table: RouteTable) -> Iterator[Asked]:
    tables = [translate_routes(route_configuration(table)).body]
    with core() as driver:
        address = serve(
            driver,
            update(listeners=[listener()], route_tables=tables, clusters=[], endpoints=[]),
        )
        yield Asked(address)


@pytest.mark.parametrize("seed", range(12))
def test_the_traced_route_is_the_one_that_the_core_takes(seed: int) -> None:
    draw = random.Random(seed)
    table = a_table(draw)
    with serving(table) as asked:
        for _ in range(40):
            request = a_request(draw)
            taken = trace(table, LISTENER, request).route
            assert asked.takes(request) == (taken.rule if taken else ""), request


def test_every_way_to_match_is_met() -> None:
    """Else the comparison above would say nothing about it."""
    draw = random.Random(0)
    taken = set()
    for _ in range(2000):
        table = a_table(draw)
        found = trace(table, LISTENER, a_request(draw)).route
        if found is not None:
            match = found.match
            taken |= {match.path.kind, *(header.kind for header in match.headers)}
            taken |= {"query"} if match.query else set()
            taken |= {"method"} if match.method else set()
    assert taken == {*MatchKind, "query", "method"}
