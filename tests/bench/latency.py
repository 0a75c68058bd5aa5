"""Latency that each proxy adds over direct calls, at two shares of its own peak rate."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.loads import latencies_us, median, unary
from tests.bench.propagation import percentile
from tests.bench.proxies import all_proxies, backend
from tests.bench.setting import Security, Setting, make_tls

SHARES = (0.2, 0.8)
SECONDS = 3.0
ROUNDS = 3
PEAK_CALLS = 60_000


@dataclass(frozen=True, slots=True)
class Added:
    """One run at one rate: what the proxy adds, in microseconds."""

    rate: float
    p50_us: float
    p99_us: float


Found = dict[str, dict[float, list[Added]]]


def measure(*, seconds: float = SECONDS, rounds: int = ROUNDS, calls: int = PEAK_CALLS) -> Found:
    """Peaks first, then each proxy and, right after it, the backend alone at the same rate."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tls = make_tls(directory)
        port = stack.enter_context(backend(directory))
        proxies = stack.enter_context(all_proxies(Setting(directory, port, tls)))
        peaks = {}
        for proxy in proxies:
            runs = [unary(proxy, Security.PLAIN, tls, calls=calls) for _ in range(3)]
            peaks[proxy.name] = median(runs, "per_s")
        found: Found = {proxy.name: {share: [] for share in SHARES} for proxy in proxies}
        for _ in range(rounds):
            for share in SHARES:
                for proxy in proxies:
                    rate = share * peaks[proxy.name]
                    through = latencies_us(proxy.port, rate=rate, seconds=seconds)
                    direct = latencies_us(port, rate=rate, seconds=seconds)
                    p50, p99 = (
                        percentile(through, part) - percentile(direct, part) for part in (0.5, 0.99)
                    )
                    found[proxy.name][share].append(Added(rate, p50, p99))
        return found


def table(found: Found) -> str:
    """Medians as Markdown."""
    lines = [
        "Latency added over direct calls, plain HTTP/2, one worker, at shares of each one's peak:",
        "",
        "| proxy | 20 %: calls/s | p50 µs | p99 µs | 80 %: calls/s | p50 µs | p99 µs |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, by_share in found.items():
        cells = []
        for share in SHARES:
            runs = by_share[share]
            cells.append(f"{runs[0].rate:,.0f}")
            cells.append(f"{statistics.median(run.p50_us for run in runs):,.0f}")
            cells.append(f"{statistics.median(run.p99_us for run in runs):,.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
