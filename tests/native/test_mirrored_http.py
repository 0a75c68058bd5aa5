"""Copies of requests that are not gRPC, to endpoints of HTTP/1.1."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import aiohttp

from tests.native.support import (
    cluster,
    core,
    endpoints,
    locality,
    numbers,
    route,
    serve,
    simple,
    table,
    update,
    wait_until,
)
from tests.native.support import listener as entrance
from tests.native.test_http1_upstream import HTTP1, ask, origin
from tests.native.test_websocket import TIMEOUT, chat


def test_requests_of_http1_are_copied_with_their_bodies() -> None:
    with origin() as main, origin() as copy, core() as driver:
        configuration = update(
            listeners=[entrance()],
            route_tables=[table(route("echo", mirrors=[{"cluster": "copy"}]))],
            clusters=[cluster(protocol="http1"), cluster("copy", protocol="http1")],
            endpoints=[
                endpoints(locality(main.address)),
                endpoints(locality(copy.address), name="copy"),
            ],
        )
        address = serve(driver, configuration)
        for number in range(10):
            status, seen = ask(address, "POST", f"/{number}", body=b"x" * 20_000)
            assert (status, seen["body"]) == (200, 20_000)
            wait_until(lambda number=number: copy.requests == number + 1, "its copy arrives")
        counted = numbers(driver)
        assert (counted["mirror_copies"], counted["mirror_copies_dropped"]) == (10, 0)
        assert len(copy.connections) <= 2, "connections are used again after a copy"
        assert main.requests == 10


def test_a_request_gets_the_connection_that_a_copy_had() -> None:
    gate = threading.Event()
    with (
        origin() as main,
        origin(gate=gate) as other,
        core() as driver,
        ThreadPoolExecutor(1) as pool,
    ):
        to_other = route("other", name="other", match={"path": {"prefix": "/other"}})
        mirrored = route("echo", mirrors=[{"cluster": "other"}])
        configuration = simple(
            route_tables=[table(to_other, mirrored)],
            clusters=[
                cluster(protocol="http1"),
                cluster("other", protocol="http1", max_connections=1),
            ],
            endpoints=[
                endpoints(locality(main.address)),
                endpoints(locality(other.address), name="other"),
            ],
        )
        address = serve(driver, configuration)
        assert ask(address)[0] == 200
        wait_until(lambda: other.requests == 1, "the copy has the only connection")
        asked = pool.submit(ask, address, "GET", "/other")
        wait_until(lambda: numbers(driver)["calls_open"] == 1, "the request waits for it")
        gate.set()
        assert asked.result()[0] == 200


async def test_a_websocket_is_not_copied() -> None:
    """Its two sides answer each other: one of them alone is no copy of it."""
    with core() as driver:
        async with chat() as (_, there), aiohttp.ClientSession(timeout=TIMEOUT) as client:
            routes = [table(route("echo", mirrors=[{"cluster": "echo"}]))]
            address = serve(driver, simple(there, **HTTP1 | {"route_tables": routes}))
            async with client.ws_connect(f"http://{address}/chat") as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello"
            assert numbers(driver)["mirror_copies"] == 0
