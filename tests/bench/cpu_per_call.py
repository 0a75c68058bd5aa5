"""CPU per unary call of the gateway beside its peers, interleaved in the same minute."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from tests.bench.loads import CONNECTIONS, STREAMS, Sample, median, unary
from tests.bench.proxies import Proxy, all_proxies, backend
from tests.bench.setting import Security, Setting, TlsFiles, make_tls

CALLS = 60_000
ROUNDS = 5
WARM_UPS = 3

Samples = dict[str, list[Sample]]


def measure(
    security: Security, *, workers: int = 1, calls: int = CALLS, rounds: int = ROUNDS
) -> Samples:
    """All proxies in turn, ``rounds`` times after one warm-up each."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tls = make_tls(directory)
        mutual = security is Security.MUTUAL
        port = stack.enter_context(backend(directory, tls if mutual else None))
        setting = Setting(directory, port, tls, security, workers)
        proxies = stack.enter_context(all_proxies(setting))
        samples: Samples = {proxy.name: [] for proxy in proxies}
        for proxy in proxies:
            _warm_up(proxy, security, tls, calls=calls // 10)
        for _ in range(rounds):
            for proxy in proxies:
                samples[proxy.name].append(unary(proxy, security, tls, calls=calls))
        return samples


def _warm_up(proxy: Proxy, security: Security, tls: TlsFiles, *, calls: int) -> None:
    """Some calls; on a busy machine a proxy's first ones may find the backend not yet connected."""
    for left in reversed(range(WARM_UPS)):
        try:
            unary(proxy, security, tls, calls=calls)
        except RuntimeError as failure:
            print(f"warming up {proxy.name}: {failure}")
            if not left:
                raise
        else:
            return


def table(samples: Samples, security: Security, *, calls: int = CALLS) -> str:
    """The medians as Markdown, with each one's ratio to the gateway."""
    title = (
        f"Unary calls, {security.value}, {CONNECTIONS} connections × {STREAMS} streams, one worker "
        f"each, median of {len(samples['gateway'])} interleaved runs of {calls:,} calls:"
    )
    lines = [
        title,
        "",
        "| proxy | CPU µs a call | min–max | of the gateway's | calls/s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    ours = median(samples["gateway"], "cpu_us")
    for name, runs in samples.items():
        cpu = [run.cpu_us for run in runs]
        middle = median(runs, "cpu_us")
        lines.append(
            f"| {name} | {middle:.2f} | {min(cpu):.2f}–{max(cpu):.2f} | {middle / ours:.2f} × "
            f"| {median(runs, 'per_s'):,.0f} |"
        )
    return "\n".join(lines)
