"""Calls of all four kinds pass a core unchanged."""

from __future__ import annotations

import json

import grpc
import pytest

from tests.native.support import (
    SERVICE,
    backends,
    call,
    channel,
    core,
    failure,
    numbers,
    route,
    serve,
    simple,
    table,
    unary,
    wait_until,
)


def test_unary_call_with_metadata_both_ways() -> None:
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address))
        with channel(address) as client:
            answer, state = unary(client).with_call(
                b"hello", timeout=5, metadata=[("x-tenant", "blue"), ("x-bin", b"\x00\xff")]
            )
        assert answer == b"hello"
        assert dict(state.initial_metadata())["x-served-by"] == "a"
        assert dict(state.trailing_metadata())["x-trailer"] == "t"
        assert backend.seen[0]["x-tenant"] == "blue"
        assert backend.seen[0]["x-bin"] == b"\x00\xff"
        assert numbers(driver)["upstream_tries"] == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_many_calls_share_few_connections(workers: int) -> None:
    with backends("a") as [backend], core(workers=workers) as driver:
        address = serve(driver, simple(backend.address))
        with channel(address) as client:
            futures = [unary(client).future(b"%d" % n, timeout=10) for n in range(300)]
            assert [it.result() for it in futures] == [b"%d" % n for n in range(300)]
        assert numbers(driver)["connects"] <= 4 * workers
        wait_until(lambda: numbers(driver)["calls_open"] == 0, "all calls are forgotten")


def test_server_streaming() -> None:
    with backends("a") as [backend], core() as driver:
        with channel(serve(driver, simple(backend.address))) as client:
            stream = client.unary_stream(f"/{SERVICE}/ServerStream")
            answers = list(stream(json.dumps({"count": 50, "size": 1000}).encode(), timeout=10))
        assert [len(it) for it in answers] == [1000] * 50


def test_client_streaming() -> None:
    with (
        backends("a") as [backend],
        core() as driver,
        channel(serve(driver, simple(backend.address))) as client,
    ):
        send = client.stream_unary(f"/{SERVICE}/ClientStream")
        assert send((b"x" * 1000 for _ in range(100)), timeout=10) == b"100000"


def test_bidirectional_streaming_answers_while_the_request_goes_on() -> None:
    with backends("a") as [backend], core() as driver:
        with channel(serve(driver, simple(backend.address))) as client:
            answers: list[bytes] = []

            def requests():
                for n in range(20):
                    wait_until(lambda n=n: len(answers) == n, f"answer {n}")
                    yield b"%d" % n

            stream = client.stream_stream(f"/{SERVICE}/Bidi")(requests(), timeout=10)
            answers.extend(stream)  # one by one: the next request waits for the answer before
        assert answers == [b"%d" % n for n in range(20)]


@pytest.mark.parametrize("size", [100_000, 1 << 20, 4_000_000])
def test_big_messages_pass_windows_in_both_directions(size: int) -> None:
    with backends("a") as [backend], core() as driver:
        with channel(serve(driver, simple(backend.address))) as client:
            message = bytes(n % 251 for n in range(1000)) * (size // 1000)
            answer, _ = call(client, message)
        assert answer == message


def test_a_slow_reader_holds_the_sender_back() -> None:
    with backends("a") as [backend], core() as driver:
        with channel(serve(driver, simple(backend.address))) as client:
            spec = json.dumps({"count": 200, "size": 100_000}).encode()
            stream = client.unary_stream(f"/{SERVICE}/ServerStream")(spec, timeout=30)
            first = next(stream)
            total = len(first) + sum(len(it) for it in stream)
        assert total == 200 * 100_000


def test_a_call_cancelled_by_its_client_is_cancelled_at_the_endpoint() -> None:
    with (
        backends("a") as [backend],
        core() as driver,
        channel(serve(driver, simple(backend.address))) as client,
    ):
        future = unary(client, "Hang").future(b"", timeout=30)
        wait_until(lambda: backend.seen, "the call arrives")
        future.cancel()
        wait_until(lambda: numbers(driver)["calls_open"] == 0, "the call is forgotten")


def test_an_error_of_the_service_passes_with_its_message() -> None:
    with backends("a") as [backend], core() as driver:
        backend.fail = grpc.StatusCode.NOT_FOUND
        with channel(serve(driver, simple(backend.address))) as client:
            error = failure(client)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert error.details() == "a fails"


def test_header_changes_of_a_route() -> None:
    changes = route(
        "echo",
        request_headers={"set": [["x-env", "prod"]], "remove": ["x-secret"]},
        response_headers={"add": [["x-via", "gw"]], "remove": ["x-served-by"]},
    )
    with backends("a") as [backend], core() as driver:
        address = serve(driver, simple(backend.address, route_tables=[table(changes)]))
        with channel(address) as client:
            metadata = [("x-secret", "s"), ("x-env", "dev"), ("x-federation-reason", "forged")]
            _, state = unary(client).with_call(b"", timeout=5, metadata=metadata)
    seen = backend.seen[0]
    assert seen["x-env"] == "prod"
    assert "x-secret" not in seen
    assert "x-federation-reason" not in seen
    assert dict(state.initial_metadata()).keys() >= {"x-via"}
    assert "x-served-by" not in dict(state.initial_metadata())


def test_a_route_answers_by_itself() -> None:
    reply = route("echo", action={"reply": {"grpc_status": 14, "message": "closed: 50 % off"}})
    with (
        core() as driver,
        channel(serve(driver, simple(route_tables=[table(reply)]))) as client,
    ):
        error = failure(client)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "closed: 50 % off"
