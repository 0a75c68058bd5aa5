"""One attack, measured: what the well-behaved client saw, what the gateway needed and counted."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO, cast

import psutil

from tests.abuse.attack import Attack, Fate
from tests.abuse.rig import AbuseRig
from tests.testkit.processes import HOST, ROOT

GROWTH_MAX_BYTES = 64 << 20
P99_MAX_FACTOR = 10.0
P99_ALWAYS_GOOD_MS = 1_000.0
SAMPLE_S = 0.02
SETTLE_TIMEOUT_S = 15.0
CONNECTIONS_AT_REST = 2
"""The well-behaved client's; grpcio may open a second one."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the well-behaved client saw."""

    calls: int
    errors: int
    first_errors: tuple[str, ...]
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """One attack's outcome."""

    attack: Attack
    fate: Fate
    calm: Seen
    seen: Seen
    growth_bytes: int
    counted: int | None
    unsettled: str | None

    @property
    def faults(self) -> tuple[str, ...]:
        """What is not as it should be."""
        return tuple(self._faults())

    def _faults(self) -> Iterator[str]:
        if self.fate.fault is not None:
            yield self.fate.fault
        if self.seen.errors:
            yield f"{self.seen.errors} calls of the other client failed: {self.seen.first_errors}"
        if self.seen.p99_ms > max(P99_ALWAYS_GOOD_MS, P99_MAX_FACTOR * self.calm.p99_ms):
            yield f"p99 {self.seen.p99_ms:.1f} ms, calm {self.calm.p99_ms:.1f} ms"
        if self.growth_bytes > GROWTH_MAX_BYTES:
            yield f"{self.growth_bytes >> 20} MiB more memory"
        if self.attack.counter is not None and (self.counted or 0) < self.attack.counted_min:
            yield f"`{self.attack.counter}` counted {self.counted}"
        if self.unsettled is not None:
            yield self.unsettled


class Bystander:
    """The well-behaved client's process."""

    def __init__(self, port: int) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.abuse.bystander", f"{HOST}:{port}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._out.readline()

    def begin(self) -> None:
        """Begin to call."""
        self._say("begin")

    def end(self) -> Seen:
        """Stop, and tell."""
        self._say("end")
        told = json.loads(self._out.readline())
        return Seen(**{**told, "first_errors": tuple(told["first_errors"])})

    def close(self) -> None:
        """End the process."""
        with self._child:
            self._child.terminate()

    def _say(self, command: str) -> None:
        into = cast("TextIO", self._child.stdin)
        into.write(command + "\n")
        into.flush()

    @property
    def _out(self) -> TextIO:
        return cast("TextIO", self._child.stdout)


def calm(bystander: Bystander) -> Seen:
    """How it is when nobody attacks."""
    bystander.begin()
    return bystander.end()


def measure(attack: Attack, rig: AbuseRig, bystander: Bystander) -> Row:
    """Run one attack."""
    before = calm(bystander)
    counted_before = numbers(rig)
    with _peak_growth(rig.gateway_pid) as growth:
        bystander.begin()
        fate = attack.run(rig.target)
        seen = bystander.end()
    unsettled = _settle(rig)
    counted = None
    if attack.counter is not None and attack.counter in counted_before:
        counted = numbers(rig)[attack.counter] - counted_before[attack.counter]
    return Row(attack, fate, before, seen, growth[0], counted, unsettled)


def numbers(rig: AbuseRig) -> dict[str, int]:
    """The gateway's counters."""
    with urllib.request.urlopen(f"http://{HOST}:{rig.admin_port}/stats", timeout=10) as answer:
        stats: dict[str, Any] = json.load(answer)
    found: dict[str, int] = stats["core"]["numbers"]
    return found


def _settle(rig: AbuseRig) -> str | None:
    """Wait until nothing of the attack is left; otherwise what is."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        now = numbers(rig)
        connections, calls = now["downstream_connections"], now["calls_open"]
        if connections <= CONNECTIONS_AT_REST and calls == 0:
            return None
        if time.monotonic() > deadline:
            return f"left behind: {connections} connections, {calls} calls"
        threading.Event().wait(SAMPLE_S)


@contextmanager
def _peak_growth(pid: int) -> Iterator[list[int]]:
    """A list of one number: how far the process' memory rose meanwhile."""
    process = psutil.Process(pid)
    before = process.memory_info().rss
    growth = [0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            growth[0] = max(growth[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        over.set()
        watcher.join()
