"""What a call keeps on its way over two gateways: its deadline, its session, its copies."""

from __future__ import annotations

import grpc
import pytest

from gateway.driver import Driver
from tests.native.certificates import Authority
from tests.native.support import (
    Backend,
    backends,
    channel,
    cluster,
    core,
    endpoints,
    failure,
    locality,
    route,
    serve,
    table,
    unary,
    wait_until,
)
from tests.native.test_tls import WEST, east_side, peer, west_side


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


def hop(ca: Authority, east: Driver, west: Driver, *servers: Backend, **asked: object) -> str:
    """The west's entrance; its route is as ``asked``, the east serves by ``servers``."""
    places = locality(*(server.address for server in servers), cluster_id="us-east-1")
    east_address = serve(east, east_side(ca, None, [WEST], endpoints=[endpoints(places)]))
    configuration = west_side(ca, peer(east_address))
    return serve(west, configuration | {"route_tables": [table(route("echo", **asked))]})


SESSION = {"session": {"name": "x-session", "kind": "header"}}


def test_a_session_is_with_one_server_behind_a_peer(ca: Authority) -> None:
    with backends("a", "b", "c") as servers, core() as east, core() as west:
        with channel(hop(ca, east, west, *servers, **SESSION)) as client:

            def call(*metadata: tuple[str, str]) -> tuple[str, dict[str, str]]:
                _, state = unary(client).with_call(b"", timeout=10, metadata=metadata)
                told = dict(state.initial_metadata())
                return told["x-served-by"], told

            wait_until(lambda: {call()[0] for _ in range(9)} == {"a", "b", "c"}, "calls spread")
            name, told = call()
            assert {call(("x-session", told["x-session"]))[0] for _ in range(30)} == {name}
            assert "x-federation-session" not in told, "it is between gateways"
        assert not any("x-federation-session" in seen for it in servers for seen in it.seen)


def test_a_session_behind_a_peer_moves_when_its_server_dies(ca: Authority) -> None:
    with (
        backends("a", "b") as servers,
        core() as east,
        core() as west,
        channel(hop(ca, east, west, *servers, **SESSION)) as client,
    ):
        _, state = unary(client).with_call(b"", timeout=10)
        told = dict(state.initial_metadata())
        its, other = sorted(servers, key=lambda it: it.name != told["x-served-by"])
        its.stop()
        token = [("x-session", told["x-session"])]
        for _ in range(10):
            _, state = unary(client).with_call(b"", timeout=10, metadata=token)
            assert dict(state.initial_metadata())["x-served-by"] == other.name


def test_a_deadline_goes_down_over_both_gateways(ca: Authority) -> None:
    """The route's deadline at the first gateway is what is left of at the server."""
    left: list[float] = []
    with backends("a") as [a], core() as east, core() as west:
        plain = a.unary

        def unary_with_deadline(request: bytes, context: grpc.ServicerContext) -> bytes:
            left.append(context.time_remaining())
            return plain(request, context)

        a.unary = unary_with_deadline  # type: ignore[method-assign]
        delay = {"delay": {"ms": 300, "per_million": 1_000_000}}
        with channel(hop(ca, east, west, a, timeout_ms=2_000, fault=delay)) as client:
            unary(client)(b"", timeout=60)
    assert 0 < left[0] <= 1.7, "the route's 2 s, less the 300 ms at the first gateway"


def test_a_deadline_that_passes_behind_the_second_gateway_is_deadline_exceeded(
    ca: Authority,
) -> None:
    with backends("a") as [a], core() as east, core() as west:
        with channel(hop(ca, east, west, a, timeout_ms=300)) as client:
            error = failure(client, "Hang")
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(
            lambda: (
                east.stats()["numbers"]["calls_open"] == 0  # type: ignore[index]
            ),
            "the second gateway lets go of it, too",
        )


def test_retries_of_both_gateways_together_stay_within_the_deadline(ca: Authority) -> None:
    """The first gateway retries what the second passes on; none of it begins a deadline anew."""
    retry = {"on": ["unavailable"], "attempts": 10, "base_ms": 100, "max_ms": 100}
    with backends("a") as [a], core() as east, core() as west:
        a.fail = grpc.StatusCode.UNAVAILABLE
        with channel(hop(ca, east, west, a, timeout_ms=150, retry=retry)) as client:
            error = failure(client, timeout=30)
        # When no wait fits before the deadline, the service's last answer is the better one.
        assert error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        assert 1 <= len(a.seen) < 11


def test_a_copy_for_another_cluster_names_its_own_destination(ca: Authority) -> None:
    """The call stays here; only its copy crosses, to the service that the mirror means."""
    destination = "x-federation-destination"
    only = route(
        "echo",
        match={
            "path": {"prefix": "/"},
            "headers": [{"name": destination, "exact": "app/copy:9090"}],
        },
        request_headers={"remove": [destination]},
    )
    mirror = {"cluster": "far", "request_headers": {"set": [[destination, "app/copy:9090"]]}}
    with backends("main", "copy") as [main, copy], core() as east, core() as west:
        east_address = serve(east, east_side(ca, copy.address, [WEST], route_tables=[table(only)]))
        far = west_side(ca, peer(east_address))
        near = route("near", mirrors=[mirror])
        near["action"]["weighted"][0]["request_headers"] = {"set": [[destination, "app/main:1"]]}
        configuration = far | {
            "route_tables": [table(near)],
            "clusters": [cluster("near"), far["clusters"][0] | {"name": "far"}],
            "endpoints": [
                endpoints(locality(main.address), name="near"),
                far["endpoints"][0] | {"cluster": "far"},
            ],
        }
        with channel(serve(west, configuration)) as client:
            assert unary(client)(b"hi", timeout=10) == b"hi"
            wait_until(lambda: copy.seen, "the copy crosses")
        assert main.seen[0][destination] == "app/main:1"
        assert destination not in copy.seen[0]
