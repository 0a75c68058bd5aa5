"""Everything at once: calls and cancellations under configuration changes and dying endpoints."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import grpc
import pytest

from tests.native.support import (
    SERVICE,
    backends,
    channel,
    cluster,
    core,
    endpoints,
    locality,
    numbers,
    route,
    serve,
    simple,
    table,
    unary,
    wait_until,
)

SECONDS = 3.0
# A gRPC server that stops gracefully cancels what reaches it late.
RETRY_ON = ["unavailable", "reset", "connect-failure", "cancelled"]
RETRY = {"on": RETRY_ON, "attempts": 3, "base_ms": 1}
OUTLIER = {"consecutive_failures": 5, "base_ejection_ms": 50}


def configuration(random_: random.Random, steady: str, others: list[str]) -> dict[str, Any]:
    some = random_.sample(others, random_.randrange(len(others) + 1))
    members: list[Any] = [{"address": it, "health": random_.choice(HEALTH)} for it in some]
    for member in members:
        if member["health"] == "draining":
            member["drain_grace_ms"] = random_.choice([None, 2_000])
    return simple(
        route_tables=[table(route("echo", retry=RETRY | {"buffer_bytes": 4096}))],
        clusters=[
            cluster(
                outlier=OUTLIER,
                keepalive={"interval_ms": 50, "timeout_ms": 100},
                max_requests_per_connection=random_.choice([None, 50]),
            )
        ],
        endpoints=[endpoints(locality(*members), locality(steady, priority=1))],
    )


CUT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
HEALTH = ["healthy", "healthy", "draining", "unhealthy"]


def work(address: str, seed: int, until: float, failures: list[str]) -> None:
    random_ = random.Random(seed)
    with channel(address) as client:
        while time.monotonic() < until:
            message = b"x" * random_.choice([0, 10, 3_000, 100_000])
            match random_.randrange(4):
                case 0:
                    future = unary(client).future(message, timeout=10)
                    future.cancel()
                case 1:
                    stream = client.stream_stream(f"/{SERVICE}/Bidi")
                    try:
                        assert list(stream(iter([message] * 3), timeout=10)) == [message] * 3
                    except grpc.RpcError as error:
                        # A stream may be cut, by a drain or by a server that stops.
                        if error.code() not in CUT:
                            failures.append(str(error))
                case _:
                    try:
                        assert unary(client)(message[:4_000], timeout=10) == message[:4_000]
                    except grpc.RpcError as error:
                        failures.append(str(error))


@pytest.mark.parametrize("workers", [1, 2])
def test_churn_costs_no_unary_call_and_leaves_nothing_behind(workers: int) -> None:
    random_ = random.Random(workers)
    failures: list[str] = []
    with backends("steady", "b", "c") as [steady, *others], core(workers=workers) as driver:
        address = serve(driver, simple(steady.address))
        until = time.monotonic() + SECONDS
        threads = [
            threading.Thread(target=work, args=(address, seed, until, failures))
            for seed in range(6)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < until:
            driver.apply(configuration(random_, steady.address, [it.address for it in others]))
            if random_.random() < 0.1:
                victim = random_.choice(others)
                victim.stop(grace_s=1)
                victim.start(int(victim.address.rpartition(":")[2]))
        for thread in threads:
            thread.join()
        wait_until(lambda: numbers(driver)["calls_open"] == 0, "all calls are forgotten")
        wait_until(lambda: numbers(driver)["downstream_connections"] == 0, "all clients left")
        assert numbers(driver)["panics"] == 0
        assert [it for it in driver.events() if it["event"] == "panic"] == []
        assert failures == []
