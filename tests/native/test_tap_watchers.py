"""Watchers of a gateway's tap, around a real core and real calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from aiohttp import ClientSession, web

from gateway import tap
from gateway.driver import Driver
from gateway.tap import TapRefused, Taps, write_lines
from tests.integration.discovery_support import eventually
from tests.native.support import backends, call, channel, core, serve, simple


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[Driver, Taps, grpc.Channel]]:
    with (
        backends("a") as [a],
        core() as driver,
        channel(serve(driver, simple(a.address))) as client,
    ):
        core_of = driver._core  # the methods that the shell's admin endpoint uses
        yield driver, Taps(core_of, lambda: json.loads(core_of.stats())), client


async def calls(client: grpc.Channel, number: int) -> None:
    def make() -> None:
        for _ in range(number):
            call(client)

    await asyncio.to_thread(make)


async def told(lines: Any, number: int) -> list[dict[str, Any]]:
    """The next calls that are told."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(found) < number:
            if (line := await anext(lines)).strip():
                found.append(json.loads(line))
    return found


async def test_watchers_of_one_filter_share_it_and_another_is_refused() -> None:
    async with gateway() as (_, taps, client):
        wanted = {"method": "test.Echo/Unary"}
        async with aclosing(taps.watch(wanted)) as one, aclosing(taps.watch(wanted)) as two:
            assert await anext(one) == await anext(two) == b"\n"
            await calls(client, 3)
            for lines in (one, two):
                assert [it["method"] for it in await told(lines, 3)] == ["/test.Echo/Unary"] * 3
            with pytest.raises(TapRefused, match="another tap is on, with the filter"):
                await anext(taps.watch({"code": "OK"}))
        assert repr(taps) == "Taps(0 watch)"
        async with aclosing(taps.watch({"code": "OK"})) as other:
            await anext(other)
            await calls(client, 1)
            assert (await told(other, 1))[0]["grpc_status"] == "OK"


async def test_a_filter_that_the_core_does_not_know_is_refused() -> None:
    async with gateway() as (_, taps, _client):
        with pytest.raises(TapRefused, match="code"):
            await anext(taps.watch({"code": "NO_SUCH"}))
        assert repr(taps) == "Taps(0 watch)"


async def test_what_a_slow_watcher_misses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "WAITING_MAX", 5)
    async with gateway() as (_, taps, client):
        async with aclosing(taps.watch({"calls_per_s_max": 10_000})) as slow:
            await anext(slow)
            await calls(client, 40)
            (watcher,) = taps._watchers
            await eventually(lambda: watcher.left_out == 35)
            found = await told(slow, 6)
        assert [("left_out" in it) for it in found] == [False] * 5 + [True]
        assert found[-1]["left_out"] == 35


async def test_so_many_watch_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "WATCHERS_MAX", 1)
    async with gateway() as (_, taps, _client), aclosing(taps.watch({})) as one:
        await anext(one)
        with pytest.raises(TapRefused, match="1 watch already"):
            await anext(taps.watch({}))


async def test_the_tap_ends_when_its_reader_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "SIGN_EVERY_S", 0.05)
    async with gateway() as (_, taps, client):

        async def serve_tap(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse()
            await answer.prepare(request)
            await write_lines(taps.watch({}), answer.write)
            return answer

        application = web.Application()
        application.router.add_get("/tap", serve_tap)
        runner = web.AppRunner(application, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/tap"
        async with ClientSession() as http, http.get(url) as answer:
            await answer.content.readline()
            await calls(client, 1)
            async with asyncio.timeout(20):
                while not (line := await answer.content.readline()).strip():
                    pass
            assert json.loads(line)["method"] == "/test.Echo/Unary"
            assert repr(taps) == "Taps(1 watch)"
        await eventually(lambda: repr(taps) == "Taps(0 watch)")
        await runner.cleanup()


async def test_a_reader_who_stalls_loses_the_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "WRITE_S", 0.1)

    async def stalled(_line: bytes) -> None:
        await asyncio.Event().wait()

    async with gateway() as (_, taps, _client):
        async with asyncio.timeout(20):
            await write_lines(taps.watch({}), stalled)
        async with aclosing(taps.watch({"code": "OK"})) as other:
            assert await anext(other) == b"\n"


async def test_watchers_end_when_the_core_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as (_, taps, _client):
        async with aclosing(taps.watch({})) as lines:
            await anext(lines)
            monkeypatch.setattr(tap, "TAKEN_MAX", -1)  # no such number to the core
            async with asyncio.timeout(20):
                assert [line async for line in lines if line.strip()] == []
        monkeypatch.undo()
        async with aclosing(taps.watch({"code": "OK"})) as other:
            assert await anext(other) == b"\n"


async def test_who_comes_while_watchers_of_a_failed_tap_leave_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with gateway() as (_, taps, client), aclosing(taps.watch({})) as former:
        await anext(former)
        monkeypatch.setattr(tap, "TAKEN_MAX", -1)  # no such number to the core
        async with asyncio.timeout(20):
            assert [line async for line in taps.watch({}) if line.strip()] == []
        monkeypatch.undo()
        async with aclosing(taps.watch({})) as lines:  # `former` has not left yet
            await anext(lines)
            await former.aclose()
            await calls(client, 1)
            assert len(await told(lines, 1)) == 1
