"""CPU per unary call of the gateway beside its peers, interleaved in the same minute."""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.proxies import (
    AUTHORITY,
    GRPC_BODY,
    HOST,
    METHOD,
    PEERS,
    Proxy,
    backend,
    gateway,
    make_tls,
)

CALLS = 60_000
CONNECTIONS = 8
STREAMS = 16
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: CPU microseconds a call, and calls a second."""

    cpu_us: float
    calls_per_s: float


def load(proxy: Proxy, request: Path, *, calls: int, scheme: str = "http") -> Sample:
    """Send ``calls`` through ``proxy``. Raises ``RuntimeError`` unless every one succeeded."""
    command = ["h2load", f"--requests={calls}", f"--clients={CONNECTIONS}"]
    command += [f"--max-concurrent-streams={STREAMS}", f"--data={request}", "--threads=1"]
    command += ["--header=content-type: application/grpc", "--header=te: trailers"]
    command += [f"--header=:authority: {AUTHORITY}", f"{scheme}://{HOST}:{proxy.port}{METHOD}"]
    before_s = proxy.cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    used_s = proxy.cpu_s() - before_s
    succeeded = re.search(r"(\d+) succeeded, (\d+) failed", done.stdout)
    codes = re.search(r"status codes: (\d+) 2xx", done.stdout)
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", done.stdout)
    if not (succeeded and codes and rate) or int(codes[1]) != calls or int(succeeded[2]):
        raise RuntimeError(f"{proxy.name}: not every call succeeded:\n{done.stdout}")
    return Sample(cpu_us=used_s / calls * 1e6, calls_per_s=float(rate[1]))


def measure(
    *, tls: bool = False, calls: int = CALLS, rounds: int = ROUNDS
) -> dict[str, list[Sample]]:
    """All proxies in turn, ``rounds`` times after one warm-up each.

    With ``tls`` clients speak TLS to the proxies; behind them it is plain either way.
    """
    scheme = "https" if tls else "http"
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        request = directory / "request"
        request.write_bytes(GRPC_BODY)
        port = stack.enter_context(backend(directory))
        files = make_tls(directory) if tls else None
        proxies = [stack.enter_context(gateway(directory, port, files))]
        for name, start in PEERS.items():
            try:
                proxies.append(stack.enter_context(start(directory, port, files)))
            except FileNotFoundError:
                print(f"{name} is not installed and left out")
        samples: dict[str, list[Sample]] = {proxy.name: [] for proxy in proxies}
        for proxy in proxies:
            load(proxy, request, calls=calls // 10, scheme=scheme)
        for _ in range(rounds):
            for proxy in proxies:
                samples[proxy.name].append(load(proxy, request, calls=calls, scheme=scheme))
        return samples


def table(samples: dict[str, list[Sample]], *, tls: bool = False) -> str:
    """The medians as Markdown, with each one's ratio to the gateway."""
    spoken = "TLS from clients, plain behind" if tls else "h2c"
    lines = [
        f"Unary calls, {spoken}, {CONNECTIONS} connections × {STREAMS} streams, one worker each,",
        f"median of {len(samples['gateway'])} interleaved runs of {CALLS:,} calls:",
        "",
        "| proxy | CPU µs a call | min–max | of the gateway's | calls/s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    ours = statistics.median(sample.cpu_us for sample in samples["gateway"])
    for name, runs in samples.items():
        cpu = [run.cpu_us for run in runs]
        middle = statistics.median(cpu)
        rate = statistics.median(run.calls_per_s for run in runs)
        lines.append(
            f"| {name} | {middle:.2f} | {min(cpu):.2f}–{max(cpu):.2f} | {middle / ours:.2f} × "
            f"| {rate:,.0f} |"
        )
    return "\n".join(lines)
