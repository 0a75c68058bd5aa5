"""RequestMirror: copies of calls that cost the calls nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
from h2.errors import ErrorCodes

from tests.native.support import SERVICE, backends, call, channel, unary
from tests.testkit import standalone as kit
from tests.testkit.http2_server import Exchange, http2_server, silence
from tests.testkit.ports import free_port

T = TypeVar("T")
COPIES_MAX = 512
"""Open copies of one worker."""


class Gateway:
    """A gateway in front of Service ``main`` whose rule mirrors to Service ``copy``."""

    def __init__(self, running: kit.Standalone, client: grpc.Channel) -> None:
        self.running = running
        self.client = client

    async def run(self, work: Callable[[grpc.Channel], T]) -> T:
        return await asyncio.to_thread(work, self.client)

    def numbers(self) -> dict[str, int]:
        return self.running.numbers()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await kit.until(condition, f"{what}: {self.numbers()}")


def mirror(more: str = "", name: str = "copy") -> str:
    ref = f"backendRef: {{name: {name}, port: 9090}}"
    return f"{{type: RequestMirror, requestMirror: {{{ref}{more}}}}}"


@asynccontextmanager
async def mirroring(
    folder: Path,
    main: Iterable[str],
    copy: Iterable[str],
    *,
    filters: str = f"[{mirror()}]",
    policy: Iterable[str] = (),
    backend_refs: str = "[{name: main, port: 9090}]",
) -> AsyncIterator[Gateway]:
    port = free_port()
    documents = [
        kit.gateway(kit.plain(port)),
        kit.service("main", *(int(at.rpartition(":")[2]) for at in main)),
        kit.service("copy", *(int(at.rpartition(":")[2]) for at in copy)),
        kit.route("echo", f"[{{filters: {filters}, backendRefs: {backend_refs}}}]"),
        *([kit.policy("echo", *policy)] if policy else []),
    ]
    async with kit.standalone(folder, documents) as running:
        await running.until_said("listening")
        with channel(f"127.0.0.1:{port}") as client:
            yield Gateway(running, client)


def many(times: int, request: bytes = b"hi") -> Callable[[grpc.Channel], set[str]]:
    return lambda client: {call(client, request)[1] for _ in range(times)}


async def test_every_call_is_copied_and_answered_by_its_own_endpoint(tmp_path: Path) -> None:
    with backends("main", "copy") as [main, copy]:
        async with mirroring(tmp_path, [main.address], [copy.address]) as gateway:
            assert await gateway.run(many(30)) == {"main"}
            await gateway.until(lambda: len(copy.seen) == 30, "all copies arrive")
            numbers = gateway.numbers()
            assert (numbers["mirror_copies"], numbers["mirror_copies_dropped"]) == (30, 0)
            assert len(main.seen) == 30


async def test_a_copy_is_marked_and_keeps_the_rest_of_the_request(tmp_path: Path) -> None:
    with backends("main") as [main], http2_server(silence) as copy:
        async with mirroring(tmp_path, [main.address], [copy.address]) as gateway:
            metadata = [("x-tenant", "blue")]
            await gateway.run(lambda client: unary(client)(b"12345", timeout=10, metadata=metadata))
            await gateway.until(lambda: copy.received == 10, "message and its five bytes of frame")
    (seen,) = copy.seen
    host, _, port = seen[":authority"].rpartition(":")
    assert host == "127.0.0.1-shadow"
    assert port.isdigit()
    assert (seen[":path"], seen["x-tenant"]) == (f"/{SERVICE}/Unary", "blue")
    assert seen["grpc-timeout"].endswith("m"), "the deadline is the call's"


async def test_a_share_of_the_calls_is_copied(tmp_path: Path) -> None:
    filters = f"[{mirror(', percent: 25')}]"
    with backends("main", "copy") as [main, copy]:
        async with mirroring(tmp_path, [main.address], [copy.address], filters=filters) as gateway:
            assert await gateway.run(many(400)) == {"main"}
            started = gateway.numbers()["mirror_copies"]
            # Six standard deviations around 100.
            assert 48 < started < 152
            await gateway.until(lambda: len(copy.seen) == started, "those copies arrive")


async def test_a_mirror_of_one_backend_copies_its_calls_alone(tmp_path: Path) -> None:
    refs = (
        f"[{{name: main, port: 9090, weight: 1, filters: [{mirror()}]}}, "
        "{name: other, port: 9090, weight: 1}]"
    )
    with backends("main", "copy", "other") as [main, copy, other]:
        async with mirroring(
            tmp_path, [main.address], [copy.address], filters="[]", backend_refs=refs
        ) as gateway:
            gateway.running.apply(
                "other.yaml", kit.service("other", int(other.address.rpartition(":")[2]))
            )

            async def serve_both() -> bool:
                try:
                    return await gateway.run(many(10)) == {"main", "other"}
                except grpc.RpcError:
                    return False

            await kit.until_async(serve_both, "both backends serve")
            await gateway.run(many(50))
            await gateway.until(lambda: len(copy.seen) == len(main.seen), "its copies arrive")
            assert len(other.seen) > 0


async def test_a_mirror_that_fails_costs_nothing_and_is_not_tried_again(tmp_path: Path) -> None:
    """Neither retries nor ejection look at copies."""
    policy = (
        "retry: {retryOn: [unavailable, reset, connect-failure], attempts: 3}",
        "circuitBreaker: {consecutiveFailures: 1, consecutiveGatewayFailures: 1}",
    )
    with backends("main", "copy") as [main, copy]:
        copy.fail = grpc.StatusCode.UNAVAILABLE
        async with mirroring(tmp_path, [main.address], [copy.address], policy=policy) as gateway:
            assert await gateway.run(many(20)) == {"main"}
            await gateway.until(lambda: len(copy.seen) == 20, "each copy arrives once")
            numbers = gateway.numbers()
            assert (numbers["retries"], numbers["ejections"]) == (0, 0)


async def test_a_mirror_that_is_not_there_is_counted_and_nothing_else(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    with backends("main") as [main]:
        async with mirroring(tmp_path, [main.address], [nowhere]) as gateway:
            assert await gateway.run(many(20)) == {"main"}
            await gateway.until(
                lambda: gateway.numbers()["mirror_copies_dropped"] == 20, "all are dropped"
            )


async def test_a_mirror_that_resets_or_vanishes_is_counted_and_nothing_else(
    tmp_path: Path,
) -> None:
    def reset(exchange: Exchange) -> None:
        exchange.reset(ErrorCodes.INTERNAL_ERROR)

    with backends("main") as [main], http2_server(reset) as copy:
        async with mirroring(tmp_path, [main.address], [copy.address]) as gateway:
            assert await gateway.run(many(10)) == {"main"}
            await gateway.until(
                lambda: gateway.numbers()["mirror_copies_failed"] == 10, "each was reset"
            )
            copy.answer = silence
            assert await gateway.run(many(5)) == {"main"}
            await gateway.until(lambda: len(copy.seen) == 15, "the copies wait for answers")
            await asyncio.to_thread(copy.stop)
            await gateway.until(
                lambda: gateway.numbers()["mirror_copies_failed"] == 15, "they are lost with it"
            )
            assert await gateway.run(many(5)) == {"main"}


async def test_a_mirror_that_never_answers_delays_nobody_and_holds_a_bounded_number(
    tmp_path: Path,
) -> None:
    with backends("main") as [main], http2_server(silence) as copy:
        async with mirroring(tmp_path, [main.address], [copy.address]) as gateway:
            began = time.monotonic()
            assert await gateway.run(many(COPIES_MAX + 88)) == {"main"}
            assert time.monotonic() - began < 20, "no call waited for a copy"
            numbers = gateway.numbers()
            assert numbers["mirror_copies"] - numbers["mirror_copies_failed"] <= COPIES_MAX
            assert numbers["mirror_copies_dropped"] >= 88


async def test_streams_are_copied_as_they_come(tmp_path: Path) -> None:
    with backends("main", "copy") as [main, copy]:
        sums: list[bytes] = []
        plain = copy.client_stream

        def client_stream(requests: object, context: grpc.ServicerContext) -> bytes:
            sums.append(plain(requests, context))  # type: ignore[arg-type]
            return sums[-1]

        copy.client_stream = client_stream  # type: ignore[method-assign]
        async with mirroring(tmp_path, [main.address], [copy.address]) as gateway:

            def stream(client: grpc.Channel) -> bytes:
                send = client.stream_unary(f"/{SERVICE}/ClientStream")
                return bytes(send((b"x" * 1000 for _ in range(300)), timeout=20))

            assert await gateway.run(stream) == b"300000"
            await gateway.until(lambda: sums == [b"300000"], "the copy is whole")


async def test_a_mirror_that_does_not_read_loses_its_copy_and_slows_nobody(
    tmp_path: Path,
) -> None:
    with backends("main") as [main], http2_server(silence, reads=False) as copy:
        async with mirroring(tmp_path, [main.address], [copy.address]) as gateway:
            message = b"x" * 4_000_000
            assert await gateway.run(lambda client: call(client, message)) == (message, "main")
            await gateway.until(
                lambda: gateway.numbers()["mirror_copies_dropped"] == 1, "its copy is given up"
            )
            assert copy.received <= 65_535


async def test_the_copys_answer_may_be_long(tmp_path: Path) -> None:
    """It is read and dropped: a mirror's response fills no window for good."""
    with backends("main", "copy") as [main, copy]:
        ended: list[int] = []
        plain = copy.server_stream

        def server_stream(request: bytes, context: grpc.ServicerContext) -> Iterable[bytes]:
            yield from plain(request, context)
            ended.append(1)

        copy.server_stream = server_stream  # type: ignore[method-assign,assignment]
        async with mirroring(tmp_path, [main.address], [copy.address]) as gateway:
            spec = json.dumps({"count": 40, "size": 100_000}).encode()

            def stream(client: grpc.Channel) -> int:
                answers = client.unary_stream(f"/{SERVICE}/ServerStream")(spec, timeout=20)
                return sum(len(answer) for answer in answers)

            assert await gateway.run(stream) == 4_000_000
            await gateway.until(lambda: ended, "the mirror has sent all of it, too")


async def test_a_mirror_that_does_not_resolve_is_told_and_the_calls_go_on(
    tmp_path: Path,
) -> None:
    filters = f"[{mirror(name='gone')}]"
    with backends("main", "copy") as [main, copy]:
        async with mirroring(tmp_path, [main.address], [copy.address], filters=filters) as gateway:
            await gateway.running.until_said("Service app/gone does not exist")
            assert await gateway.run(many(5)) == {"main"}
            assert gateway.numbers()["mirror_copies"] == 0
