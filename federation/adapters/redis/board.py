"""``ports.QuotaBoard`` on Redis or Valkey: one hash for each window of time.

Decides: windows by the server's own clock, so that no clocks are compared between clusters; keys
``PREFIX:WINDOW``, each alone in its commands (a clustered server may put them anywhere), and gone
some windows later.
Leaves to others: what clusters write, what follows from it (``quota``).
Invariants: a page that was returned changes no more, but for a write that was on its way when the
window ended; an exchange ends within ``EXCHANGE_S``; a password in the URL is never shown.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import redis.asyncio as client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from federation.ports import BoardPage, StoreRefused, StoreUnavailable

SCHEMES = ("redis", "rediss", "unix")
EXCHANGE_S = 0.8
"""Longer than any healthy answer, and shorter than a window."""

KEPT_WINDOWS = 10


class RedisUrlError(ValueError):
    """The URL is none of Redis; the message says why, without the password."""


class RedisBoard:
    """One connection; lost ones are made again at the next exchange."""

    def __init__(
        self, url: str, *, prefix: str = "federation:quota", window_ms: int = 1_000
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise RedisUrlError(f"must begin with one of {', '.join(f'{s}://' for s in SCHEMES)}")
        self._where = parts.hostname or parts.path
        try:
            if parts.port is not None:
                self._where += f":{parts.port}"
        except ValueError:  # shows what stands there, which is the password if that has a slash
            raise RedisUrlError(
                "what follows the host is no port from 0 to 65535; write `/`, `?`, `#` and `@` of "
                "a password as %2F, %3F, %23 and %40"
            ) from None
        try:
            self._client = client.Redis.from_url(
                url,
                socket_timeout=EXCHANGE_S,
                socket_connect_timeout=EXCHANGE_S,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise RedisUrlError(str(error)) from error
        self._prefix = prefix
        self._window_ms = window_ms

    def __repr__(self) -> str:
        return f"RedisBoard({self._where})"

    async def exchange(self, cluster: str, value: bytes) -> BoardPage:
        """Implements ``ports.QuotaBoard``."""
        try:
            async with asyncio.timeout(EXCHANGE_S):
                return await self._exchange(cluster, value)
        except (AuthenticationError, NoPermissionError) as error:
            raise StoreRefused(f"the rate limit store at {self._where} refused: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            why = str(error) or f"no answer within {EXCHANGE_S} s"
            raise StoreUnavailable(
                f"the rate limit store at {self._where} is away: {why}"
            ) from error

    async def _exchange(self, cluster: str, value: bytes) -> BoardPage:
        seconds, micros = await self._client.time()
        window = (seconds * 1_000 + micros // 1_000) // self._window_ms
        present = f"{self._prefix}:{window}"
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in (
                ("HSET", present, cluster, value),
                ("PEXPIRE", present, KEPT_WINDOWS * self._window_ms),
                ("HGETALL", f"{self._prefix}:{window - 1}"),
            ):
                _queued = pipeline.execute_command(*command)
            _, _, before = await pipeline.execute()
        return BoardPage(
            window=window - 1,
            entries={name.decode(errors="replace"): entry for name, entry in before.items()},
        )

    async def close(self) -> None:
        """Implements ``ports.QuotaBoard``."""
        await self._client.aclose()
