"""A gateway with more work than it can do turns new calls away at once, and recovers."""

from __future__ import annotations

import contextlib

import grpc

from tests.native.support import (
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

RETRY = {"on": ["unavailable"], "grpc_codes": [14], "attempts": 3, "base_ms": 1, "max_ms": 1}


def test_calls_over_the_bound_are_turned_away_and_those_open_go_on() -> None:
    with (
        backends("a") as (a,),
        core(max_calls=4) as driver,
        channel(serve(driver, simple(a.address))) as client,
    ):
        hanging = [unary(client, "Hang").future(b"hi", timeout=30) for _ in range(4)]
        wait_until(lambda: numbers(driver)["calls_open"] == 4, "four calls are open")
        for _ in range(3):
            error = failure(client)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.details() == (
                "this gateway takes no more calls for now: too many calls are open"
            )
        assert numbers(driver)["calls_shed"] == 3
        hanging.pop().cancel()
        wait_until(lambda: numbers(driver)["calls_open"] == 3, "one has ended")
        assert call(client)[1] == "a"
        for future in hanging:
            assert not future.done()
            future.cancel()


def test_slow_turns_shed_calls_and_retries_until_the_worker_has_caught_up() -> None:
    # A turn of more than a millisecond is slow here; so much on so many connections takes longer.
    much = b"x" * 60_000
    tables = [table(route("echo", retry=RETRY))]
    with (
        backends("a") as (a,),
        core(slow_turn_ms=1) as driver,
        contextlib.ExitStack() as stack,
    ):
        address = serve(driver, simple(a.address, route_tables=tables))
        clients = [stack.enter_context(channel(address)) for _ in range(16)]
        a.fail = grpc.StatusCode.UNAVAILABLE

        def shed() -> bool:
            storm = [unary(c).future(much, timeout=30) for _ in range(25) for c in clients]
            codes = {future.code() for future in storm}
            assert codes == {grpc.StatusCode.UNAVAILABLE}, codes
            found = numbers(driver)
            return found["calls_shed"] > 0 and found["retries_shed"] > 0

        wait_until(shed, "calls and retries are shed", within_s=45)
        assert a.seen, "some calls are taken always"
        a.fail = None

        def taken() -> bool:
            before = numbers(driver)["calls_shed"]
            answers = [unary(clients[0]).future(b"hi", timeout=30).code() for _ in range(30)]
            everything = answers == [grpc.StatusCode.OK] * 30
            return everything and numbers(driver)["calls_shed"] == before

        wait_until(taken, "all are taken again", within_s=30)
