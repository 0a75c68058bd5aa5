"""Peak calls a second, with one worker and with two; and how busy the workers were at it."""

from __future__ import annotations

from tests.bench.cpu_per_call import CALLS, Samples
from tests.bench.cpu_per_call import measure as measure_calls
from tests.bench.loads import median
from tests.bench.setting import Security

ROUNDS = 3
WORKERS = (1, 2)
FULL = 0.9
"""A proxy that is less busy than this part of its workers is waiting for the load generator."""


def measure(*, calls: int = CALLS, rounds: int = ROUNDS) -> dict[int, Samples]:
    """Samples by number of workers, over plain HTTP/2."""
    return {
        workers: measure_calls(Security.PLAIN, workers=workers, calls=calls, rounds=rounds)
        for workers in WORKERS
    }


def table(found: dict[int, Samples]) -> str:
    """Medians as Markdown."""
    title = (
        "Peak of unary calls a second, plain HTTP/2. `busy` is the CPU time that the proxy used, "
        "in cores: where it stays below its workers, it waits for `h2load` and `nghttpd`, which "
        "share the machine's cores with it, and the figure is theirs."
    )
    lines = [
        title,
        "",
        "| proxy | 1 worker, calls/s | busy | 2 workers, calls/s | busy | two to one |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    one, two = found[1], found[2]
    for name in one:
        first, second = median(one[name], "per_s"), median(two[name], "per_s")
        cells = [f"{first:,.0f}", _busy(median(one[name], "busy"), 1)]
        cells += [f"{second:,.0f}", _busy(median(two[name], "busy"), 2), f"{second / first:.2f} ×"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _busy(cores: float, workers: int) -> str:
    return f"{cores:.2f}" + ("" if cores >= FULL * workers else " (waits)")
