"""Lines of several logs as one story.

Decides: how a line is read (JSON of ours and of etcd, Kubernetes' own words, anything else), the
order of lines, and which are chosen.
Leaves to others: where lines come from (``logs``).
Invariants: pure; a line that cannot be read is kept with the time of the one before it.
"""

from __future__ import annotations

import datetime as dt
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LEVELS = ("debug", "info", "warning", "error")
_SAME = {"warn": "warning", "critical": "error", "fatal": "error", "panic": "error"}
_TIMES = ("time", "ts", "at")
_KNOWN = frozenset((*_TIMES, "level", "event", "msg", "message"))


@dataclass(frozen=True, slots=True)
class Source:
    """Whose log: ``component`` is agent, gateway, resolver, etcd, ...; ``cluster`` may be empty."""

    name: str
    component: str
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. ``at_s`` is Unix time by the writer's clock; ``fields`` are what it says besides
    time, level and event."""

    source: Source
    at_s: float
    level: str
    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which lines: at least ``level``, with each of ``fields`` as text, from ``since_s`` on."""

    level: str = "debug"
    fields: Mapping[str, str] = field(default_factory=dict)
    since_s: float = 0.0

    def takes(self, line: Line) -> bool:
        """Whether ``line`` is one of them."""
        return (
            LEVELS.index(line.level) >= LEVELS.index(self.level)
            and line.at_s >= self.since_s
            and all(_text(line.fields.get(key)) == value for key, value in self.fields.items())
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_lines(source: Source, raw: Iterable[str], *, after_s: float = 0.0) -> Iterator[Line]:
    """The lines of one log in its order; ``after_s`` is the time of one without a time."""
    for text in raw:
        if text.strip():
            line = _read(source, text.rstrip("\n"), after_s)
            after_s = max(after_s, line.at_s)
            yield line


def _read(source: Source, text: str, before_s: float) -> Line:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return Line(source, before_s, "info", text)
    level = str(found.get("level", "info")).lower()
    level = _SAME.get(level, level)
    event = next((str(found[key]) for key in ("event", "msg", "message") if key in found), text)
    return Line(
        source=source,
        at_s=next((at for key in _TIMES if (at := _time(found.get(key))) is not None), before_s),
        level=level if level in LEVELS else "info",
        event=event,
        fields={key: value for key, value in found.items() if key not in _KNOWN},
    )


def _time(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return None
    try:
        return dt.datetime.fromisoformat(value).timestamp()
    except ValueError:
        return None


def merged(logs: Sequence[Iterable[Line]], choice: Choice) -> Iterator[Line]:
    """The chosen lines of all logs by time; of one moment in the order of ``logs``."""
    return (line for line in heapq.merge(*logs, key=lambda line: line.at_s) if choice.takes(line))


def as_text(line: Line) -> str:
    """A line for people."""
    at = dt.datetime.fromtimestamp(line.at_s, dt.UTC).strftime("%H:%M:%S.%f")[:-3]
    said = " ".join(
        f"{key}={_text(value)}" for key, value in line.fields.items() if key != "logger"
    )
    return f"{at} {line.level:<7} {line.source.name}: {line.event}" + (f" {said}" if said else "")


def as_document(line: Line) -> dict[str, Any]:
    """A line for programs."""
    return {
        "time": dt.datetime.fromtimestamp(line.at_s, dt.UTC).isoformat(timespec="milliseconds"),
        "level": line.level,
        "component": line.source.component,
        "cluster": line.source.cluster,
        "source": line.source.name,
        "event": line.event,
        "fields": dict(line.fields),
    }
