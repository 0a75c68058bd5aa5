"""Endpoints that fail are taken out, for longer each time, and come back by one real request."""

from __future__ import annotations

import collections
import json
import time
from typing import Any

import grpc
import pytest

from gateway.driver import Driver
from tests.native.support import (
    SERVICE,
    Backend,
    backends,
    call,
    channel,
    cluster,
    core,
    failure,
    numbers,
    serve,
    simple,
    unary,
    wait_until,
)

AT_A = (("x-fail-at", "a"),)


def configuration(*members: Backend, **outlier: Any) -> dict[str, Any]:
    # In turn: balancing by open requests spares what fails, and little would be counted.
    clusters = [cluster(outlier=outlier, lb="round_robin")]
    return simple(*(it.address for it in members), clusters=clusters)


def ejections(driver: Driver) -> list[int]:
    """How long each ejection since the last look was to last, in milliseconds."""
    now_ms = time.time() * 1000
    found = [it for it in driver.events() if it["event"] == "ejection"]
    return [int(str(it["until_unix_ms"])) - int(now_ms) for it in found]


def answer(client: grpc.Channel, **kwargs: Any) -> str:
    """Who answered, or "failed"."""
    try:
        return call(client, **kwargs)[1]
    except grpc.RpcError:
        return "failed"


def stream_that_fails_at(client: grpc.Channel, name: str) -> bool:
    """A stream that answers well and says in its trailers that it failed, where ``name`` serves."""
    request = json.dumps({"count": 2, "size": 10, "fail_at": name}).encode()
    stream = client.unary_stream(f"/{SERVICE}/ServerStream")(request, timeout=10)
    try:
        list(stream)
    except grpc.RpcError:
        return True
    return False


def test_statuses_in_trailers_count() -> None:
    with backends("a", "b", "c") as members, core() as driver:
        serving = configuration(*members, consecutive_failures=3, base_ejection_ms=60_000)
        with channel(serve(driver, serving)) as client:
            failed = 0
            while failed < 3:
                failed += stream_that_fails_at(client, "a")
            assert len(ejections(driver)) == 1
            assert {answer(client) for _ in range(60)} == {"b", "c"}


def failing_half_of_the_time(client: grpc.Channel, count: int) -> collections.Counter[str]:
    return collections.Counter(
        answer(client, metadata=AT_A if number % 2 else ()) for number in range(count)
    )


def test_the_share_of_failures_ejects_what_never_fails_in_a_row() -> None:
    share = {"threshold_percent": 30, "request_volume": 20, "minimum_hosts": 3}
    rules = {"consecutive_failures": 1000, "interval_ms": 60_000, "base_ejection_ms": 60_000}
    with (
        backends("a", "b", "c") as members,
        core() as driver,
        channel(serve(driver, configuration(*members, **rules))) as client,
    ):
        served = failing_half_of_the_time(client, 200)
        assert served["failed"] > 10, "half of its third fails"
        assert ejections(driver) == []
        serve(driver, configuration(*members, **rules, failure_percentage=share))
        failing_half_of_the_time(client, 300)
        assert len(ejections(driver)) == 1
        assert set(failing_half_of_the_time(client, 60)) == {"b", "c"}


@pytest.mark.parametrize(
    "share",
    [
        {"threshold_percent": 90, "request_volume": 20, "minimum_hosts": 3},
        {"threshold_percent": 30, "request_volume": 1000, "minimum_hosts": 3},
        {"threshold_percent": 30, "request_volume": 20, "minimum_hosts": 4},
    ],
    ids=["below the threshold", "too few results", "too few endpoints"],
)
def test_the_share_of_failures_has_its_conditions(share: dict[str, int]) -> None:
    rules = {"consecutive_failures": 1000, "interval_ms": 60_000, "failure_percentage": share}
    with (
        backends("a", "b", "c") as members,
        core() as driver,
        channel(serve(driver, configuration(*members, **rules))) as client,
    ):
        failing_half_of_the_time(client, 300)
        assert ejections(driver) == []
        assert "a" in {answer(client) for _ in range(60)}


def test_the_time_out_grows_with_each_ejection_up_to_its_bound() -> None:
    rules = {
        "consecutive_failures": 3,
        "base_ejection_ms": 200,
        "max_ejection_ms": 500,
        "interval_ms": 60_000,
    }
    lasted: list[int] = []
    with (
        backends("a", "b") as members,
        core() as driver,
        channel(serve(driver, configuration(*members, **rules))) as client,
    ):

        def ejected_again() -> bool:
            answer(client, metadata=AT_A)
            lasted.extend(ejections(driver))
            return len(lasted) == 4

        wait_until(ejected_again, "four ejections")
    for found, expected in zip(lasted, [200, 400, 500, 500], strict=True):
        assert expected - 100 < found <= expected + 1, lasted


def test_a_returning_endpoint_is_tried_with_one_request_first() -> None:
    rules = {"consecutive_failures": 2, "base_ejection_ms": 300}
    with (
        backends("a", "b") as [a, b],
        core() as driver,
        channel(serve(driver, configuration(a, b, **rules))) as client,
    ):
        while not ejections(driver):
            answer(client, metadata=AT_A)
        a.delay_s = 0.5
        before = len(a.seen)
        wait_until(lambda: _returned(driver), "its time is over")
        several = [unary(client).future(b"hi", timeout=10) for _ in range(30)]
        wait_until(lambda: sum(it.done() for it in several) == 29, "all but one are answered")
        assert len(a.seen) == before + 1, "one request shows what it is worth"
        assert [it.result() for it in several] == [b"hi"] * 30
        a.delay_s = 0
        wait_until(lambda: answer(client) == "a", "it has its share again")
        assert {answer(client) for _ in range(40)} == {"a", "b"}


def test_a_returning_endpoint_that_fails_is_out_again_at_once() -> None:
    rules = {"consecutive_failures": 5, "base_ejection_ms": 200, "interval_ms": 60_000}
    with (
        backends("a", "b") as [a, b],
        core() as driver,
        channel(serve(driver, configuration(a, b, **rules))) as client,
    ):
        while not ejections(driver):
            answer(client, metadata=AT_A)
        before = len(a.seen)
        wait_until(lambda: _returned(driver), "its time is over")
        wait_until(lambda: answer(client, metadata=AT_A) == "failed", "it is tried")
        assert len(a.seen) == before + 1
        assert numbers(driver)["ejections"] == 2
        assert {answer(client, metadata=AT_A) for _ in range(20)} == {"b"}


def _returned(driver: Driver) -> bool:
    return any(it["event"] == "uneject" for it in driver.events())


def test_no_more_than_the_cap_are_out() -> None:
    rules = {"consecutive_failures": 2, "base_ejection_ms": 60_000, "max_ejection_percent": 50}
    with (
        backends("a", "b", "c", "d") as members,
        core() as driver,
        channel(serve(driver, configuration(*members, **rules))) as client,
    ):
        for backend in members:
            backend.fail = grpc.StatusCode.UNAVAILABLE
        for _ in range(60):
            failure(client)
        assert numbers(driver)["ejections"] == 2
