"""Durations as people write them in objects: GEP-2257 (`1h30m`) and Go style (`1.5s`, `1800s`).

Decides: which spellings are durations and what they are in milliseconds, the unit of the model.
Leaves to others: bounds of single fields (``model.objects``), timers (the data plane).
Invariants: a parsed duration is a whole, non-negative number of milliseconds; formatting it and
parsing again gives the same number; what is finer than a millisecond is refused, never rounded.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

DURATION_FORMAT = "federation-duration"
"""The ``format`` of durations in a model's JSON schema."""

DURATION_MS_MAX = 99_999 * 3_600_000
"""GEP-2257 allows five digits before each unit; `99999h` is its largest value."""

DURATION_PATTERN = r"([0-9]{1,15}(\.[0-9]{1,9})?(ms|us|µs|ns|h|m|s)){1,8}"
"""What durations look like, for those who read no Python."""

_MS_PER_UNIT = {
    "h": Fraction(3_600_000),
    "m": Fraction(60_000),
    "s": Fraction(1_000),
    "ms": Fraction(1),
    "us": Fraction(1, 1_000),
    "µs": Fraction(1, 1_000),
    "ns": Fraction(1, 1_000_000),
}
_PART = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(ms|us|µs|ns|h|m|s)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern}){{1,8}}", re.ASCII)


def parse_duration(text: str) -> int:
    """The milliseconds that ``text`` means. Raises ``ValueError`` with what to write instead."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f'not a duration; write it like 100ms, 30s or 1h30m, got "{text}"')
    total = sum(
        (Fraction(number) * _MS_PER_UNIT[unit] for number, unit in _PART.findall(text)), Fraction()
    )
    if total.denominator != 1:
        raise ValueError(f'"{text}" is finer than a millisecond')
    if total > DURATION_MS_MAX:
        raise ValueError(f'"{text}" is longer than 99999h')
    return int(total)


def format_duration(duration_ms: int) -> str:
    """``duration_ms`` in GEP-2257 form, largest unit first, without empty units; `0s` for zero."""
    if duration_ms < 0:
        raise ValueError(f"a duration is not negative, got {duration_ms} ms")
    parts: list[str] = []
    rest = duration_ms
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _to_ms(value: object, info: ValidationInfo) -> int:
    # Our own code builds objects from milliseconds; what comes from outside has a unit.
    if info.mode == "python" and type(value) is int and value >= 0:
        return value
    if not isinstance(value, str):
        # ValueError, since pydantic reports no other.
        raise ValueError(f"needs a unit, like 100ms, 30s or 1h30m, got {value}")  # noqa: TRY004
    return parse_duration(value)


DurationMs = Annotated[
    int,
    BeforeValidator(_to_ms),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "format": DURATION_FORMAT}, mode="validation"),
]
"""A field that is text outside and milliseconds inside."""
