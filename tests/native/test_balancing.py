"""How calls spread over endpoints, tiers and localities, counted at real servers."""

from __future__ import annotations

import collections
import concurrent.futures
import random
import threading
from collections.abc import Sequence
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
    endpoints,
    failure,
    locality,
    numbers,
    route,
    serve,
    simple,
    table,
    unary,
    wait_until,
)
from tests.testkit.ports import free_port

BY_LOAD = ["least_request", "peak_ewma"]
ALL = [*BY_LOAD, "round_robin", "ring_hash", "maglev"]
ON_USER = [{"header": "x-user"}]
KEYED = {"lb": "maglev", "hash_on": ON_USER}
Served = collections.Counter[str]


def configuration(*members: Backend, **changes: Any) -> dict[str, Any]:
    return simple(*(it.address for it in members), clusters=[cluster(**changes)])


def spread(client: grpc.Channel, count: int, *, at_once: int = 1, **kwargs: Any) -> Served:
    """Who served ``count`` calls, each of a user of its own; failed ones count as "failed"."""

    def one(number: int) -> str:
        try:
            return call(client, metadata=(("x-user", str(number)),), **kwargs)[1]
        except grpc.RpcError:
            return "failed"

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return Served(pool.map(one, range(count)))


def test_round_robin_gives_each_its_turn() -> None:
    with (
        backends("a", "b", "c") as members,
        core() as driver,
        channel(serve(driver, configuration(*members, lb="round_robin"))) as client,
    ):
        assert spread(client, 300) == {"a": 100, "b": 100, "c": 100}


def test_open_requests_count_and_turns_do_not_care() -> None:
    """A slow server has more open requests: least request spares it, round robin does not."""
    shares = {}
    for lb in ("least_request", "round_robin"):
        with backends("a", "b", "slow") as members, core() as driver:
            members[2].delay_s = 0.1
            with channel(serve(driver, configuration(*members, lb=lb))) as client:
                shares[lb] = spread(client, 240, at_once=8)["slow"]
    assert shares["round_robin"] == 80
    assert shares["least_request"] < 60


def test_peak_ewma_hears_how_long_answers_take() -> None:
    """One call at a time: no server is ever busy, and still the slow one is spared."""
    shares = {}
    for lb in BY_LOAD:
        with backends("a", "b", "slow") as members, core() as driver:
            members[2].delay_s = 0.03
            with channel(serve(driver, configuration(*members, lb=lb))) as client:
                shares[lb] = spread(client, 150)["slow"]
    assert shares["least_request"] > 25
    assert shares["peak_ewma"] < 15


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "UNAVAILABLE"])
@pytest.mark.parametrize("lb", BY_LOAD)
def test_a_quick_refusal_attracts_no_load(lb: str, code: str) -> None:
    """The server that refuses is free at once; by that alone it would get nearly every call."""
    with backends("refuses", "b", "c") as members, core() as driver:
        members[0].fail = grpc.StatusCode[code]
        for backend in members[1:]:
            backend.delay_s = 0.02
        with channel(serve(driver, configuration(*members, lb=lb))) as client:
            served = spread(client, 300, at_once=8)
    assert served["failed"] < 60, served
    assert served["failed"] > 0, "it is asked again and again, so that it is found when it is back"


# --- keys ---


def user(name: str) -> dict[str, Any]:
    return {"metadata": (("x-user", name),)}


@pytest.mark.parametrize("lb", ["ring_hash", "maglev"])
def test_a_key_stays_with_its_endpoint_while_others_come_and_go(lb: str) -> None:
    users = [f"user-{number}" for number in range(60)]
    with backends("a", "b", "c") as members, core() as driver:
        serving = configuration(*members, lb=lb, hash_on=ON_USER)
        address = serve(driver, serving)
        with channel(address) as client, channel(address) as other:
            home = {name: call(client, **user(name))[1] for name in users}
            assert set(home.values()) == {"a", "b", "c"}
            assert {name: call(other, **user(name))[1] for name in users} == home
            members[0].stop()
            # The endpoint is down: its users go elsewhere, all others stay.
            now = {name: call(client, **user(name))[1] for name in users}
            assert set(now.values()) == {"b", "c"}
            assert {name: at for name, at in now.items() if home[name] != "a"} == {
                name: at for name, at in home.items() if at != "a"
            }
            members[0].start(int(members[0].address.rpartition(":")[2]))
            wait_until(
                lambda: {name: call(client, **user(name))[1] for name in users} == home,
                "its users are back",
            )


def test_without_its_key_a_call_goes_by_open_requests() -> None:
    with (
        backends("a", "b", "c") as members,
        core() as driver,
        channel(serve(driver, configuration(*members, **KEYED))) as client,
    ):
        assert {call(client)[1] for _ in range(60)} == {"a", "b", "c"}


def test_a_table_of_two_slots_has_room_for_two_endpoints() -> None:
    with (
        backends("a", "b", "c") as members,
        core() as driver,
        channel(serve(driver, configuration(*members, **KEYED, table_size=2))) as client,
    ):
        assert len(spread(client, 60)) == 2


def test_keys_are_retried_elsewhere() -> None:
    retry = {"on": ["unavailable"], "attempts": 2, "base_ms": 1}
    with backends("a", "b", "c") as members, core() as driver:
        serving = configuration(*members, **KEYED)
        serving |= {"route_tables": [table(route("echo", retry=retry))]}
        with channel(serve(driver, serving)) as client:
            for number in range(30):
                name = f"user-{number}"
                at_home = call(client, **user(name))[1]
                metadata = (("x-user", name), ("x-fail-at", at_home))
                assert call(client, metadata=metadata)[1] != at_home


# --- tiers, panic, draining: the same for every way to choose ---


def tiered(near: Sequence[Any], far: Sequence[Any], **changes: Any) -> dict[str, Any]:
    tiers = [locality(*near), locality(*far, cluster_id="us-east-1", priority=1)]
    return simple(
        clusters=[cluster(hash_on=ON_USER, **changes)],
        endpoints=[endpoints(*tiers)],
    )


def check_failed(driver: Driver, *members: Backend) -> None:
    for backend in members:
        driver.set_health("echo", backend.address, healthy=False)


@pytest.mark.parametrize("lb", ALL)
def test_half_a_tier_keeps_seventy_percent(lb: str) -> None:
    """Envoy's table: 50 % healthy keeps 1.4 x 50 = 70 %, the rest goes to the next tier."""
    with backends("a", "b", "c", "d", "far") as [*near, far], core() as driver:
        serving = tiered([it.address for it in near], [far.address], lb=lb, health_check=True)
        with channel(serve(driver, serving)) as client:
            assert "far" not in spread(client, 40)
            check_failed(driver, *near[:2])
            served = spread(client, 400)
    assert not served["a"] + served["b"]
    assert 80 < served["far"] < 160, served
    # One call at a time goes to the quickest by peak EWMA, whatever the others could take.
    assert lb == "peak_ewma" or min(served["c"], served["d"]) > 90, served


@pytest.mark.parametrize("lb", ALL)
def test_below_the_panic_threshold_all_share(lb: str) -> None:
    with backends("a", "b", "c", "d") as members, core() as driver:
        serving = configuration(*members, lb=lb, hash_on=ON_USER, health_check=True)
        with channel(serve(driver, serving)) as client:
            check_failed(driver, *members[:2])
            assert set(spread(client, 60)) <= {"c", "d"}, "50 % is not below 50 %"
            check_failed(driver, members[2])
            served = spread(client, 100)
            assert set(served) & {"a", "b", "c"}
            assert lb == "peak_ewma" or set(served) == {"a", "b", "c", "d"}


def test_without_panic_nothing_available_is_unavailable() -> None:
    with backends("a", "b") as members, core() as driver:
        serving = configuration(*members, panic_percent=0, health_check=True)
        with channel(serve(driver, serving)) as client:
            check_failed(driver, *members)
            assert "panic is off" in failure(client).details()


@pytest.mark.parametrize("lb", ALL)
def test_draining_endpoints_get_nothing_new(lb: str) -> None:
    with backends("a", "b", "far") as [a, b, far], core() as driver:
        leaving = {"address": a.address, "health": "draining"}
        with channel(serve(driver, tiered([a.address, b.address], [far.address], lb=lb))) as client:
            assert set(spread(client, 40)) <= {"a", "b"}
            serve(driver, tiered([leaving, b.address], [far.address], lb=lb))
            assert set(spread(client, 40)) == {"b"}, "a rolling update does not spill"
            also = {"address": b.address, "health": "draining"}
            serve(driver, tiered([leaving, also], [far.address], lb=lb))
            assert set(spread(client, 40)) == {"far"}


@pytest.mark.parametrize("lb", ALL)
def test_localities_share_by_weight(lb: str) -> None:
    with backends("a", "b") as [a, b], core() as driver:
        places = [
            locality(a.address, weight=3),
            locality(b.address, cluster_id="us-west-2", weight=1),
        ]
        serving = simple(clusters=[cluster(lb=lb, hash_on=ON_USER)], endpoints=[endpoints(*places)])
        with channel(serve(driver, serving)) as client:
            served = spread(client, 400)
    assert 260 < served["a"] < 340, served


# --- slow start ---


@pytest.mark.parametrize("lb", ["least_request", "round_robin", "peak_ewma"])
def test_a_new_endpoint_begins_with_a_part_of_its_share(lb: str) -> None:
    with backends("a", "b", "new") as [a, b, new], core() as driver:
        slow = {"window_ms": 600_000, "min_percent": 1}
        fair = configuration(a, b, new, lb=lb)
        with channel(serve(driver, configuration(a, b, lb=lb, slow_start=slow))) as client:
            call(client)
            serve(driver, configuration(a, b, new, lb=lb, slow_start=slow))
            begins = spread(client, 300)["new"]
            serve(driver, fair)
            whole = spread(client, 300)["new"]
    assert begins < 50, "few draws are repeated often enough to leave it out every time"
    assert lb == "peak_ewma" or whole > 70


def test_after_the_window_it_has_its_whole_share() -> None:
    with backends("a", "new") as [a, new], core() as driver:
        slow = {"window_ms": 300, "min_percent": 1}
        with channel(serve(driver, configuration(a, slow_start=slow))) as client:
            call(client)
            serve(driver, configuration(a, new, slow_start=slow))
            wait_until(lambda: spread(client, 50)["new"] > 15, "it is warm")


# --- bounds ---


def hang(client: grpc.Channel, count: int) -> list[Any]:
    return [unary(client, "Hang").future(b"", timeout=30) for _ in range(count)]


def test_connections_and_waiting_calls_are_bounded() -> None:
    one_stream = (("grpc.max_concurrent_streams", 1),)
    with core() as driver:
        backend = Backend("a", options=one_stream).start()
        serving = configuration(backend, max_connections=2, max_pending_requests=3)
        with channel(serve(driver, serving)) as client:
            # The first call learns that a connection carries one stream.
            call(client)
            open_calls = hang(client, 2)
            wait_until(lambda: len(backend.seen) == 3, "two hang")
            waiting = hang(client, 3)
            wait_until(lambda: numbers(driver)["calls_open"] == 5, "three wait")
            error = failure(client)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "max_pending_requests" in error.details()
            assert numbers(driver)["pending_overflows"] == 1
            assert numbers(driver)["upstream_connections"] == 2
            assert len(backend.seen) == 3
            open_calls[0].cancel()
            wait_until(lambda: len(backend.seen) == 4, "one that waited takes its place")
            for future in (*open_calls, *waiting):
                future.cancel()
        backend.stop()


def test_a_connection_is_replaced_after_its_requests() -> None:
    with backends("a") as [a], core() as driver:
        with channel(serve(driver, configuration(a, max_requests_per_connection=3))) as client:
            for _ in range(9):
                call(client)
        assert numbers(driver)["connects"] == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_open_requests_are_bounded_over_all_workers(workers: int) -> None:
    with backends("a") as [a], core(workers=workers) as driver:
        address = serve(driver, configuration(a, max_requests=4))
        with channel(address) as client, channel(address) as other:
            hanging = [*hang(client, 2), *hang(other, 2)]
            wait_until(lambda: len(a.seen) == 4, "all hang")
            for each in (client, other):
                error = failure(each)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert "max_requests" in error.details()
            assert numbers(driver)["request_overflows"] == 2
            hanging[0].cancel()
            wait_until(lambda: _works(other), "there is room again")
            for future in hanging:
                future.cancel()
            wait_until(lambda: numbers(driver)["calls_open"] == 0, "all are gone")
            assert spread(client, 20, at_once=4) == {"a": 20}


def _works(client: grpc.Channel) -> bool:
    try:
        call(client)
    except grpc.RpcError:
        return False
    return True


# --- endpoints that come and go ---


def delta(added: Sequence[Any], removed: Sequence[str]) -> dict[str, Any]:
    change = {"cluster": "echo", "localities": [locality(*added)], "removed": list(removed)}
    return {"version": "2", "full": False, "endpoint_deltas": [change]}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("lb", ["least_request", "maglev"])
def test_endpoints_come_and_go_under_traffic_without_a_lost_call(lb: str, workers: int) -> None:
    failures: list[str] = []
    answered = collections.Counter[str]()
    ended = threading.Event()

    def work(address: str, number: int) -> None:
        users = random.Random(number)
        with channel(address) as client:
            stream = client.stream_stream(f"/{SERVICE}/Bidi")
            while not ended.is_set() and not failures:
                try:
                    user = str(users.random())
                    answered[call(client, metadata=(("x-user", user),))[1]] += 1
                    assert list(stream(iter([b"x"] * 3), timeout=15)) == [b"x"] * 3
                except grpc.RpcError as error:
                    failures.append(str(error))

    random_ = random.Random(7)
    with backends("a", "b", "c", "d") as members, core(workers=workers) as driver:
        address = serve(driver, configuration(*members, lb=lb, hash_on=ON_USER))
        threads = [threading.Thread(target=work, args=(address, it)) for it in range(6)]
        for thread in threads:
            thread.start()
        others = [it.address for it in members[1:]]
        there = set(others)
        try:
            for _ in range(300):
                gone = {it for it in there if random_.random() < 0.5}
                new = {it for it in others if it not in there and random_.random() < 0.5}
                driver.apply(delta(sorted(new), sorted(gone)))
                there = (there - gone) | new
            driver.apply(delta(sorted(set(others) - there), []))
            answered.clear()
            wait_until(lambda: len(answered) == 4 or bool(failures), "all serve again")
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        assert failures == []
        wait_until(lambda: numbers(driver)["calls_open"] == 0, "all calls are forgotten")
        assert {it["address"] for it in _known(driver)} == {it.address for it in members}
        assert numbers(driver)["panics"] == 0


def _known(driver: Driver) -> Sequence[dict[str, Any]]:
    return driver.stats()["endpoints"]  # type: ignore[return-value]


def test_many_endpoints_are_counted_and_only_troubled_ones_listed() -> None:
    many = [f"127.64.{number >> 8}.{number & 255}:9" for number in range(10_000)]
    with backends("a") as [a], core() as driver:
        # Its weight leaves the others, where nobody listens, next to nothing.
        place = locality({"address": a.address, "weight": 1_000_000}, *many)
        serving = simple(endpoints=[endpoints(place)])
        with channel(serve(driver, serving)) as client:
            assert spread(client, 50) == {"a": 50}
            assert driver.stats()["endpoints_total"] == 10_001
            listed = len(_known(driver))
            assert listed < 50, "those that were tried and found down"
            away = {"address": many[0], "health": "draining"}
            driver.apply(delta([away], []))
            told = [it for it in _known(driver) if it["address"] == many[0]]
            assert [it["health"] for it in told] == ["draining"]


def test_a_cluster_that_goes_lets_its_calls_finish() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        address = serve(driver, configuration(a))
        with channel(address) as client:
            hanging = hang(client, 1)
            wait_until(lambda: a.seen, "it hangs")
            successor = simple(
                route_tables=[table(route("other"))],
                clusters=[cluster("other")],
                endpoints=[endpoints(locality(b.address), name="other")],
            )
            serve(driver, successor)
            assert call(client)[1] == "b"
            serve(driver, configuration(b))
            assert call(client)[1] == "b"
            assert not hanging[0].done()
            hanging[0].cancel()
            wait_until(lambda: numbers(driver)["calls_open"] == 0, "it is gone")
            serve(driver, configuration(a, b))
            assert set(spread(client, 40)) == {"a", "b"}


def test_an_endpoint_that_is_gone_is_not_called_though_nothing_else_is_left() -> None:
    with (
        backends("a") as [a],
        core() as driver,
        channel(serve(driver, configuration(a))) as client,
    ):
        call(client)
        driver.apply(delta([], [a.address]))
        assert "no endpoints" in failure(client).details()
        driver.apply(delta([a.address, f"127.0.0.1:{free_port()}"], []))
        assert call(client)[1] == "a"
