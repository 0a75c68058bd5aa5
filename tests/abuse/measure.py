"""One attack, measured: what the well-behaved client saw, what the gateway needed and counted.

Method: calm and attack take turns, for what a machine is busy with besides changes slowly. Calls
are cut into windows of ``WINDOW_CALLS``; the p99 of calm and of attack is the median over their
windows' p99. A comparison that fails is made again with more turns, up to ``TURNS_MAX``: a fault of
the gateway comes back, a hiccup of the machine does not. Below ``FLOOR_MS`` a p99 tells of the
kernel's time slices and of nothing else, so calm counts as at least that much.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

import psutil

from tests.abuse.attack import Attack, Fate, Target
from tests.abuse.attackers import ENOUGH, IN_PLACE
from tests.abuse.backend import CALM_ECHO, ECHO
from tests.abuse.counters import numbers
from tests.abuse.rig import AbuseRig
from tests.testkit.processes import HOST, ROOT

GROWTH_MAX_BYTES = 64 << 20
P99_MAX_FACTOR = 3.0
FLOOR_MS = 5.0
WINDOW_CALLS = 200
TURNS_MIN = 3
TURNS_MAX = 8
SAMPLE_S = 0.02
GAUGE_SAMPLE_S = 0.2
SETTLE_TIMEOUT_S = 15.0
CONNECTIONS_AT_REST = 2
"""The well-behaved client's; grpcio may open a second one."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the well-behaved client saw over some time, or several times put together."""

    taken_ms: tuple[float, ...] = ()
    errors: int = 0
    first_errors: tuple[str, ...] = ()

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            self.taken_ms + other.taken_ms,
            self.errors + other.errors,
            self.first_errors or other.first_errors,
        )

    @property
    def windows(self) -> int:
        """Whole windows."""
        return len(self.taken_ms) // WINDOW_CALLS

    @property
    def p99_ms(self) -> float:
        """The median over the windows' 99th percentiles."""
        cuts = range(0, self.windows * WINDOW_CALLS, WINDOW_CALLS)
        return statistics.median(p99_ms(self.taken_ms[at : at + WINDOW_CALLS]) for at in cuts)


def p99_ms(taken_ms: Sequence[float]) -> float:
    """The 99th percentile."""
    return sorted(taken_ms)[len(taken_ms) * 99 // 100 - 1]


def p99_limit_ms(calm_ms: float) -> float:
    """What a p99 under attack may come to."""
    return P99_MAX_FACTOR * max(calm_ms, FLOOR_MS)


@dataclass(frozen=True, slots=True)
class Row:
    """One attack's outcome."""

    attack: Attack
    fates: tuple[Fate, ...]
    calm: Seen
    seen: Seen
    growth_bytes: int
    counted: int
    unsettled: str | None

    @property
    def faults(self) -> tuple[str, ...]:
        """What is not as it should be."""
        return tuple(self._faults())

    def _faults(self) -> Iterator[str]:
        yield from (fate.fault for fate in self.fates if fate.fault is not None)
        if self.seen.errors:
            yield f"{self.seen.errors} calls of the other client failed: {self.seen.first_errors}"
        if self.seen.p99_ms > p99_limit_ms(self.calm.p99_ms):
            yield f"p99 {self.seen.p99_ms:.1f} ms, calm {self.calm.p99_ms:.1f} ms"
        if self.growth_bytes > GROWTH_MAX_BYTES:
            yield f"{self.growth_bytes >> 20} MiB more memory"
        if self.counted < self.attack.counted_min:
            yield f"`{self.attack.counter}` counted {self.counted}"
        if self.unsettled is not None:
            yield self.unsettled


class _Helper:
    """A process that is told and tells, line by line."""

    def __init__(self, module: str, argument: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, argument],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._hear()

    def close(self) -> None:
        """End the process."""
        with self._child:
            self._child.terminate()

    def _say(self, command: str) -> None:
        into = cast("IO[str]", self._child.stdin)
        into.write(command + "\n")
        into.flush()

    def _hear(self) -> str:
        line = cast("IO[str]", self._child.stdout).readline()
        if not line:
            raise RuntimeError(f"{self._child.args!r} has ended")
        return line


class Bystander(_Helper):
    """The well-behaved client's process."""

    def __init__(self, port: int) -> None:
        super().__init__("tests.abuse.bystander", f"{HOST}:{port}")

    def begin(self, *, shared: bool) -> None:
        """Begin to call, the attacked backend or another."""
        self._say(f"begin {ECHO if shared else CALM_ECHO}")

    def count(self) -> int:
        """Calls since it began."""
        self._say("count")
        return int(self._hear())

    def await_calls(self, calls: int) -> None:
        """Wait until so many more were made."""
        until = self.count() + calls
        while self.count() < until:
            time.sleep(SAMPLE_S)

    def end(self) -> Seen:
        """Stop, and tell."""
        self._say("end")
        told = json.loads(self._hear())
        return Seen(tuple(told["taken_ms"]), told["errors"], tuple(told["first_errors"]))


class Attackers(_Helper):
    """The attackers' process."""

    def __init__(self, target: Target) -> None:
        argument = json.dumps(dataclasses.asdict(target), default=str)
        super().__init__("tests.abuse.attackers", argument)

    def run(self, attack: Attack, bystander: Bystander) -> tuple[Fate, Seen]:
        """Run it once beside the bystander; one that lasts is seen in place for a window."""
        bystander.begin(shared=attack.shares_backend)
        self._say(attack.name)
        told = json.loads(self._hear())
        if told == IN_PLACE:
            bystander.await_calls(WINDOW_CALLS)
            self._say(ENOUGH)
            told = json.loads(self._hear())
        return Fate(**told), bystander.end()


def calm(bystander: Bystander, *, shared: bool) -> Seen:
    """How it is when nobody attacks, for one window."""
    bystander.begin(shared=shared)
    bystander.await_calls(WINDOW_CALLS)
    return bystander.end()


def measure(attack: Attack, rig: AbuseRig, attackers: Attackers, bystander: Bystander) -> Row:
    """Run one attack, in turns with calm."""
    quiet, seen = Seen(), Seen()
    fates: list[Fate] = []
    before = numbers(rig.target.admin_port)[attack.counter]
    with _watched(attack, rig) as peaks:
        for turn in range(TURNS_MAX):
            quiet += calm(bystander, shared=attack.shares_backend)
            wanted = seen.windows + 1
            while seen.windows < wanted:
                fate, more = attackers.run(attack, bystander)
                fates.append(fate)
                seen += more
            is_good = seen.p99_ms <= p99_limit_ms(quiet.p99_ms)
            if turn + 1 >= TURNS_MIN and is_good:
                break
    unsettled = _settle(rig)
    rise = numbers(rig.target.admin_port)[attack.counter] - before
    counted = max(rise, peaks.gauge - before)
    return Row(attack, tuple(fates), quiet, seen, peaks.growth_bytes, counted, unsettled)


def _settle(rig: AbuseRig) -> str | None:
    """Wait until nothing of the attack is left; otherwise what is."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        now = numbers(rig.target.admin_port)
        connections, calls = now["downstream_connections"], now["calls_open"]
        if connections <= CONNECTIONS_AT_REST and calls == 0:
            return None
        if time.monotonic() > deadline:
            return f"left behind: {connections} connections, {calls} calls"
        time.sleep(SAMPLE_S)


@dataclass(slots=True)
class _Peaks:
    growth_bytes: int = 0
    gauge: int = 0


@contextmanager
def _watched(attack: Attack, rig: AbuseRig) -> Iterator[_Peaks]:
    """How far the gateway's memory and the attack's number rise meanwhile."""
    process = psutil.Process(rig.gateway_pid)
    before = process.memory_info().rss
    peaks = _Peaks()
    over = threading.Event()

    def watch() -> None:
        asked_s = 0.0
        while not over.wait(SAMPLE_S):
            growth = process.memory_info().rss - before
            peaks.growth_bytes = max(peaks.growth_bytes, growth)
            if time.monotonic() - asked_s > GAUGE_SAMPLE_S:
                asked_s = time.monotonic()
                now = numbers(rig.target.admin_port)
                peaks.gauge = max(peaks.gauge, now[attack.counter])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()
