"""Streams: messages to and fro, and large messages one way."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from tests.bench.cpu_per_call import Samples
from tests.bench.loads import CONNECTIONS, STREAMS, median, own, server
from tests.bench.proxies import all_proxies
from tests.bench.setting import Setting, make_tls

MESSAGES = 100_000
BULK_BYTES = 1 << 30
BULK_STREAMS = 1
ROUNDS = 3


def measure(
    *, messages: int = MESSAGES, size: int = BULK_BYTES, rounds: int = ROUNDS
) -> dict[str, Samples]:
    """Ping-pong and bulk, all proxies in turn."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(server(directory))
        proxies = stack.enter_context(all_proxies(Setting(directory, port, make_tls(directory))))
        kinds = ("pingpong", "bulk")
        found: dict[str, Samples] = {kind: {proxy.name: [] for proxy in proxies} for kind in kinds}
        for proxy in proxies:
            own(proxy, "pingpong", total=messages // 10)
        for _ in range(rounds):
            for proxy in proxies:
                found["pingpong"][proxy.name].append(own(proxy, "pingpong", total=messages))
            for proxy in proxies:
                run = own(proxy, "bulk", total=size, streams=BULK_STREAMS)
                found["bulk"][proxy.name].append(run)
        return found


def table(found: dict[str, Samples]) -> str:
    """Medians as Markdown."""
    title = (
        f"Streams, plain HTTP/2, one worker. Ping-pong: {CONNECTIONS} connections × {STREAMS} "
        "streams, messages of 100 bytes, each answered before the next. Bulk: "
        f"{CONNECTIONS * BULK_STREAMS} streams of messages of 64 KiB from the server, 1 GiB in "
        "all:"
    )
    lines = [
        title,
        "",
        "| proxy | messages/s to and fro | CPU µs each | MiB/s | CPU ms a GiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, runs in found["pingpong"].items():
        bulk = found["bulk"][name]
        cells = [f"{median(runs, 'per_s'):,.0f}", f"{median(runs, 'cpu_us'):.2f}"]
        cells += [f"{median(bulk, 'per_s') / (1 << 20):,.0f}"]
        cells += [f"{median(bulk, 'cpu_us') * (1 << 30) / 1e3:,.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
