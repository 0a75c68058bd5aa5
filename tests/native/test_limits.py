"""Rate limits on traffic: what passes, what is answered to the rest, and what is counted."""

from __future__ import annotations

from collections import Counter
from concurrent import futures
from typing import Any

import grpc
import pytest

from gateway.driver import Driver
from tests.native.support import (
    DEADLINE_S,
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
)

LIMITED = grpc.StatusCode.RESOURCE_EXHAUSTED


def limit(requests: int, unit: str = "day", **changes: Any) -> dict[str, Any]:
    return {"name": "app/policy/rule-0", "requests": requests, "unit": unit} | changes


def limited(*limits: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"route_tables": [table(route("echo", rate_limits=list(limits), **changes))]}


def outcomes(client: grpc.Channel, calls: int, **metadata: str) -> Counter[grpc.StatusCode]:
    """How ``calls`` calls ended, sent all at once."""
    headers = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    running = [
        unary(client).future(b"hi", metadata=headers, timeout=DEADLINE_S) for _ in range(calls)
    ]
    return Counter(future.code() for future in running)


def summary(driver: Driver, name: str = "app/policy/rule-0") -> dict[str, Any]:
    limits: Any = driver.stats()["rate_limits"]
    return next(entry for entry in limits if entry["name"] == name)


def test_calls_over_the_limit_are_told_when_to_come_back() -> None:
    with backends("a") as (a,), core() as driver:
        address = serve(driver, simple(a.address, **limited(limit(3, "hour"))))
        with channel(address) as client:
            assert outcomes(client, 10) == {grpc.StatusCode.OK: 3, LIMITED: 7}
            error = failure(client)
        assert error.code() is LIMITED
        assert error.details().startswith(
            "rule `app/echo/rule-0`: over the rate limit `app/policy/rule-0`, free in 1"
        )
        # A third of an hour until the next one, less what has passed since.
        answered = dict(error.initial_metadata()) | dict(error.trailing_metadata())
        assert 1_100 <= int(answered["retry-after"]) <= 1_200
        assert 1_100_000 <= int(answered["grpc-retry-pushback-ms"]) <= 1_200_000
        assert len(a.seen) == 3, "no other reached the endpoint"
        assert numbers(driver)["rate_limited"] == 8
        counted: Any = driver.stats()["calls"]
        codes = {entry["cluster"]: entry["codes"] for entry in counted}
        assert codes == {"echo": {"0": 3}, "": {"8": 8}}, "of the route app/echo/rule-0"
        found = summary(driver)
        assert (found["passed"], found["refused"], found["shared_key"]) == (3, 8, 0)


def test_a_limit_that_is_over_lets_calls_pass_again() -> None:
    with backends("a") as (a,), core() as driver:
        address = serve(driver, simple(a.address, **limited(limit(20, "second"))))
        with channel(address) as client:
            first = outcomes(client, 60)
            assert first[LIMITED] > 0
            wait_s = int(dict(failure(client).trailing_metadata())["grpc-retry-pushback-ms"]) / 1000
            assert 0 < wait_s <= 0.05, "one twentieth of a second"
            # gRPC's own retries wait for as long as they are told.
            policy = (
                '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, '
                '"initialBackoff": "10s", "maxBackoff": "10s", "backoffMultiplier": 1, '
                '"retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]}'
            )
            options = [("grpc.service_config", policy), ("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(address, options) as patient:
                assert call(patient, timeout=5)[0] == b"hi"


def test_distinct_values_are_counted_apart() -> None:
    by_key = limit(2, headers=[{"name": "x-api-key", "distinct": True}])
    with backends("a") as (a,), core() as driver:
        address = serve(driver, simple(a.address, **limited(by_key)))
        with channel(address) as client:
            assert outcomes(client, 5, x_api_key="one") == {grpc.StatusCode.OK: 2, LIMITED: 3}
            assert outcomes(client, 5, x_api_key="two") == {grpc.StatusCode.OK: 2, LIMITED: 3}
            assert outcomes(client, 5) == {grpc.StatusCode.OK: 5}, "without key: not counted"


def test_further_values_share_one_count() -> None:
    by_key = limit(1, headers=[{"name": "x-api-key", "distinct": True}], keys_max=8)
    with backends("a") as (a,), core() as driver:
        address = serve(driver, simple(a.address, **limited(by_key)))
        with channel(address) as client:
            codes = Counter(
                code for key in range(40) for code in outcomes(client, 1, x_api_key=f"k{key}")
            )
        assert codes == {grpc.StatusCode.OK: 9, LIMITED: 31}, "eight of their own, one for the rest"
        assert summary(driver)["shared_key"] == 32


def test_conditions_choose_the_calls_and_all_limits_hold() -> None:
    limits = (
        limit(1, headers=[{"name": "x-env", "exact": "test"}]),
        limit(2, name="users", headers=[{"name": "x-user", "regex": "[a-z]+"}]),
    )
    with backends("a") as (a,), core() as driver:
        address = serve(driver, simple(a.address, **limited(*limits)))
        with channel(address) as client:
            assert outcomes(client, 3, x_env="live", x_user="1") == {grpc.StatusCode.OK: 3}
            both = outcomes(client, 3, x_env="test", x_user="ann")
            assert both == {grpc.StatusCode.OK: 1, LIMITED: 2}
            # What the first refused was not counted by the second.
            users = outcomes(client, 3, x_env="live", x_user="bob")
            assert users == {grpc.StatusCode.OK: 1, LIMITED: 2}


def test_workers_share_one_bucket() -> None:
    with backends("a") as (a,), core(workers=4) as driver:
        address = serve(driver, simple(a.address, **limited(limit(100))))

        def storm(_: int) -> Counter[grpc.StatusCode]:
            with channel(address) as client:
                return outcomes(client, 40)

        with futures.ThreadPoolExecutor(8) as pool:
            total = sum(pool.map(storm, range(8)), Counter())
    assert total == {grpc.StatusCode.OK: 100, LIMITED: 220}


def test_a_limit_outlives_changes_and_is_one_over_listeners() -> None:
    with backends("a") as (a,), core() as driver:
        address = serve(driver, simple(a.address, **limited(limit(4))))
        with channel(address) as client:
            assert outcomes(client, 3) == {grpc.StatusCode.OK: 3}
            changed = limited(limit(4), timeout_ms=5_000)
            serve(driver, simple(a.address, **changed))
            assert outcomes(client, 3) == {grpc.StatusCode.OK: 1, LIMITED: 2}


def test_shares_of_a_global_limit_are_set_and_last() -> None:
    by_key = limit(
        100,
        **{"global": True, "first_share_per_million": 100_000},
        headers=[{"name": "x-api-key", "distinct": True}],
    )
    with backends("a") as (a,), core() as driver:
        address = serve(driver, simple(a.address, **limited(by_key)))
        with channel(address) as client:
            assert outcomes(client, 30, x_api_key="one")[grpc.StatusCode.OK] == 10
            (demand,) = driver.take_limit_demand()
            ((key, passed, refused),) = demand["keys"]
            assert (passed, refused) == (10, 20)
            assert driver.take_limit_demand()[0]["keys"] == []
            assert summary(driver)["share_age_ms"] is None
            share = {"limit": by_key["name"], "share_per_million": 200_000}
            driver.set_limit_shares([share | {"keys": {key: 500_000}}])
            assert outcomes(client, 60, x_api_key="one")[grpc.StatusCode.OK] == 40
            assert outcomes(client, 60, x_api_key="two")[grpc.StatusCode.OK] == 20
            found = summary(driver)
            assert found["share_per_million"] == 200_000
            assert 0 <= found["share_age_ms"] < 15_000
        with pytest.raises(ValueError, match="shares: unknown field"):
            driver.set_limit_shares([share | {"part": 1}])
        with pytest.raises(ValueError, match="key `one`"):
            driver.set_limit_shares([share | {"keys": {"one": 1}}])
