"""What the Rust sources have in tables: fields and reasons of the access log, attributes of spans.

Decides: how their tables are found. A table that is not found as expected is an error, not an
empty list.
Leaves to others: what is written of them (``calls``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.testkit.federation import ROOT

ACCESS = ROOT / "gateway" / "core" / "src" / "access.rs"
REPLY = ROOT / "gateway" / "proxy" / "src" / "reply.rs"
TELEMETRY = ROOT / "gateway" / "proxy" / "src" / "telemetry"
SPANS = (
    *(TELEMETRY / name for name in ("spans.rs", "record.rs", "told.rs")),
    ROOT / "gateway" / "core" / "src" / "route.rs",
)
"""Where attributes of spans are written; those that many spans repeat are encoded beforehand."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the access log; ``default``: it stands in a line that names no fields."""

    word: str
    default: bool
    meaning: str


def fields() -> list[Field]:
    """The access log's fields, in the order of a line."""
    found = re.findall(
        r'\w+ "([A-Z_]+)" "[a-z_]+" (true|false) "((?:[^"\\]|\\.)*)",', _table(ACCESS, "fields")
    )
    return [Field(word, default == "true", meaning) for word, default, meaning in _some(found)]


def reasons() -> list[tuple[str, str]]:
    """Each reason with its flag."""
    return _some(re.findall(r'\w+ "([a-z_]+)" "([A-Z-]+)",', _table(REPLY, "reasons")))


def attributes() -> list[str]:
    """Attributes of the gateway's spans and of their events, in the order of the source."""
    found = re.findall(r'\.(?:text|number|flag)\(\s*"([a-z_.]+)"', _spans())
    return list(dict.fromkeys(_some(found)))


def events() -> list[str]:
    """Events of the gateway's spans."""
    return list(dict.fromkeys(_some(re.findall(r'\.event\(\s*"([a-z_.]+)"', _spans()))))


def _spans() -> str:
    return "".join(path.read_text() for path in SPANS)


def _table(path: Path, name: str) -> str:
    found = re.search(rf"^{name}! {{\n(.*?)^}}", path.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{path} has no table {name}!"
    lines = found[1].strip().splitlines()
    assert all(line.rstrip().endswith(",") for line in lines), f"{path}: {name}! has other lines"
    return found[1]


def _some(found: list[Any]) -> list[Any]:
    assert found
    return found
