"""The quota board on a real Redis: pages of closed windows, and what happens when it is away."""

from __future__ import annotations

import asyncio
import json

import pytest

from federation.adapters.redis import RedisBoard, RedisUrlError
from federation.ports import StoreRefused, StoreUnavailable
from tests.testkit.redis import RedisServer, running_redis


async def page_with(board: RedisBoard, cluster: str, value: bytes) -> tuple[int, dict[str, bytes]]:
    """The first page that has what this cluster writes from now on."""
    async with asyncio.timeout(20):
        while True:
            page = await board.exchange(cluster, value)
            if page.entries.get(cluster) == value:
                return page.window, dict(page.entries)
            await asyncio.sleep(0.02)


async def test_clusters_read_the_same_page_of_the_window_before() -> None:
    with running_redis() as redis:
        west, east = RedisBoard(redis.url, window_ms=300), RedisBoard(redis.url, window_ms=300)
        try:
            pages: dict[int, list[dict[str, bytes]]] = {}

            async def write(board: RedisBoard, cluster: str) -> None:
                turn = 0
                while len(pages) < 5:
                    turn += 1
                    page = await board.exchange(cluster, json.dumps(turn).encode())
                    pages.setdefault(page.window, []).append(dict(page.entries))

            await asyncio.gather(write(west, "west"), write(east, "east"))
            read = [found for found in pages.values() if len(found) > 1]
            # But for a write that was on its way when its window ended.
            settled = [found for found in read if all(entry == found[-1] for entry in found[2:])]
            assert len(settled) == len(read) >= 4
            assert any(found[-1].keys() == {"west", "east"} for found in settled)
        finally:
            await west.close()
            await east.close()


async def test_a_store_that_is_away_is_named_and_found_again() -> None:
    with running_redis() as redis:
        board = RedisBoard(redis.url)
        try:
            await page_with(board, "west", b"1")
            redis.kill()
            with pytest.raises(
                StoreUnavailable, match=r"rate limit store at 127\.0\.0\.1:\d+ is away"
            ):
                await board.exchange("west", b"2")
            await asyncio.to_thread(redis.start)
            _, entries = await page_with(board, "west", b"3")
            assert entries == {"west": b"3"}
        finally:
            await board.close()


async def test_a_store_that_does_not_answer_is_away_within_a_second() -> None:
    with running_redis() as redis:
        board = RedisBoard(redis.url)
        try:
            await board.exchange("west", b"1")
            redis.freeze()
            async with asyncio.timeout(5):
                with pytest.raises(StoreUnavailable, match="is away"):
                    await board.exchange("west", b"2")
            redis.thaw()
            await page_with(board, "west", b"3")
        finally:
            await board.close()


async def test_a_password_is_asked_for_and_never_shown() -> None:
    with running_redis() as redis:
        redis.kill()
        await asyncio.to_thread(redis.start, "--requirepass", "right")
        for url in (redis.url, redis.url.replace("//", "//:wrong-secret@")):
            board = RedisBoard(url)
            try:
                with pytest.raises((StoreRefused, StoreUnavailable)) as refused:
                    await board.exchange("west", b"1")
                assert "secret" not in f"{refused.value} {board!r}"
            finally:
                await board.close()
        board = RedisBoard(redis.url.replace("//", "//:right@"))
        try:
            await board.exchange("west", b"1")
        finally:
            await board.close()


async def test_old_windows_are_removed() -> None:
    with running_redis() as redis:
        board = RedisBoard(redis.url, window_ms=50)
        try:
            first = (await board.exchange("west", b"1")).window
            while (await board.exchange("west", b"1")).window < first + 20:
                pass
            keys = await keys_of(redis)
            assert 0 < keys < 20, "fewer windows are kept than were written"
        finally:
            await board.close()


async def keys_of(redis: RedisServer) -> int:
    port = int(redis.url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"DBSIZE\r\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(answer[1:])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://:secret@host", "must begin with one of redis://, rediss://, unix://"),
        ("redis://:secret@host:notaport", "is no port from 0 to 65535"),
        ("redis://:secret/of@host:6379", "write `/`, .* of a password as %2F"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(RedisUrlError, match=message) as refused:
        RedisBoard(url)
    assert "secret" not in str(refused.value)
