"""Fault injection: from the policy to what calls meet."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest

from tests.native.support import Backend, backends, call, channel, failure
from tests.testkit import standalone as kit
from tests.testkit.ports import free_port

EVERY_CALL = "[{backendRefs: [{name: echo, port: 9090}]}]"


def manifests(port: int, backend: Backend, *fields: str) -> list[str]:
    return [
        kit.gateway(kit.plain(port)),
        kit.service("echo", int(backend.address.rpartition(":")[2])),
        kit.route("echo", EVERY_CALL),
        kit.policy("echo", *fields),
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("grpcStatus: 8", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("httpStatus: 503", grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_an_aborted_call_reaches_no_endpoint_and_is_not_retried(
    tmp_path: Path, status: str, code: grpc.StatusCode
) -> None:
    port = free_port()
    spec = (
        f"faultInjection: {{abort: {{{status}}}}}",
        "retry: {retryOn: [unavailable, resource-exhausted], attempts: 3}",
    )
    with backends("a") as [backend]:
        async with kit.standalone(tmp_path, manifests(port, backend, *spec)) as running:
            await running.until_said("listening")
            with channel(f"127.0.0.1:{port}") as client:
                error = await asyncio.to_thread(failure, client)
            assert error.code() is code
            assert error.details() == "a fault was injected on purpose"
            assert backend.seen == []
            numbers = running.numbers()
            assert (numbers["faults_aborted"], numbers["retries"]) == (1, 0)


async def test_an_abort_by_percent_hits_that_share_and_no_other(tmp_path: Path) -> None:
    port = free_port()
    spec = ("faultInjection: {abort: {grpcStatus: 14, percentage: 25}}",)
    with backends("a") as [backend]:
        async with kit.standalone(tmp_path, manifests(port, backend, *spec)) as running:
            await running.until_said("listening")

            def outcomes() -> Counter[grpc.StatusCode]:
                codes: Counter[grpc.StatusCode] = Counter()
                with channel(f"127.0.0.1:{port}") as client:
                    for _ in range(400):
                        try:
                            call(client)
                            codes[grpc.StatusCode.OK] += 1
                        except grpc.RpcError as error:
                            codes[error.code()] += 1
                return codes

            codes = await asyncio.to_thread(outcomes)
            # Six standard deviations around 100.
            assert 48 < codes[grpc.StatusCode.UNAVAILABLE] < 152
            assert codes[grpc.StatusCode.OK] == 400 - codes[grpc.StatusCode.UNAVAILABLE]
            assert len(backend.seen) == codes[grpc.StatusCode.OK]


async def test_a_delayed_call_is_late_and_goes_through_whole(tmp_path: Path) -> None:
    port = free_port()
    spec = ("faultInjection: {delay: {fixedDelay: 300ms}}",)
    with backends("a") as [backend]:
        async with kit.standalone(tmp_path, manifests(port, backend, *spec)) as running:
            await running.until_said("listening")

            def timed() -> float:
                with channel(f"127.0.0.1:{port}") as client:
                    began = time.monotonic()
                    assert call(client, b"x" * 100_000) == (b"x" * 100_000, "a")
                    return time.monotonic() - began

            assert await asyncio.to_thread(timed) >= 0.3
            assert running.numbers()["faults_delayed"] == 1


async def test_the_deadline_goes_on_while_a_call_is_delayed(tmp_path: Path) -> None:
    port = free_port()
    spec = (
        "faultInjection: {delay: {fixedDelay: 30s}}",
        "timeout: {http: {requestTimeout: 200ms}}",
    )
    with backends("a") as [backend]:
        async with kit.standalone(tmp_path, manifests(port, backend, *spec)) as running:
            await running.until_said("listening")
            with channel(f"127.0.0.1:{port}") as client:
                error = await asyncio.to_thread(failure, client)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert error.details().startswith(
                "deadline of 200 ms exceeded while delayed on purpose"
            )
            assert backend.seen == []


async def test_an_abort_comes_after_the_delay(tmp_path: Path) -> None:
    port = free_port()
    spec = ("faultInjection: {delay: {fixedDelay: 200ms}, abort: {grpcStatus: 13}}",)
    with backends("a") as [backend]:
        async with kit.standalone(tmp_path, manifests(port, backend, *spec)) as running:
            await running.until_said("listening")
            began = time.monotonic()
            with channel(f"127.0.0.1:{port}") as client:
                error = await asyncio.to_thread(failure, client)
            assert error.code() is grpc.StatusCode.INTERNAL
            assert time.monotonic() - began >= 0.2


async def test_a_policy_taken_back_ends_its_faults(tmp_path: Path) -> None:
    port = free_port()
    spec = ("faultInjection: {abort: {grpcStatus: 14}}",)
    with backends("a") as [backend]:
        base = manifests(port, backend, *spec)
        async with kit.standalone(tmp_path, base[:3]) as running:
            await running.until_said("listening")
            with channel(f"127.0.0.1:{port}") as client:
                assert (await asyncio.to_thread(call, client))[1] == "a"
                running.apply("policy.yaml", base[3])

                async def is_hit() -> bool:
                    try:
                        await asyncio.to_thread(call, client)
                    except grpc.RpcError:
                        return True
                    return False

                await kit.until_async(is_hit, "the policy holds")
                (tmp_path / "policy.yaml").unlink()

                async def is_over() -> bool:
                    return not await is_hit()

                await kit.until_async(is_over, "the policy is gone")
