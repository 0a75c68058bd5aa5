"""What the core counts of its tries by where they go."""

from __future__ import annotations

from typing import Any

import grpc

from gateway.driver import Driver
from tests.native.support import (
    backends,
    call,
    channel,
    cluster,
    core,
    endpoints,
    failure,
    locality,
    route,
    serve,
    simple,
    table,
    wait_until,
)
from tests.native.test_drain import OpenStream

WEST, EAST = "us-west-1", "us-east-1"


def places(driver: Driver) -> dict[tuple[str, str, int], dict[str, Any]]:
    """What was counted, by cluster of the configuration, member cluster and priority."""
    found = driver.loads()["places"]
    return {(it["cluster"], it["cluster_id"], it["priority"]): it for it in found}


def counts(driver: Driver, *place: Any) -> tuple[int, int, int]:
    """Tries that succeeded and failed at a place, and those that are open."""
    found = places(driver)[place]  # type: ignore[index]
    assert sum(found["latency"]) == found["succeeded"] + found["failed"]
    return found["succeeded"], found["failed"], found["open"]


def both(west: str, east: str) -> dict[str, Any]:
    there = locality(east, cluster_id=EAST, region="us-east", priority=1)
    return simple(endpoints=[endpoints(locality(west), there)])


def test_tries_count_where_they_go_with_their_tier() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        with channel(serve(driver, both(a.address, b.address))) as client:
            for _ in range(7):
                call(client)
            assert counts(driver, "echo", WEST, 0) == (7, 0, 0)
            assert ("echo", EAST, 1) not in places(driver)
            a.fail = grpc.StatusCode.NOT_FOUND
            failure(client)
            assert counts(driver, "echo", WEST, 0) == (7, 1, 0)
            a.stop()
            wait_until(lambda: call(client)[1] == "b", "the next tier takes over")
        assert counts(driver, "echo", EAST, 1)[0] >= 1
        assert places(driver)["echo", EAST, 1]["region"] == "us-east"


def test_open_streams_are_counted_where_they_are_also_after_their_endpoint_is_gone() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        with channel(serve(driver, simple(a.address))) as client:
            stream = OpenStream(client)
            assert counts(driver, "echo", WEST, 0) == (0, 0, 1)
            assert driver.loads()["calls_open"] == 1
            driver.apply(
                simple(
                    route_tables=[table(route("other"))],
                    clusters=[cluster("other")],
                    endpoints=[endpoints(locality(b.address), name="other")],
                )
            )
            assert stream.echo(b"on") == b"on"
            assert counts(driver, "echo", WEST, 0) == (0, 0, 1)
            stream.finish()
            assert call(client)[1] == "b"
            # Nothing is left to count there, and what is not configured is forgotten.
            driver.apply(
                simple(
                    route_tables=[table(route("other"))],
                    clusters=[cluster("other")],
                    endpoints=[endpoints(locality(b.address), name="other")],
                )
            )
            wait_until(
                lambda: {place[0] for place in places(driver)} == {"other"}, "it is forgotten"
            )
        assert counts(driver, "other", WEST, 0) == (1, 0, 0)


def test_an_endpoint_that_changes_its_tier_takes_its_open_streams_along() -> None:
    with (
        backends("a", "b") as [a, b],
        core() as driver,
        channel(serve(driver, both(a.address, b.address))) as client,
    ):
        stream = OpenStream(client)
        first = locality(a.address, priority=1)
        second = locality(b.address, cluster_id=EAST, region="us-east")
        driver.apply(simple(endpoints=[endpoints(first, second)]))
        assert counts(driver, "echo", WEST, 1)[2] == 1
        assert places(driver)["echo", WEST, 0]["open"] == 0
        stream.finish()
        wait_until(lambda: counts(driver, "echo", WEST, 1)[2] == 0, "the stream ends")


def test_a_call_without_any_endpoint_fails_at_no_place() -> None:
    with core() as driver:
        with channel(serve(driver, simple())) as client:
            assert failure(client).code() is grpc.StatusCode.UNAVAILABLE
        assert places(driver)["echo", "", 0]["failed"] == 1
