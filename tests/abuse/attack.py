"""What an attack is, and what may become of an attacker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """The gateway, as a client knows it."""

    port: int
    tls_port: int
    authority: Path
    backend_port: int


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of the attackers; ``fault`` says what should have been otherwise."""

    what: str
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Attack:
    """One shape. ``counter`` is the number in ``/stats`` that tells of it."""

    name: str
    run: Callable[[Target], Fate]
    counter: str | None
    counted_min: int = 1


def all_ended(ended: int, of: int, *, what: str = "connections ended") -> Fate:
    """Good when the gateway ended every attacker's connection."""
    fault = None if ended == of else f"{of - ended} of {of} connections live on"
    return Fate(f"{ended} of {of} {what}", fault)


def held(what: str, *, fault: str | None = None) -> Fate:
    """The attackers may stay: they cost little."""
    return Fate(f"held: {what}", fault)
