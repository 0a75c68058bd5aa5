"""What routes and endpoints cost a call as they become many, and what a change of one costs.

Endpoints that take calls are the same in every row: ten servers in a locality whose weight leaves
the others, addresses of this machine where nobody listens, one call in a thousand million. So the
rows differ in the table and in what is made of it, not in the number of connections; what a draw
among 100,000 costs is in ``gateway/core/benches``.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.loads import Sample, latencies_us, unary
from tests.bench.proxies import Proxy, backend
from tests.bench.setting import METHOD, Security, make_tls
from tests.testkit.processes import HOST

ROUTES = (10, 100, 1_000, 10_000)
ENDPOINTS = (10, 1_000, 10_000, 100_000)
SERVERS = 10
SERVERS_WEIGHT = 1_000_000_000
"""Of their locality; the others have 1."""
CALLS = 60_000
ROUNDS = 5
CHANGES = 300
CHANGE_EVERY_S = 0.02
RATE = 2_000.0
"""Calls a second while changes are applied: far below the peak, so that a pause is what is seen."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of one endpoint under calls, and the calls: microseconds, sorted."""

    took_us: list[float]
    pause_us: list[float]
    latency_us: list[int]
    calm_latency_us: list[int]


@dataclass(frozen=True, slots=True)
class Growth:
    """Samples by number of routes and of endpoints, and changes by number of endpoints."""

    routes: dict[int, list[Sample]]
    endpoints: dict[int, list[Sample]]
    changes: dict[int, Changes]


class Gateway:
    """The process, and how it is told what to take."""

    def __init__(self, directory: Path, child: subprocess.Popen[str]) -> None:
        self._directory = directory
        self._child = child

    def take(self, update: dict[str, Any]) -> dict[str, Any]:
        """Apply ``update``. Raises ``RuntimeError`` when the process ends over it."""
        path = self._directory / "update.json"
        path.write_text(json.dumps(update))
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{path}\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the gateway of the growth benchmark has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def proxy(self, update: dict[str, Any]) -> Proxy:
        """The gateway with ``update`` in force."""
        port = int(self.take(update)["address"].rpartition(":")[2])
        return Proxy("gateway", port, psutil.Process(self._child.pid))


@contextlib.contextmanager
def gateway(directory: Path) -> Iterator[Gateway]:
    """The process, ended with the block."""
    command = [sys.executable, "-m", "tests.bench.growth_gateway"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        try:
            yield Gateway(directory, child)
        finally:
            child.terminate()


def measure(*, calls: int, rounds: int, changes: int) -> Growth:
    """Rows in turn, ``rounds`` times; then ``changes`` of one endpoint at each size."""
    growth = Growth({n: [] for n in ROUTES}, {n: [] for n in ENDPOINTS}, {})
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = []
        for number in range(SERVERS):
            own = directory / str(number)
            own.mkdir()
            ports.append(stack.enter_context(backend(own)))
        tls = make_tls(directory)
        subject = stack.enter_context(gateway(directory))

        def load(update: dict[str, Any]) -> Sample:
            return unary(subject.proxy(update), Security.PLAIN, tls, calls=calls)

        load(configuration(ports, routes=ROUTES[0], endpoints=SERVERS))
        for _ in range(rounds):
            for n in ROUTES:
                growth.routes[n].append(load(configuration(ports, routes=n, endpoints=SERVERS)))
            for n in ENDPOINTS:
                update = configuration(ports, routes=ROUTES[0], endpoints=n)
                growth.endpoints[n].append(load(update))
        for n in ENDPOINTS:
            update = configuration(ports, routes=ROUTES[0], endpoints=n)
            growth.changes[n] = _change(subject, subject.proxy(update), n, changes)
    return growth


def _change(subject: Gateway, proxy: Proxy, endpoints: int, changes: int) -> Changes:
    seconds = changes * CHANGE_EVERY_S
    calm = latencies_us(proxy.port, rate=RATE, seconds=seconds)
    answers: list[dict[str, Any]] = []
    latency: list[int] = []
    calling = threading.Thread(
        target=lambda: latency.extend(latencies_us(proxy.port, rate=RATE, seconds=seconds))
    )
    calling.start()
    for number in range(changes):
        answers.append(subject.take(one_endpoint(endpoints, there=number % 2 == 0)))
        time.sleep(CHANGE_EVERY_S)
    calling.join()
    return Changes(
        sorted(it["took_us"] for it in answers),
        sorted(it["pause_us"] for it in answers),
        latency,
        calm,
    )


# What the core is told.


def configuration(ports: list[int], *, routes: int, endpoints: int) -> dict[str, Any]:
    """``routes`` of which the last is called, one cluster of ``endpoints``."""
    others = [f"/pkg.Service{n // 10}/Method{n % 10}" for n in range(routes - 1)]
    weighted = {"weighted": [{"cluster": "c", "weight": 1}]}
    entries = [
        {"name": path, "match": {"path": {"exact": path}, "grpc": True}, "action": weighted}
        for path in (*others, METHOD)
    ]
    servers = [{"address": f"{HOST}:{port}"} for port in ports]
    idle = [{"address": address(n)} for n in range(endpoints - len(ports))]
    localities = [_locality(servers, weight=SERVERS_WEIGHT), _locality(idle, cluster_id="idle")]
    return {
        "version": "1",
        "full": True,
        "listeners": [
            {"name": "l", "address": HOST, "port": 0, "kind": "ingress", "route_table": "t"}
        ],
        "route_tables": [
            {"name": "t", "virtual_hosts": [{"name": "h", "hostnames": ["*"], "routes": entries}]}
        ],
        "clusters": [{"name": "c"}],
        "endpoints": [{"cluster": "c", "localities": localities}],
    }


def one_endpoint(endpoints: int, *, there: bool) -> dict[str, Any]:
    """One endpoint more than ``endpoints``, or away again."""
    changed = address(endpoints)
    delta = {
        "cluster": "c",
        "localities": [_locality([{"address": changed}], cluster_id="idle")] if there else [],
        "removed": [] if there else [changed],
    }
    return {"version": "2", "full": False, "endpoint_deltas": [delta]}


def address(number: int) -> str:
    """One of this machine's addresses, all of which refuse connections to this port."""
    return f"127.{number >> 16 | 64}.{number >> 8 & 255}.{number & 255}:9"


def _locality(
    endpoints: list[dict[str, Any]], *, cluster_id: str = "bench", weight: int = 1
) -> dict[str, Any]:
    head = {"cluster_id": cluster_id, "region": "bench", "priority": 0, "weight": weight}
    return head | {"endpoints": endpoints}


# Tables.


def table(growth: Growth) -> str:
    """All of it as Markdown."""
    parts = [
        _calls("routes", growth.routes),
        _calls("endpoints of the cluster", growth.endpoints),
        _changed(growth.changes),
    ]
    return "\n\n".join(parts)


def _calls(what: str, samples: dict[int, list[Sample]]) -> str:
    rounds = len(next(iter(samples.values())))
    lines = [
        f"CPU of a unary call by {what}, one worker, median of {rounds} interleaved runs:",
        "",
        f"| {what} | CPU µs a call | min–max | growth |",
        "| ---: | ---: | ---: | ---: |",
    ]
    medians = {n: statistics.median(run.cpu_us for run in runs) for n, runs in samples.items()}
    first = next(iter(medians.values()))
    for n, runs in samples.items():
        cpu = [run.cpu_us for run in runs]
        grown = (medians[n] / first - 1) * 100
        lines.append(
            f"| {n:,} | {medians[n]:.2f} | {min(cpu):.2f}–{max(cpu):.2f} | {grown:+.0f} % |"
        )
    return "\n".join(lines)


def _changed(changes: dict[int, Changes]) -> str:
    every = f"every {CHANGE_EVERY_S * 1000:.0f} ms under {RATE:,.0f} calls/s"
    lines = [
        f"One endpoint comes or goes {every} (ms; the pause is the worker's):",
        "",
        "| endpoints | apply p50 | p99 | pause p50 | max | call p99 (calm) | call max (calm) |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for n, found in changes.items():
        latency, calm = found.latency_us, found.calm_latency_us
        lines.append(
            f"| {n:,} | {_ms(found.took_us, 50)} | {_ms(found.took_us, 99)} "
            f"| {_ms(found.pause_us, 50)} | {_ms(found.pause_us, 100)} "
            f"| {_ms(latency, 99)} ({_ms(calm, 99)}) | {_ms(latency, 100)} ({_ms(calm, 100)}) |"
        )
    return "\n".join(lines)


def _ms(sorted_us: list[float] | list[int], percent: int) -> str:
    at = min(len(sorted_us) - 1, len(sorted_us) * percent // 100)
    return f"{sorted_us[at] / 1000:.2f}"
