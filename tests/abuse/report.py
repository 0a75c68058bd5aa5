"""``docs/abuse.md``: each attack, what it did to the other client, and what became of it."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Iterator, Sequence

from tests.abuse.gateway import CONNECTIONS_MAX, HANDSHAKE_TIMEOUT_MS
from tests.abuse.measure import GROWTH_MAX_BYTES, Row
from tests.conformance.report import processor

HEAD = """# Under attack

Renewed by `make abuse`. Each line is an attack on a standalone gateway of one worker while a
well-behaved client, whose calls go to the same backend, measures its own: one unary call after the
other. "Memory" is the most by which the gateway's resident memory rose during the attack, "counted"
what `/stats` shows of it.
"""

COLUMNS = "| attack | calls | errors | p99 calm | p99 | memory | counted | what became of it |"
RULE = "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |"


def text(rows: Sequence[Row]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *_circumstances(), COLUMNS, RULE, *map(line, rows), "", *_faults(rows)])


def line(row: Row) -> str:
    """One row of the table."""
    counted = "" if row.attack.counter is None else f"`{row.attack.counter}` {row.counted}"
    cells = (
        row.attack.name,
        str(row.seen.calls),
        str(row.seen.errors),
        f"{row.calm.p99_ms:.1f} ms",
        f"{row.seen.p99_ms:.1f} ms",
        f"{row.growth_bytes / (1 << 20):.1f} MiB",
        counted,
        row.fate.what,
    )
    return f"| {' | '.join(cells)} |"


def _circumstances() -> Iterator[str]:
    yield f"- date: {dt.datetime.now(dt.UTC):%Y-%m-%d}"
    yield f"- machine: {processor()}, {os.cpu_count()} cores, {platform.system()}"
    yield "- command: `make abuse`"
    yield (
        f"- limits other than the defaults, to be reached in a moment: {CONNECTIONS_MAX} "
        f"connections, {HANDSHAKE_TIMEOUT_MS} ms to begin one"
    )
    yield (
        "- good: no error, the attackers ended or harmless, nothing left behind, "
        f"at most {GROWTH_MAX_BYTES >> 20} MiB"
    )
    yield ""


def _faults(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for fault in row.faults:
            yield f"- failed: {row.attack.name}: {fault}"
