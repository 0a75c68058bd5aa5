"""What is held in numbers: idle connections, open streams, a long answer that is read slowly.

The gateway is a process of its own with the limits as shipped; its memory is what the system says.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from tests.abuse.backend import ECHO, FLOOD, HOLD
from tests.abuse.counters import numbers
from tests.abuse.sink import running_sink
from tests.abuse.wire import END_HEADERS, Attacker, frame, request_headers
from tests.conformance.rig import Rig, manifests
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running

KIB = 1 << 10
MIB = 1 << 20
DEADLINE_S = 60.0
POLL_S = 0.05

CONNECTIONS = 10_000
CONNECTION_MAX_BYTES = 16 * KIB
STREAM_CONNECTIONS = 200
STREAMS = 250
STREAM_MAX_BYTES = 8 * KIB
LONG_BYTES = 1 << 30
LONG_MAX_BYTES = 16 * MIB

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True, slots=True)
class Held:
    """A gateway whose memory is looked at."""

    port: int
    admin_port: int
    pid: int

    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def number(self, name: str) -> int:
        """One of its numbers."""
        return numbers(self.admin_port)[name]


@contextlib.contextmanager
def gateway(directory: Path, backend_port: int) -> Iterator[Held]:
    rig = Rig(free_port(), free_port(), backend_port, directory / "ca.pem")
    folder = directory / "manifests"
    folder.mkdir()
    (folder / "all.yaml").write_text(manifests(rig))
    admin_port = free_port()
    command = [sys.executable, "-m", "federation.cli", "standalone", f"--manifests={folder}"]
    command += ["--port-offset=0", f"--admin={HOST}:{admin_port}"]
    with running(command, (rig.plain_port, admin_port), directory / "gateway.log") as child:
        yield Held(rig.plain_port, admin_port, child.pid)


@contextlib.contextmanager
def backend(directory: Path) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "tests.abuse.backend", f"{HOST}:{port}"]
    with running(command, (port,), directory / "backend.log"):
        yield port


def await_that(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        time.sleep(POLL_S)


def test_ten_thousand_idle_connections(tmp_path: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert most > CONNECTIONS + 500, "this test needs more file descriptors: ulimit -n"
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        backend(tmp_path) as port,
        gateway(tmp_path, port) as held,
        contextlib.ExitStack() as stack,
    ):
        echo(held)
        before = held.memory()
        for _ in range(CONNECTIONS):
            stack.enter_context(Attacker(held.port))
        await_that(lambda: held.number("downstream_connections") >= CONNECTIONS, "all stand")
        each = (held.memory() - before) / CONNECTIONS
        print(f"{CONNECTIONS} idle connections: {each / KIB:.1f} KiB each")
        assert each < CONNECTION_MAX_BYTES
        echo(held)


def test_fifty_thousand_open_streams(tmp_path: Path) -> None:
    with (
        running_sink() as port,
        gateway(tmp_path, port) as held,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(Attacker(held.port)) for _ in range(STREAM_CONNECTIONS)]
        # The first request fills the compression table, the others are references to it.
        encoder = clients[0].encoder
        first, later = (encoder.encode(request_headers(HOLD)) for _ in range(2))
        blocks = [first, *[later] * (STREAMS - 1)]
        requests = b"".join(
            frame("headers", 1 + 2 * at, block, flags=END_HEADERS)
            for at, block in enumerate(blocks)
        )
        before = held.memory()
        # No more may wait for the first connection to the endpoint than `max_pending_requests`.
        assert clients[0].send(requests)
        await_that(lambda: held.number("upstream_tries") >= STREAMS, "the endpoint is connected")
        for client in clients[1:]:
            assert client.send(requests)
        total = STREAM_CONNECTIONS * STREAMS
        await_that(lambda: held.number("calls_open") >= total, f"{total} streams are open")
        each = (held.memory() - before) / total
        print(f"{total} open streams: {each / KIB:.2f} KiB each")
        assert each < STREAM_MAX_BYTES
        assert held.number("streams_refused") == 0
        stack.close()
        await_that(lambda: held.number("calls_open") == 0, "all have ended")


def test_a_gigabyte_to_a_slow_reader(tmp_path: Path) -> None:
    with backend(tmp_path) as port, gateway(tmp_path, port) as held:
        with grpc.insecure_channel(f"{HOST}:{held.port}") as channel:
            flood: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(FLOOD)
            before, peak, taken = held.memory(), 0, 0
            parts = flood(str(LONG_BYTES).encode(), timeout=200, wait_for_ready=True)
            await_that(lambda: held.number("buffered_bytes") > 0, "the answer waits for its reader")
            for number, part in enumerate(parts):
                taken += len(part)
                if number % 256 == 0:
                    peak = max(peak, held.memory() - before)
        print(f"{taken >> 20} MiB passed: {peak / MIB:.1f} MiB more memory")
        assert taken == LONG_BYTES
        assert peak < LONG_MAX_BYTES


def echo(held: Held) -> None:
    """A call of somebody else."""
    with grpc.insecure_channel(f"{HOST}:{held.port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
        assert call(b"x", timeout=10, wait_for_ready=True) == b"x"
