"""Time-outs of a policy, one by one, as clients of real servers meet them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc

from tests.native.support import SERVICE, backends, call, channel, failure
from tests.testkit import standalone as kit
from tests.testkit.http2_server import http2_server, silence
from tests.testkit.ports import free_port

T = TypeVar("T")
EVERY_CALL = "[{backendRefs: [{name: echo, port: 9090}]}]"


@asynccontextmanager
async def gateway(folder: Path, endpoint: str, *policy: str) -> AsyncIterator[grpc.Channel]:
    port = free_port()
    documents = [
        kit.gateway(kit.plain(port)),
        kit.service("echo", int(endpoint.rpartition(":")[2])),
        kit.route("echo", EVERY_CALL),
        *([kit.policy("echo", *policy)] if policy else []),
    ]
    async with kit.standalone(folder, documents) as running:
        await running.until_said("listening")
        with channel(f"127.0.0.1:{port}") as client:
            yield client


def part(folder: Path, name: str) -> Path:
    """A folder of its own for one gateway of a test."""
    inner = folder / name
    inner.mkdir()
    return inner


async def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What ``work`` gave, and the seconds that it took."""
    began = time.monotonic()
    return await asyncio.to_thread(work), time.monotonic() - began


@contextlib.contextmanager
def deaf_endpoint() -> Iterator[str]:
    """An address where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_connect_timeout_bounds_tcp_tls_and_the_first_settings(tmp_path: Path) -> None:
    once = "retry: {attempts: 0}"
    with deaf_endpoint() as endpoint:
        short = "timeout: {tcp: {connectTimeout: 200ms}}"
        async with gateway(part(tmp_path, "short"), endpoint, once, short) as client:
            error, took = await timed(lambda: failure(client))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "no connection to the endpoint could be made" in error.details()
            assert 0.2 <= took < 2.5
        longer = "timeout: {tcp: {connectTimeout: 20s}}"
        async with gateway(part(tmp_path, "long"), endpoint, once, longer) as client:
            error, took = await timed(lambda: failure(client, timeout=3))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert took >= 2.9, "only the caller's own deadline ends the wait"


async def test_request_timeout_is_a_deadline_for_all_of_the_call(tmp_path: Path) -> None:
    # A gRPC server knows the deadline too, and its own word may come first.
    with http2_server(silence) as a:
        bound = "timeout: {http: {requestTimeout: 300ms}}"
        async with gateway(part(tmp_path, "bound"), a.address, bound) as client:
            error, took = await timed(lambda: failure(client, "Hang"))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert error.details().startswith("deadline of 300 ms exceeded")
            assert took >= 0.3
            error, _ = await timed(lambda: failure(client, "Hang", timeout=0.1))
            assert "300 ms" not in error.details(), "a caller's shorter deadline holds"
        off = "timeout: {http: {requestTimeout: 0s}}"
        async with gateway(part(tmp_path, "off"), a.address, off) as client:
            error, took = await timed(lambda: failure(client, "Hang", timeout=1))
            assert took >= 1, "0s switches it off"


class Stream:
    """A bidirectional stream that says something every so often, until told to end."""

    def __init__(self, client: grpc.Channel, every_s: float) -> None:
        self._end = threading.Event()
        self._every_s = every_s
        self._answers = client.stream_stream(f"/{SERVICE}/Bidi")(self._requests(), timeout=15)

    def _requests(self) -> Iterator[bytes]:
        yield b"first"
        while not self._end.wait(self._every_s):
            yield b"more"

    def outcome(self, answers: int) -> tuple[grpc.StatusCode, str]:
        """How it ended; after so many answers this side ends it."""
        try:
            for count, _ in enumerate(self._answers, start=1):
                if count >= answers:
                    self._end.set()
        except grpc.RpcError as error:
            self._end.set()
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


async def test_a_silent_stream_ends_and_a_busy_one_does_not(tmp_path: Path) -> None:
    with backends("a") as [a]:
        idle = "timeout: {http: {streamIdleTimeout: 400ms}}"
        async with gateway(tmp_path, a.address, idle) as client:
            silent = Stream(client, every_s=60)
            (code, words), took = await timed(lambda: silent.outcome(answers=2))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert words == "nothing was sent or received for 400 ms (idle timeout)"
            assert took >= 0.4
            busy = Stream(client, every_s=0.05)
            (code, _), took = await timed(lambda: busy.outcome(answers=20))
            assert code is grpc.StatusCode.OK
            assert took >= 0.9, "it lived for more than two idle times"


async def test_a_stream_of_the_greatest_age_ends_however_busy_it_is(tmp_path: Path) -> None:
    with backends("a") as [a]:
        bound = "timeout: {http: {maxStreamDuration: 500ms}}"
        async with gateway(part(tmp_path, "bound"), a.address, bound) as client:
            (code, words), took = await timed(
                lambda: Stream(client, every_s=0.02).outcome(answers=10_000)
            )
            assert code is grpc.StatusCode.UNAVAILABLE
            assert words == "the stream reached its greatest age of 500 ms: open it again"
            assert 0.5 <= took < 3
            assert (await asyncio.to_thread(call, client))[1] == "a", "short calls are not hit"
        async with gateway(part(tmp_path, "none"), a.address) as client:
            (code, _), took = await timed(lambda: Stream(client, every_s=0.02).outcome(answers=50))
            assert code is grpc.StatusCode.OK
            assert took >= 0.9
