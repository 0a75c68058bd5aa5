"""The lab's relay with real sockets: it carries, it delays, it black-holes, it passes resets on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from federation.cli.lab.plan import RelayRoute
from federation.cli.lab.relay import HELD_BYTES_MAX, Route


def free_address() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


@asynccontextmanager
async def echo_behind_relay(*, delay_s: float = 0.0) -> AsyncIterator[tuple[Route, str]]:
    """A route to an echo server, which ends with the route's connections."""
    echoing: list[asyncio.Task[None]] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoing.append(asyncio.create_task(echo(reader, writer)))

    target = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    plan = RelayRoute(listen=free_address(), target=f"127.0.0.1:{port}", region="b")
    route = Route(plan, delay_s=delay_s)
    await route.listen()
    try:
        yield route, route.plan.listen
    finally:
        await route.close()
        target.close()
        await asyncio.gather(*echoing)


async def dial(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = address.split(":")
    return await asyncio.open_connection(host, int(port))


async def test_bytes_and_ends_pass_in_order() -> None:
    async with echo_behind_relay() as (_, address):
        reader, writer = await dial(address)
        sent = bytes(range(256)) * 4_096
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent
        writer.close()


async def test_a_round_trip_takes_the_delay_of_both_directions() -> None:
    async with echo_behind_relay(delay_s=0.03) as (_, address):
        reader, writer = await dial(address)
        started = time.monotonic()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert time.monotonic() - started >= 0.06
        writer.close()


async def test_a_black_hole_holds_bytes_and_a_heal_lets_them_pass() -> None:
    async with echo_behind_relay() as (route, address):
        reader, writer = await dial(address)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        route.valve.set(is_open=False)
        writer.write(b"during")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), timeout=0.2)
        route.valve.set(is_open=True)
        assert await reader.readexactly(6) == b"during"
        writer.close()


async def test_a_black_hole_accepts_and_stays_silent() -> None:
    async with echo_behind_relay() as (route, address):
        route.valve.set(is_open=False)
        reader, writer = await dial(address)
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), timeout=0.2)
        route.valve.set(is_open=True)
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_what_a_black_hole_holds_is_bounded() -> None:
    """The relay stops reading at its bound, so the sender blocks instead of the relay growing."""
    async with echo_behind_relay() as (route, address):
        route.valve.set(is_open=False)
        _, writer = await dial(address)
        writer.write(b"x" * (64 * HELD_BYTES_MAX))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), timeout=0.3)
        writer.transport.abort()
        route.valve.set(is_open=True)


async def test_a_refused_target_ends_the_connection() -> None:
    plan = RelayRoute(listen=free_address(), target=free_address(), region="b")
    route = Route(plan, delay_s=0.0)
    await route.listen()
    reader, writer = await dial(plan.listen)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read(1) == b""
    writer.close()
    await route.close()
