"""Splits, retries, failover and ejection, seen by real clients."""

from __future__ import annotations

import collections
from typing import Any

import grpc

from tests.native.support import (
    Backend,
    backends,
    call,
    channel,
    cluster,
    core,
    endpoints,
    failure,
    listener,
    locality,
    numbers,
    route,
    serve,
    simple,
    table,
    update,
    wait_until,
)
from tests.testkit.ports import free_port

RETRY = {
    "on": ["unavailable", "connect-failure", "reset"],
    "attempts": 2,
    "base_ms": 1,
    "max_ms": 5,
}
OUTLIER = {"consecutive_failures": 5, "base_ejection_ms": 300, "max_ejection_percent": 50}


def retrying(*addresses: str, **changes: Any) -> dict[str, Any]:
    return simple(*addresses, route_tables=[table(route("echo", retry=RETRY | changes))])


def test_weighted_split() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        configuration = simple(
            route_tables=[table(route(("one", 60), ("two", 40)))],
            clusters=[cluster("one"), cluster("two")],
            endpoints=[
                endpoints(locality(a.address), name="one"),
                endpoints(locality(b.address), name="two"),
            ],
        )
        with channel(serve(driver, configuration)) as client:
            served = collections.Counter(call(client)[1] for _ in range(1000))
    assert 540 < served["a"] < 660
    assert served["a"] + served["b"] == 1000


def test_a_failed_try_goes_to_another_endpoint() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        a.fail = grpc.StatusCode.UNAVAILABLE
        with channel(serve(driver, retrying(a.address, b.address))) as client:
            assert {call(client)[1] for _ in range(50)} == {"b"}
        assert numbers(driver)["retries"] == len(a.seen) > 0
        assert [
            it["grpc-previous-rpc-attempts"]
            for it in b.seen
            if ("grpc-previous-rpc-attempts" in it)
        ] == ["1"] * len(a.seen)


def test_retries_leave_a_cluster_at_its_second_failure() -> None:
    """Its other endpoints are healthy by all that is known; the next try goes elsewhere anyway."""
    with backends("a", "b", "c", "far") as [a, b, c, far], core() as driver:
        a.fail = b.fail = c.fail = grpc.StatusCode.UNAVAILABLE
        configuration = retrying() | {
            "endpoints": [
                endpoints(
                    locality(a.address, b.address, c.address),
                    locality(far.address, cluster_id="us-east-1", priority=1),
                )
            ]
        }
        with channel(serve(driver, configuration)) as client:
            for number in range(10):
                assert call(client, metadata=[("x-call", str(number))])[1] == "far"
        near = collections.Counter(seen["x-call"] for it in (a, b, c) for seen in it.seen)
        assert set(near.values()) == {2}


def test_after_the_last_retry_the_services_own_answer_arrives() -> None:
    with backends("a") as [a], core() as driver:
        a.fail = grpc.StatusCode.UNAVAILABLE
        with channel(serve(driver, retrying(a.address))) as client:
            error = failure(client)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "a fails")
    assert len(a.seen) == 3


def test_what_the_policy_does_not_name_is_not_retried() -> None:
    with backends("a") as [a], core() as driver:
        a.fail = grpc.StatusCode.FAILED_PRECONDITION
        with channel(serve(driver, retrying(a.address))) as client:
            failure(client)
    assert len(a.seen) == 1


def test_refused_connections_move_every_call_to_the_next_priority() -> None:
    with backends("b") as [b], core() as driver:
        configuration = simple(
            endpoints=[
                endpoints(
                    locality(*(f"127.0.0.1:{free_port()}" for _ in range(3))),
                    locality(b.address, cluster_id="us-east-1", priority=1),
                )
            ]
        )
        with channel(serve(driver, configuration)) as client:
            assert {call(client)[1] for _ in range(20)} == {"b"}
        assert driver.stats()["answered"]["us-east-1"] == 20


def test_an_endpoint_that_dies_under_calls_costs_none_of_them() -> None:
    with (
        backends("a", "b") as [a, b],
        core() as driver,
        channel(serve(driver, retrying(a.address, b.address))) as client,
    ):
        while {call(client)[1] for _ in range(10)} != {"a", "b"}:
            pass
        a.stop()
        assert {call(client)[1] for _ in range(100)} == {"b"}


def test_an_endpoint_that_comes_back_is_used_again() -> None:
    port = free_port()
    with backends("b") as [b], core() as driver:
        configuration = simple(
            endpoints=[
                endpoints(
                    locality(f"127.0.0.1:{port}"),
                    locality(b.address, cluster_id="us-east-1", priority=1),
                )
            ]
        )
        with channel(serve(driver, configuration)) as client:
            assert call(client)[1] == "b"
            returned = Backend("a").start(port)
            try:
                wait_until(lambda: call(client)[1] == "a", "traffic returns to priority 0")
            finally:
                returned.stop()
        kinds = [it["event"] for it in driver.events()]
        assert kinds[:2] == ["endpoint_down", "endpoint_up"]


def test_five_failures_eject_and_time_brings_back() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        a.fail = grpc.StatusCode.UNAVAILABLE
        configuration = retrying(a.address, b.address) | {"clusters": [cluster(outlier=OUTLIER)]}
        with channel(serve(driver, configuration)) as client:
            while numbers(driver)["ejections"] == 0:
                call(client)
            assert len(a.seen) == 5
            event = next(it for it in driver.events() if it["event"] == "ejection")
            assert event["address"] == a.address
            a.fail = None
            assert {call(client)[1] for _ in range(20)} == {"b"}
            wait_until(lambda: call(client)[1] == "a", "the ejected endpoint returns")
            wait_until(
                lambda: "uneject" in {it["event"] for it in driver.events()}, "the return is told"
            )


def test_never_more_than_the_cap_is_ejected() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        a.fail = b.fail = grpc.StatusCode.UNAVAILABLE
        configuration = simple(a.address, b.address, clusters=[cluster(outlier=OUTLIER)])
        with channel(serve(driver, configuration)) as client:
            for _ in range(60):
                failure(client)
        assert numbers(driver)["ejections"] == 1


def test_a_failed_health_check_takes_an_endpoint_out() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        configuration = simple(a.address, b.address, clusters=[cluster(health_check=True)])
        with channel(serve(driver, configuration)) as client:
            driver.set_health("echo", a.address, healthy=False)
            assert {call(client)[1] for _ in range(30)} == {"b"}
            driver.set_health("echo", a.address, healthy=True)
            assert {call(client)[1] for _ in range(60)} == {"a", "b"}


def test_one_try_has_its_own_time() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        configuration = retrying(
            a.address,
            b.address,
            on=["deadline-exceeded", "reset", "gateway-error"],
            per_try_timeout_ms=100,
        )
        a.unary = a.hang  # type: ignore[method-assign]
        with channel(serve(driver, configuration)) as client:
            assert {call(client)[1] for _ in range(10)} == {"b"}


def test_the_retry_budget_bounds_retries() -> None:
    with backends("a") as [a], core() as driver:
        a.fail = grpc.StatusCode.UNAVAILABLE
        budget = retrying(a.address, budget_percent=10, min_retries=1)
        with channel(serve(driver, budget)) as client:
            errors = [failure(client) for _ in range(100)]
        assert numbers(driver)["retries_over_budget"] > 0
        assert {it.code() for it in errors} == {grpc.StatusCode.UNAVAILABLE}
        assert any("retry budget is used up" in it.details() for it in errors)
        assert len(a.seen) < 150


def test_a_peer_that_cannot_is_told_from_a_service_that_says_no() -> None:
    """Two gateways: what the second marks as its own answer sends the call to another cluster."""
    with backends("b") as [b], core() as east, core() as west:
        empty = update(
            listeners=[listener("east-west", kind="east_west")],
            route_tables=[table(route("echo"))],
            clusters=[cluster()],
            endpoints=[],
        )
        east_address = serve(east, empty)
        # Peers speak mutual TLS; without it the mark is not believed, and the answer passes.
        configuration = simple(
            endpoints=[
                endpoints(
                    locality(east_address, cluster_id="us-east-1"),
                    locality(b.address, cluster_id="us-south-1", priority=1),
                )
            ]
        )
        with channel(serve(west, configuration)) as client:
            error = failure(client)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "x-federation-reason" not in dict(error.trailing_metadata() or ())
