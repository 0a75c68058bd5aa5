"""WebSockets through the gateway, by aiohttp at both ends (RFC 6455)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from tests.native.http1 import get, raw
from tests.native.support import cluster, core, numbers, route, serve, simple, table, wait_until

HTTP1 = {"clusters": [cluster(protocol="http1")]}
TIMEOUT = aiohttp.ClientTimeout(total=20)


class Chat:
    """A server that sends back what it gets; ``bye`` makes it close."""

    def __init__(self) -> None:
        self.closed: list[int | None] = []
        self.protocols: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("chat",))
        if not socket.can_prepare(request):
            return web.Response(text="no WebSocket was asked for")
        await socket.prepare(request)
        self.protocols.append(str(socket.ws_protocol))
        async for message in socket:
            if message.data == "bye":
                await socket.close(code=4000, message=b"as you wish")
            elif message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        self.closed.append(socket.close_code)
        return socket


@asynccontextmanager
async def chat() -> AsyncIterator[tuple[Chat, str]]:
    server = Chat()

    async def refuse(_: web.Request) -> web.Response:
        raise web.HTTPForbidden(text="not you")

    app = web.Application()
    app.router.add_get("/chat", server.handle)
    app.router.add_get("/closed", refuse)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield server, f"{host}:{port}"
    finally:
        await runner.cleanup()


async def until(condition: object, what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what)  # type: ignore[arg-type]


def leave_without_a_word(address: str) -> None:
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    fields = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
    with raw(address) as client:
        client.say(get("/chat", *fields))
        answer = client.answer()
        assert (answer.status, answer.get("upgrade")) == (101, "websocket")
        assert answer.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def test_messages_pass_in_both_directions() -> None:
    with core() as driver:
        async with chat() as (server, there), aiohttp.ClientSession(timeout=TIMEOUT) as client:
            address = serve(driver, simple(there, **HTTP1))
            async with client.ws_connect(f"http://{address}/chat", protocols=("chat",)) as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello"
                large = bytes(3_000_000)
                for _ in range(3):
                    await socket.send_bytes(large)
                for _ in range(3):
                    assert await socket.receive_bytes() == large
                await socket.ping()
                await socket.send_str("bye")
                end = await socket.receive()
                assert (end.type, end.data) == (WSMsgType.CLOSE, 4000)
            assert server.protocols == ["chat"]
            await until(lambda: numbers(driver)["calls_open"] == 0, "the call has ended")
            await until(lambda: numbers(driver)["upstream_connections"] == 0, "nothing is kept")


async def test_the_end_of_a_client_reaches_the_server() -> None:
    with core() as driver:
        async with chat() as (server, there), aiohttp.ClientSession(timeout=TIMEOUT) as client:
            address = serve(driver, simple(there, **HTTP1))
            socket = await client.ws_connect(f"http://{address}/chat")
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            await socket.close(code=4001)
            await until(lambda: server.closed == [4001], "the server learns the code")
            await asyncio.to_thread(leave_without_a_word, address)
            await until(lambda: len(server.closed) == 2, "the server learns the end")


async def test_a_refused_websocket_is_an_answer_like_any_other() -> None:
    with core() as driver:
        async with chat() as (_, there), aiohttp.ClientSession(timeout=TIMEOUT) as client:
            address = serve(driver, simple(there, **HTTP1))
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await client.ws_connect(f"http://{address}/closed")
            assert error.value.status == 403
            async with client.get(f"http://{address}/chat") as answer:
                assert await answer.text() == "no WebSocket was asked for"


async def test_silence_ends_a_websocket() -> None:
    routes = [table(route("echo", idle_timeout_ms=300, timeout_ms=200))]
    with core() as driver:
        async with chat() as (_, there), aiohttp.ClientSession(timeout=TIMEOUT) as client:
            address = serve(driver, simple(there, **HTTP1, route_tables=routes))
            async with client.ws_connect(f"http://{address}/chat") as socket:
                end_of_response_s = time.monotonic() + 0.25
                while time.monotonic() < end_of_response_s:
                    await socket.send_str("still here, past the time for a response")
                    await socket.receive_str()
                end = await socket.receive(timeout=10)
                assert end.type in (WSMsgType.CLOSED, WSMsgType.CLOSE, WSMsgType.ERROR)


async def test_an_endpoint_of_http2_is_not_asked_for_one() -> None:
    with core() as driver:
        async with chat() as (_, there), aiohttp.ClientSession(timeout=TIMEOUT) as client:
            address = serve(driver, simple(there))
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await client.ws_connect(f"http://{address}/chat")
            assert error.value.status == 501


async def test_a_drain_ends_websockets() -> None:
    with core() as driver:
        async with chat() as (server, there), aiohttp.ClientSession(timeout=TIMEOUT) as client:
            address = serve(driver, simple(there, **HTTP1))
            async with client.ws_connect(f"http://{address}/chat") as socket:
                driver.drain(300)
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello", "it goes on until the deadline"
                end = await socket.receive(timeout=10)
                assert end.type in (WSMsgType.CLOSED, WSMsgType.CLOSE, WSMsgType.ERROR)
            await until(lambda: driver.drained, "nothing is left")
            await until(lambda: len(server.closed) == 1, "the server learns the end")
