"""Memory: idle connections, open streams, and a slow reader of a large stream."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.loads import allow_many_files, held, own, server, settled_memory
from tests.bench.proxies import ALL, Proxy, Start, started
from tests.bench.setting import Setting, make_tls

CONNECTIONS = 10_000
STREAM_CONNECTIONS, STREAMS_EACH = 200, 250
SLOW_BYTES = 1 << 30
SLOW_WINDOW = 1 << 20
PAUSE_MS, PAUSE_AFTER = 10, 4 << 20
LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a proxy took, in bytes; None where it did not hold what was asked of it."""

    idle_bytes: int
    each_connection: float | None
    each_stream: float | None
    slow_growth: int


def measure(
    *,
    connections: int = CONNECTIONS,
    stream_connections: int = STREAM_CONNECTIONS,
    slow_bytes: int = SLOW_BYTES,
) -> dict[str, Footprint]:
    """Each proxy by itself, newly started for each of the three."""
    allow_many_files()
    found = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(server(directory))
        setting = Setting(directory, port, make_tls(directory))
        for name, start in ALL.items():
            try:
                found[name] = _footprint(
                    start, setting, connections, stream_connections, slow_bytes
                )
            except FileNotFoundError:
                print(f"{name} is not installed and left out")
    return found


def _footprint(
    start: Start, setting: Setting, connections: int, stream_connections: int, slow_bytes: int
) -> Footprint:
    with started(start, setting) as proxy:
        idle = settled_memory(proxy)
        connection = _each(proxy, connections=connections, streams=0)
    with started(start, setting) as proxy:
        stream = _each(proxy, connections=stream_connections, streams=STREAMS_EACH)
    with started(start, setting) as proxy:
        before = settled_memory(proxy)
        with _highest(proxy) as seen:
            own(
                proxy,
                "bulk",
                total=slow_bytes,
                connections=1,
                streams=1,
                stream_window=SLOW_WINDOW,
                pause_ms=PAUSE_MS,
                pause_after=PAUSE_AFTER,
            )
    return Footprint(idle, connection, stream, max(seen) - before)


def _each(proxy: Proxy, *, connections: int, streams: int) -> float | None:
    before = settled_memory(proxy)
    with held(proxy, connections=connections, streams=streams) as ready:
        if not ready:
            return None
        return (settled_memory(proxy) - before) / (connections * max(1, streams))


@contextlib.contextmanager
def _highest(proxy: Proxy) -> Iterator[list[int]]:
    seen, over = [proxy.memory_bytes()], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            seen.append(proxy.memory_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def table(found: dict[str, Footprint]) -> str:
    """The figures as Markdown."""
    streams = STREAM_CONNECTIONS * STREAMS_EACH
    title = (
        f"Memory (resident), plain HTTP/2, one worker: {CONNECTIONS:,} idle connections; "
        f"{streams:,} open streams over {STREAM_CONNECTIONS} connections, answered by headers "
        "only, with their connections and the other side's streams; and growth while 1 GiB goes "
        "to a reader that stops every 4 MiB. In brackets the process as it starts."
    )
    lines = [
        title,
        "",
        "| proxy | an idle connection | an open stream | 1 GiB to a slow reader |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, one in found.items():
        cells = [_bytes(one.each_connection), _bytes(one.each_stream)]
        cells.append(f"+{one.slow_growth / (1 << 20):.1f} MiB")
        start = f"{one.idle_bytes / (1 << 20):.0f} MiB"
        lines.append(f"| {name} ({start}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bytes(value: float | None) -> str:
    return "not held" if value is None else f"{value / 1024:.1f} KiB"
