"""``docs/abuse.md``: each attack, what it did to the other client, and what became of it."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Iterator, Sequence

from tests.abuse.gateway import BUFFERS_MAX_BYTES, CONNECTIONS_MAX, HANDSHAKE_TIMEOUT_MS
from tests.abuse.measure import GROWTH_MAX_BYTES, Row
from tests.conformance.report import processor

HEAD = """# Under attack

Renewed by `make abuse`. Each line is an attack on a standalone gateway of one worker while a
well-behaved client measures its own calls: one unary call after the other. They go to a backend of
their own, so that the gateway is measured and not how fast a backend written in Python is; in the
line that says so they share the attacked backend, and with it the upstream connection. "Memory" is
the most by which the gateway's resident memory rose during the attack, "counted" what `/stats`
shows of it (of a gauge its highest value).

Method: calm and attack take turns, three times at least. Calls are cut into windows of 200; "p99"
is the median over the windows' 99th percentiles. Attackers and the attacked backend run at a lower
priority, since four processes share the cores. A comparison that fails is made again with up to
eight turns. Below 5 ms a p99 tells of the kernel's time slices, so calm counts as at least that.

How much memory is held at most stands in [memory.md](memory.md).
"""

COLUMNS = "| attack | calls | errors | p99 calm | p99 | memory | counted | what became of it |"
RULE = "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |"


def text(rows: Sequence[Row]) -> str:
    """The whole page."""
    table = [COLUMNS, RULE, *map(line, rows), *_faults(rows)]
    return "\n".join([HEAD, *_circumstances(), *table, ""])


def line(row: Row) -> str:
    """One row of the table."""
    counted = f"`{row.attack.counter}` {row.counted}"
    cells = (
        row.attack.name,
        str(len(row.seen.taken_ms)),
        str(row.seen.errors),
        f"{row.calm.p99_ms:.1f} ms",
        f"{row.seen.p99_ms:.1f} ms",
        f"{row.growth_bytes / (1 << 20):.1f} MiB",
        counted,
        row.fates[-1].what,
    )
    return f"| {' | '.join(cells)} |"


def _circumstances() -> Iterator[str]:
    yield f"- date: {dt.datetime.now(dt.UTC):%Y-%m-%d}"
    yield f"- machine: {processor()}, {os.cpu_count()} cores, {platform.system()}"
    yield "- command: `make abuse`"
    yield (
        f"- limits other than the defaults, to be reached in a moment: {CONNECTIONS_MAX} "
        f"connections, {HANDSHAKE_TIMEOUT_MS} ms to begin one, {BUFFERS_MAX_BYTES >> 20} MiB held"
    )
    yield (
        "- good: no error, p99 at most 3 times calm, the attackers ended or harmless, "
        f"nothing left behind, at most {GROWTH_MAX_BYTES >> 20} MiB"
    )
    yield ""


def _faults(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for fault in row.faults:
            yield f"- failed: {row.attack.name}: {fault}"
