"""Peers that vanish without a word are noticed by PING, and by connections that do not come up."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.native.support import (
    backends,
    call,
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

TCP_TABLE = Path("/proc/net/tcp")
KEEPALIVE = {"interval_ms": 150, "timeout_ms": 150}
RETRY = {
    "on": ["reset", "connect-failure", "unavailable"],
    "attempts": 2,
    "base_ms": 1,
    "max_ms": 5,
}


class Relay:
    """Carries bytes to one address until it is told to swallow them."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.black_hole = threading.Event()
        self._stop = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.02):
                if key.data is None:
                    self._accept()
                else:
                    self._carry(key.fileobj, key.data)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def _carry(self, source: Any, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if data := source.recv(65536):
                if not self.black_hole.is_set():
                    sink.sendall(data)
                return
        for end in (source, sink):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(end)
            end.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


@contextlib.contextmanager
def relay(target: str) -> Iterator[Relay]:
    made = Relay(target)
    try:
        yield made
    finally:
        made.stop()


def two_tiers(first: str, second: str, **changes: Any) -> dict[str, Any]:
    return simple(
        route_tables=[table(route("echo", retry=RETRY))],
        clusters=[cluster(keepalive=KEEPALIVE, **changes)],
        endpoints=[
            endpoints(
                locality(first, cluster_id="us-east-1"),
                locality(second, cluster_id="us-west-1", priority=1),
            )
        ],
    )


def test_a_black_hole_costs_no_call_and_a_second_at_most() -> None:
    with (
        backends("a", "b") as [a, b],
        relay(a.address) as path,
        core() as driver,
        channel(serve(driver, two_tiers(path.address, b.address))) as client,
    ):
        assert call(client)[1] == "a"
        path.black_hole.set()
        calls = [unary(client).future(b"x", timeout=20) for _ in range(20)]
        for each in calls:
            assert each.result() == b"x"
        assert numbers(driver)["liveness_deaths"] == 1
        assert {call(client)[1] for _ in range(20)} == {"b"}


def test_the_endpoint_behind_the_black_hole_returns_by_itself() -> None:
    with backends("a", "b") as [a, b], relay(a.address) as path, core() as driver:
        configuration = two_tiers(path.address, b.address, connect_timeout_ms=200)
        with channel(serve(driver, configuration)) as client:
            assert call(client)[1] == "a"
            path.black_hole.set()
            assert call(client)[1] == "b"
            path.black_hole.clear()
            wait_until(lambda: call(client)[1] == "a", "traffic returns")


def test_a_connection_that_does_not_come_up_sends_waiting_calls_elsewhere() -> None:
    with backends("a", "b") as [a, b], relay(a.address) as path, core() as driver:
        path.black_hole.set()
        with channel(serve(driver, two_tiers(path.address, b.address))) as client:
            assert call(client)[1] == "b"
            assert call(client, timeout=0.5)[1] == "b"


def test_a_slow_endpoint_that_answers_pings_is_alive() -> None:
    with backends("a", "b") as [a, b], core() as driver:
        with channel(serve(driver, two_tiers(a.address, b.address))) as client:
            hanging = unary(client, "Hang").future(b"", timeout=1.5)
            assert hanging.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert call(client)[1] == "a"
        assert numbers(driver)["liveness_deaths"] == 0


@pytest.mark.skipif(not TCP_TABLE.exists(), reason="needs /proc")
def test_the_kernel_watches_connections_to_endpoints() -> None:
    """PING may not be sent to a server that is silent for long; TCP keepalive may."""
    with (
        backends("a") as [backend],
        core() as driver,
        channel(serve(driver, simple(backend.address))) as client,
    ):
        call(client)
        port = int(backend.address.rpartition(":")[2])

        def timers() -> list[str]:
            rows = [line.split() for line in TCP_TABLE.read_text().splitlines()[1:]]
            return [row[5][:2] for row in rows if row[2].endswith(f":{port:04X}")]

        wait_until(lambda: timers() == ["02"], "a keepalive timer runs")
