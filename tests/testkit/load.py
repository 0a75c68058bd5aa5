"""Load for end-to-end tests: steady unary calls and long streams through a gateway, all recorded.

An open loop: calls start on a fixed beat whatever the earlier ones do, so that a stall shows as
many slow calls, not as fewer calls.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc

from federation.cli.lab.protos import user_service_pb2 as pb

AUTHORITY = "grpc.example.com"
SERVICE = "/com.example.api.UserService"


@dataclass(frozen=True, slots=True)
class Call:
    """One unary call: when it started (monotonic), how long it took, who answered or failed."""

    started: float
    took_s: float
    cluster: str = ""
    served_by: str = ""
    error: str = ""

    @property
    def ended(self) -> float:
        return self.started + self.took_s


@dataclass(slots=True)
class Load:
    """What has been recorded so far."""

    calls: list[Call] = field(default_factory=list)

    @property
    def failed(self) -> list[Call]:
        return [call for call in self.calls if call.error]

    def since(self, at: float) -> list[Call]:
        """Calls that started at or after ``at``."""
        return [call for call in self.calls if call.started >= at]

    def by_cluster(self, calls: list[Call] | None = None) -> collections.Counter[str]:
        chosen = self.calls if calls is None else calls
        return collections.Counter(call.cluster for call in chosen if not call.error)


def channel(
    target: str, ca: bytes | None, *, number: int = 0, authority: str = AUTHORITY
) -> grpc.aio.Channel:
    """A channel to a gateway's listener, by TLS unless ``ca`` is ``None``; ``number`` keeps
    channels from sharing connections."""
    options = (
        ("grpc.default_authority", authority),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("federation.test.number", number),
    )
    if ca is None:
        return grpc.aio.insecure_channel(target, options=options)
    named = ("grpc.ssl_target_name_override", authority)
    return grpc.aio.secure_channel(
        target, grpc.ssl_channel_credentials(ca), options=(named, *options)
    )


async def get_user(
    target: grpc.aio.Channel, *, metadata: tuple[tuple[str, str], ...] = (), timeout_s: float = 10.0
) -> Call:
    """One GetUser call, recorded rather than raised."""
    call = target.unary_unary(
        f"{SERVICE}/GetUser",
        request_serializer=pb.GetUserRequest.SerializeToString,
        response_deserializer=pb.GetUserResponse.FromString,
    )(pb.GetUserRequest(user_id="1"), timeout=timeout_s, metadata=metadata)
    started = time.monotonic()
    try:
        initial = await call.initial_metadata()
        await call
    except grpc.aio.AioRpcError as error:
        return Call(
            started,
            time.monotonic() - started,
            error=f"{error.code().name}: {error.details()}",
        )
    served_by = str(dict(initial).get("x-served-by", "?"))
    return Call(
        started,
        time.monotonic() - started,
        cluster=served_by.partition("/")[0],
        served_by=served_by,
    )


@contextlib.asynccontextmanager
async def steady(
    target: str, ca: bytes | None, *, rate: int, channels: int = 4
) -> AsyncIterator[Load]:
    """Call ``target`` ``rate`` times a second while the block runs; then wait for what is open."""
    load = Load()
    stop = asyncio.Event()
    opened = [channel(target, ca, number=number) for number in range(channels)]
    running: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        load.calls.append(await get_user(opened[number % channels]))

    async def beat() -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        while not stop.is_set():
            due += 1 / rate
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            number += 1
            task = asyncio.create_task(one(number))
            running.add(task)
            task.add_done_callback(running.discard)

    beating = asyncio.create_task(beat())
    try:
        yield load
    finally:
        stop.set()
        await beating
        await asyncio.gather(*running)
        for each in opened:
            await each.close()


async def calls(
    target: str, ca: bytes, *, count: int, concurrency: int = 32, channels: int = 4
) -> Load:
    """``count`` calls, ``concurrency`` at a time."""
    load = Load()
    opened = [channel(target, ca, number=number) for number in range(channels)]
    left = iter(range(count))

    async def worker(number: int) -> None:
        for _ in left:
            load.calls.append(await get_user(opened[number % channels]))

    await asyncio.gather(*(worker(number) for number in range(concurrency)))
    for each in opened:
        await each.close()
    return load


@dataclass(slots=True)
class StreamRecord:
    """One bidirectional stream: the clusters it was served by in turn, and how each leg ended."""

    legs: list[str] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    messages: int = 0


@contextlib.asynccontextmanager
async def open_streams(
    target: str, ca: bytes, *, count: int, beat_s: float = 0.2
) -> AsyncIterator[list[StreamRecord]]:
    """Hold ``count`` bidirectional streams; one that ends is opened again, as a client would."""
    records = [StreamRecord() for _ in range(count)]
    opened = channel(target, ca, number=1_000)
    method = opened.stream_stream(
        f"{SERVICE}/SyncUsers",
        request_serializer=pb.GetUserRequest.SerializeToString,
        response_deserializer=pb.GetUserResponse.FromString,
    )

    async def hold(record: StreamRecord) -> None:
        while True:
            call = method()
            try:
                # gRPC servers answer headers with the first message: say something first.
                await call.write(pb.GetUserRequest(user_id="0"))
                served = str(dict(await call.initial_metadata()).get("x-served-by", "?"))
                record.legs.append(served.partition("/")[0])
                while True:
                    reply = await call.read()
                    if reply is grpc.aio.EOF:
                        record.endings.append((await call.code()).name)
                        break
                    record.messages += 1
                    await asyncio.sleep(beat_s)
                    await call.write(pb.GetUserRequest(user_id="1"))
            except grpc.aio.AioRpcError as error:
                record.endings.append(f"{error.code().name}: {error.details()}")
                await asyncio.sleep(0.05)
            except asyncio.InvalidStateError:
                record.endings.append((await call.code()).name)

    tasks = [asyncio.create_task(hold(record)) for record in records]
    try:
        yield records
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await opened.close()


async def until(
    condition: Callable[[], bool], *, timeout_s: float, what: str, every_s: float = 0.05
) -> float:
    """Wait until ``condition`` holds; returns how long that took. Fails naming ``what``."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        await asyncio.sleep(every_s)
    return time.monotonic() - started
