"""``make bench``: the gateway beside its peers, then propagation through the lab.

``python -m tests.bench [--quick] [SECTION ...]``; without sections all of them run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench import (
    console_page,
    cpu_per_call,
    growth,
    kubernetes_scale,
    latency,
    memory,
    peak,
    propagation,
    streaming,
    telemetry_cost,
)
from tests.bench.machine import keep, machine_line
from tests.bench.proxies import missing_programs
from tests.bench.setting import Security

Section = Callable[["Size"], tuple[str, Any]]
"""Measures, and gives the tables and all figures."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done; a tenth of it shows that everything works, and no more."""

    quick: bool

    def of(self, whole: int) -> int:
        return whole // 10 if self.quick else whole

    def rounds(self, whole: int) -> int:
        return 1 if self.quick else whole


def main(arguments: list[str]) -> int:
    """Run all sections, or those named."""
    size = Size("--quick" in arguments)
    named = [argument for argument in arguments if argument != "--quick"]
    if unknown := set(named) - set(SECTIONS):
        print(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}")
        return 2
    machine = machine_line()
    print(f"{machine}, load before: {os.getloadavg()[0]:.1f}\n", flush=True)
    absent = missing_programs()
    for name in named or SECTIONS:
        if absent and name not in WITHOUT_PEERS:
            print(f"{name} is left out: not installed: {', '.join(absent)} (see README.md)\n")
            continue
        text, figures = SECTIONS[name](size)
        print(f"{text}\n\nkept in {keep(name, machine, {'samples': figures})}\n", flush=True)
    return 0


def _cpu_per_call(size: Size) -> tuple[str, Any]:
    calls, rounds = size.of(cpu_per_call.CALLS), size.rounds(cpu_per_call.ROUNDS)
    texts, kept = [], {}
    for security in Security:
        samples = cpu_per_call.measure(security, calls=calls, rounds=rounds)
        texts.append(cpu_per_call.table(samples, security, calls=calls))
        kept[security.name.lower()] = _plain(samples)
    return "\n\n".join(texts), kept


def _peak(size: Size) -> tuple[str, Any]:
    found = peak.measure(calls=size.of(peak.CALLS), rounds=size.rounds(peak.ROUNDS))
    return peak.table(found), {workers: _plain(samples) for workers, samples in found.items()}


def _latency(size: Size) -> tuple[str, Any]:
    seconds = latency.SECONDS / (10 if size.quick else 1)
    found = latency.measure(
        seconds=seconds, rounds=size.rounds(latency.ROUNDS), calls=size.of(latency.PEAK_CALLS)
    )
    kept = {
        name: {str(share): [asdict(run) for run in runs] for share, runs in by_share.items()}
        for name, by_share in found.items()
    }
    return latency.table(found), kept


def _streaming(size: Size) -> tuple[str, Any]:
    found = streaming.measure(
        messages=size.of(streaming.MESSAGES),
        size=size.of(streaming.BULK_BYTES),
        rounds=size.rounds(streaming.ROUNDS),
    )
    return streaming.table(found), {kind: _plain(samples) for kind, samples in found.items()}


def _memory(size: Size) -> tuple[str, Any]:
    found = memory.measure(
        connections=size.of(memory.CONNECTIONS),
        stream_connections=size.of(memory.STREAM_CONNECTIONS),
        slow_bytes=size.of(memory.SLOW_BYTES),
    )
    return memory.table(found), {name: asdict(one) for name, one in found.items()}


def _growth(size: Size) -> tuple[str, Any]:
    found = growth.measure(
        calls=size.of(growth.CALLS),
        rounds=size.rounds(growth.ROUNDS),
        changes=size.of(growth.CHANGES),
    )
    return growth.table(found), asdict(found)


def _telemetry_cost(size: Size) -> tuple[str, Any]:
    found = telemetry_cost.measure(
        calls=size.of(telemetry_cost.CALLS), rounds=size.rounds(telemetry_cost.ROUNDS)
    )
    return telemetry_cost.table(found), _plain(found)


def _propagation(size: Size) -> tuple[str, Any]:
    changes = propagation.measure(changes=size.of(propagation.CHANGES))
    return propagation.table(changes), [asdict(change) for change in changes]


def _kubernetes_scale(size: Size) -> tuple[str, Any]:
    found = kubernetes_scale.measure(changes=size.of(kubernetes_scale.CHANGES))
    return kubernetes_scale.table(found), asdict(found)


def _console_page(size: Size) -> tuple[str, Any]:
    rows = console_page.measure(
        loads=size.rounds(console_page.LOADS), changes=size.of(console_page.UPDATES)
    )
    return console_page.table(rows), [asdict(row) for row in rows]


def _plain(samples: cpu_per_call.Samples) -> dict[str, list[dict[str, float]]]:
    return {name: [asdict(run) for run in runs] for name, runs in samples.items()}


SECTIONS: dict[str, Section] = {
    "cpu_per_call": _cpu_per_call,
    "peak": _peak,
    "latency": _latency,
    "streaming": _streaming,
    "memory": _memory,
    "growth": _growth,
    "telemetry_cost": _telemetry_cost,
    "propagation": _propagation,
    "kubernetes_scale": _kubernetes_scale,
    "console_page": _console_page,
}

WITHOUT_PEERS = {"propagation", "kubernetes_scale", "console_page"}
"""Sections that need none of the other proxies."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
