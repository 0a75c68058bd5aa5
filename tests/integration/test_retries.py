"""Retries: what each word and field of a policy does to calls, and that nothing happens without."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from h2.errors import ErrorCodes

from tests.native.support import Backend, backends, call, channel, failure, unary
from tests.testkit import standalone as kit
from tests.testkit.http2_server import Exchange, http2_server
from tests.testkit.ports import free_port

T = TypeVar("T")
EVERY_CALL = "[{backendRefs: [{name: echo, port: 9090}]}]"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@dataclass
class Gateway:
    running: kit.Standalone
    client: grpc.Channel

    async def run(self, work: Callable[[grpc.Channel], T]) -> T:
        return await asyncio.to_thread(work, self.client)

    async def fails(self, **kwargs: object) -> grpc.RpcError:
        return await asyncio.to_thread(failure, self.client, **kwargs)

    def numbers(self) -> dict[str, int]:
        return self.running.numbers()


@asynccontextmanager
async def gateway(folder: Path, endpoints: Iterable[str], *policy: str) -> AsyncIterator[Gateway]:
    port = free_port()
    documents = [
        kit.gateway(kit.plain(port)),
        kit.service("echo", *(int(address.rpartition(":")[2]) for address in endpoints)),
        kit.route("echo", EVERY_CALL),
    ]
    if policy:
        (folder / "policy.yaml").write_text(kit.policy("echo", *policy))
    async with kit.standalone(folder, documents) as running:
        await running.until_said("listening")
        with channel(f"127.0.0.1:{port}") as client:
            yield Gateway(running, client)


def retry(on: str, more: str = "attempts: 1") -> str:
    return f"retry: {{retryOn: [{on}], {more}, backoff: {{defaultDuration: 1ms}}}}"


# What each word covers.


def http(status: int) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.respond(status)


def code(number: int) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.status(number, ("grpc-message", "no"))


def reset(exchange: Exchange) -> None:
    exchange.reset(ErrorCodes.INTERNAL_ERROR)


def refused(exchange: Exchange) -> None:
    exchange.reset(ErrorCodes.REFUSED_STREAM)


REFUSALS_WITHOUT_POLICY = 3
"""Tries that a refused call gets anyway: nothing was processed."""

# The failure, the word that covers it, and others that do not.
WORDS = [
    pytest.param(http(500), "5xx", "gateway-error, reset, unavailable", id="5xx"),
    pytest.param(http(503), "gateway-error", "reset, refused-stream", id="gateway-error"),
    pytest.param(reset, "reset", "refused-stream, connect-failure, cancelled", id="reset"),
    pytest.param(code(1), "cancelled", "5xx, unavailable, internal", id="cancelled"),
    pytest.param(code(4), "deadline-exceeded", "5xx, unavailable", id="deadline-exceeded"),
    pytest.param(code(8), "resource-exhausted", "5xx, unavailable", id="resource-exhausted"),
    pytest.param(code(13), "internal", "gateway-error, unavailable, cancelled", id="internal"),
    pytest.param(code(13), "5xx", "gateway-error", id="5xx-by-code"),
    pytest.param(code(14), "unavailable", "internal, reset", id="unavailable"),
    pytest.param(code(14), "gateway-error", "reset, internal", id="gateway-error-by-code"),
]


@pytest.mark.parametrize(("fail", "word", "others"), WORDS)
async def test_a_word_covers_its_failure_and_others_do_not(
    tmp_path: Path, fail: Callable[[Exchange], None], word: str, others: str
) -> None:
    def fail_once(exchange: Exchange) -> None:
        if len(server.seen) == 1:
            fail(exchange)
        else:
            exchange.message(b"good")

    with http2_server(fail_once) as server:
        async with gateway(tmp_path, [server.address], retry(word)) as covered:
            answer = await covered.run(lambda client: unary(client)(b"", timeout=10))
            assert answer == b"good"
            assert covered.numbers()["retries"] == 1
            assert server.seen[1]["grpc-previous-rpc-attempts"] == "1"
            server.seen.clear()
            covered.running.apply("policy.yaml", kit.policy("echo", retry(others)))

            async def is_left_alone() -> bool:
                server.seen.clear()
                try:
                    await covered.run(lambda client: unary(client)(b"", timeout=10))
                except grpc.RpcError:
                    return len(server.seen) == 1
                return False

            await kit.until_async(is_left_alone, "the failure is the answer")


@pytest.mark.parametrize(
    ("fail", "listed", "unlisted"),
    [
        pytest.param(code(9), "9", "14, 503", id="a gRPC code"),
        pytest.param(http(418), "418", "14, 503", id="an HTTP status"),
        pytest.param(code(14), "14", "13, 500", id="the code of 503"),
    ],
)
async def test_status_codes_of_both_kinds_are_listed(
    tmp_path: Path, fail: Callable[[Exchange], None], listed: str, unlisted: str
) -> None:
    def fail_first(exchange: Exchange) -> None:
        if len(server.seen) == 1:
            fail(exchange)
        else:
            exchange.message(b"good")

    def policy(codes: str) -> str:
        return retry("retriable-status-codes", f"attempts: 1, retryOnStatusCodes: [{codes}]")

    with http2_server(fail_first) as server:
        async with gateway(tmp_path, [server.address], policy(listed)) as covered:
            assert await covered.run(lambda client: unary(client)(b"", timeout=10)) == b"good"
        server.seen.clear()
        other = tmp_path / "other"
        other.mkdir()
        async with gateway(other, [server.address], policy(unlisted)) as bare:
            await bare.fails()
            assert len(server.seen) == 1


async def test_refused_streams_are_tried_further_where_the_policy_says_so(tmp_path: Path) -> None:
    refusals = REFUSALS_WITHOUT_POLICY + 2

    def refuse(exchange: Exchange) -> None:
        if len(server.seen) <= refusals:
            refused(exchange)
        else:
            exchange.message(b"good")

    with http2_server(refuse) as server:
        policy = retry("refused-stream", "attempts: 2")
        async with gateway(tmp_path, [server.address], policy) as covered:
            assert await covered.run(lambda client: unary(client)(b"", timeout=10)) == b"good"
            numbers = covered.numbers()
            assert (numbers["transparent_retries"], numbers["retries"]) == (3, 2)
        server.seen.clear()
        other = tmp_path / "other"
        other.mkdir()
        async with gateway(other, [server.address], retry("cancelled", "attempts: 2")) as bare:
            assert (await bare.fails()).code() is UNAVAILABLE
            assert len(server.seen) == 1 + REFUSALS_WITHOUT_POLICY


async def test_a_connect_failure_is_tried_again_where_the_policy_says_so(tmp_path: Path) -> None:
    port = free_port()
    waits = "attempts: 10, backoff: {defaultDuration: 500ms, maxDuration: 500ms}"
    policy = f"retry: {{retryOn: [connect-failure], {waits}}}"
    async with gateway(tmp_path, [f"127.0.0.1:{port}"], policy) as covered:
        answer = asyncio.create_task(covered.run(call))
        await kit.until(lambda: covered.numbers()["connect_failures"] > 0, "nobody is there")
        late = await asyncio.to_thread(Backend("late").start, port)
        try:
            assert (await answer)[1] == "late"
            assert covered.numbers()["retries"] > 0
        finally:
            await asyncio.to_thread(late.stop)
    other = tmp_path / "other"
    other.mkdir()
    nowhere = f"127.0.0.1:{free_port()}"
    policy = f"retry: {{retryOn: [cancelled], {waits}}}"
    async with gateway(other, [nowhere], policy) as bare:
        assert (await bare.fails()).code() is UNAVAILABLE
        assert bare.numbers()["retries"] == 0


# How often, and how soon.


@pytest.mark.parametrize("attempts", [0, 1, 4])
async def test_attempts_are_tries_after_the_first(tmp_path: Path, attempts: int) -> None:
    policy = retry("unavailable", f"attempts: {attempts}")
    with backends("a") as [a]:
        a.fail = UNAVAILABLE
        async with gateway(tmp_path, [a.address], policy) as covered:
            assert (await covered.fails()).details() == "a fails"
            assert len(a.seen) == 1 + attempts


async def test_waits_are_random_up_to_their_bound(tmp_path: Path) -> None:
    """Full jitter: from nothing to the bound, which doubles up to the maximum."""
    times: list[float] = []

    def fail(exchange: Exchange) -> None:
        times.append(time.monotonic())
        exchange.status(14)

    backoff = "backoff: {defaultDuration: 50ms, maxDuration: 100ms}"
    with http2_server(fail) as server:
        policy = f"retry: {{retryOn: [unavailable], attempts: 10, {backoff}}}"
        async with gateway(tmp_path, [server.address], policy) as covered:
            for _ in range(3):
                await covered.fails()
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    of_calls = [waits[start : start + 10] for start in (0, 11, 22)]
    total = [sum(of_call) for of_call in of_calls]
    # Each sum is of one draw up to 50 ms and nine up to 100 ms: 475 ms on average.
    assert 0.2 < sum(total) / 3 < 0.95
    flat = [wait for of_call in of_calls for wait in of_call]
    assert max(flat) - min(flat) > 0.03, "they are not all alike"
    assert sum(wait < 0.15 for wait in flat) >= 28, "the maximum holds, but for a busy machine"


@pytest.mark.parametrize("field", ["perTryTimeout: 200ms", "perRetry: {timeout: 200ms}"])
async def test_a_try_that_takes_too_long_is_left_for_another_endpoint(
    tmp_path: Path, field: str
) -> None:
    policy = f"retry: {{retryOn: [deadline-exceeded], attempts: 1, {field}}}"
    with http2_server(lambda _: None) as silent, backends("b") as [b]:
        async with gateway(tmp_path, [silent.address, b.address], policy) as covered:
            names = await covered.run(lambda client: {call(client)[1] for _ in range(8)})
            assert names == {"b"}
            assert len(silent.seen) == covered.numbers()["retries"] > 0


async def test_a_try_without_its_own_time_lasts_as_long_as_the_call(tmp_path: Path) -> None:
    policy = (
        "retry: {retryOn: [deadline-exceeded], attempts: 1}",
        "timeout: {http: {requestTimeout: 300ms}}",
    )
    with http2_server(lambda _: None) as silent:
        async with gateway(tmp_path, [silent.address], *policy) as covered:
            assert (await covered.fails()).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert (len(silent.seen), covered.numbers()["retries"]) == (1, 0)


async def test_the_deadline_ends_tries_and_waits(tmp_path: Path) -> None:
    """It is the whole call's: no try begins it anew."""
    policy = (
        "retry: {retryOn: [deadline-exceeded], attempts: 10, perTryTimeout: 150ms}",
        "timeout: {http: {requestTimeout: 500ms}}",
    )
    with http2_server(lambda _: None) as silent:
        async with gateway(tmp_path, [silent.address], *policy) as covered:
            began = time.monotonic()
            assert (await covered.fails()).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - began < 3
    assert 2 <= len(silent.seen) <= 4
    left_ms = [int(seen["grpc-timeout"].removesuffix("m")) for seen in silent.seen]
    assert left_ms == sorted(left_ms, reverse=True), "each try is told what is left"
    assert left_ms[-1] <= 500 - 150 * (len(left_ms) - 1)


@pytest.mark.parametrize(("pushback", "tries"), [("-1", 1), ("soon", 1), ("300", 2)])
async def test_the_servers_word_on_retrying_holds(
    tmp_path: Path, pushback: str, tries: int
) -> None:
    times: list[float] = []

    def fail(exchange: Exchange) -> None:
        times.append(time.monotonic())
        exchange.status(14, ("grpc-retry-pushback-ms", pushback))

    with http2_server(fail) as server:
        async with gateway(tmp_path, [server.address], retry("unavailable")) as covered:
            # What cannot be read is passed on, and clients cannot read it either.
            expected = grpc.StatusCode.INTERNAL if pushback == "soon" else UNAVAILABLE
            assert (await covered.fails()).code() is expected
    assert len(times) == tries
    assert times[-1] - times[0] >= (0.3 if tries == 2 else 0)


# Where to.


async def test_no_endpoint_is_tried_twice_while_there_is_another(tmp_path: Path) -> None:
    with backends("a", "b", "c") as [a, b, c]:
        a.fail = b.fail = UNAVAILABLE
        policy = (
            retry("unavailable", "attempts: 2"),
            "circuitBreaker: {consecutiveFailures: 10000, consecutiveGatewayFailures: 10000}",
        )
        addresses = [it.address for it in (a, b, c)]
        async with gateway(tmp_path, addresses, *policy) as covered:
            for number in range(20):
                metadata = [("x-call", str(number))]
                _, name = await covered.run(
                    lambda client, metadata=metadata: call(client, metadata=metadata)
                )
                assert name == "c"
        for backend in (a, b, c):
            calls = [seen["x-call"] for seen in backend.seen]
            assert len(calls) == len(set(calls))


# How many in all.

ONE_RETRY = (
    "retryConstraint: {budget: {percent: 0, interval: 10s}, "
    "minRetryRate: {count: 1, interval: 10s}}"
)


async def test_over_its_budget_a_call_is_unavailable_and_not_tried_again(tmp_path: Path) -> None:
    with backends("a") as [a]:
        a.fail = grpc.StatusCode.RESOURCE_EXHAUSTED
        on = retry("resource-exhausted", "attempts: 1")
        async with gateway(tmp_path, [a.address], on, ONE_RETRY) as covered:
            first = await covered.fails()
            assert first.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert len(a.seen) == 2, "the lowest rate allows one"
            second = await covered.fails()
            assert second.code() is UNAVAILABLE
            assert "retry budget is used up" in second.details()
            assert len(a.seen) == 3
            assert covered.numbers()["retries_over_budget"] == 1


async def test_all_rules_of_a_route_share_one_budget_which_outlives_changes(
    tmp_path: Path,
) -> None:
    """It is the policy's: neither another rule nor another weight is a fresh start."""

    def rules(weight: int) -> str:
        refs = f"backendRefs: [{{name: echo, port: 9090, weight: {weight}}}]"
        unary_calls = "{method: {service: test.Echo, method: Unary}}"
        return f"[{{matches: [{unary_calls}], {refs}}}, {{{refs}}}]"

    with backends("a") as [a]:
        a.fail = UNAVAILABLE
        policy = (retry("unavailable", "attempts: 1"), ONE_RETRY)
        async with gateway(tmp_path, [a.address], *policy) as covered:
            running = covered.running
            base = (tmp_path / "base.yaml").read_text()
            running.apply("base.yaml", base.replace(EVERY_CALL, rules(1)))

            async def has_two_rules() -> bool:
                await covered.fails(method="Client")
                return any("rule 1" in name for name in routes_called(running))

            await kit.until_async(has_two_rules, "both rules are in force")
            assert covered.numbers()["retries"] <= 1
            await covered.fails()
            await covered.fails()
            assert covered.numbers()["retries"] == 1
            running.apply("base.yaml", base.replace(EVERY_CALL, rules(2)))
            for _ in range(20):
                await covered.fails()
            assert covered.numbers()["retries"] == 1


def routes_called(running: kit.Standalone) -> set[str]:
    return {entry["route"] for entry in json.loads(running.core.stats())["calls"]}


async def test_a_share_of_the_calls_may_be_tried_again(tmp_path: Path) -> None:
    constraint = (
        "retryConstraint: {budget: {percent: 50, interval: 1h}, "
        "minRetryRate: {count: 1, interval: 1h}}"
    )
    with backends("a") as [a]:
        on = retry("unavailable", "attempts: 1")
        async with gateway(tmp_path, [a.address], on, constraint) as covered:
            await covered.run(lambda client: {call(client)[1] for _ in range(20)})
            a.fail = UNAVAILABLE
            for _ in range(20):
                await covered.fails()
            # Half of all calls so far may have been retried: 20 of 40, then 30 of 60.
            assert covered.numbers()["retries"] == 20
            for _ in range(20):
                await covered.fails()
            assert covered.numbers()["retries"] == 30
            assert covered.numbers()["retries_over_budget"] == 10


async def test_without_a_budget_only_attempts_bound_retries(tmp_path: Path) -> None:
    with backends("a") as [a]:
        a.fail = UNAVAILABLE
        async with gateway(tmp_path, [a.address], retry("unavailable", "attempts: 3")) as covered:
            for _ in range(30):
                await covered.fails()
            assert covered.numbers()["retries"] == 90


# One policy a route.


async def test_the_older_policy_holds_and_the_other_says_that_it_does_not(tmp_path: Path) -> None:
    with backends("a") as [a]:
        a.fail = UNAVAILABLE
        async with gateway(tmp_path, [a.address], retry("unavailable", "attempts: 2")) as covered:
            younger = kit.policy("echo", retry("unavailable", "attempts: 9"), name="a-younger")
            covered.running.apply("z-younger.yaml", younger)
            await covered.running.until_said(
                "BackendTrafficPolicy app/a-younger for echo: Accepted=False, Conflicted"
            )
            await covered.fails()
            assert len(a.seen) == 3
