"""What an attack is, and what may become of an attacker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.abuse.counters import numbers

POLL_S = 0.02
IN_PLACE_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Target:
    """The gateway, as a client knows it."""

    port: int
    tls_port: int
    authority: Path
    backend_port: int
    admin_port: int


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of the attackers; ``fault`` says what should have been otherwise."""

    what: str
    fault: str | None = None


class Stage(Protocol):
    """Where an attack that lasts tells that it is in place, and hears when it was seen enough."""

    def in_place(self) -> None:
        """What is measured from here on is measured under the whole attack."""
        ...

    def over(self, wait_s: float) -> bool:
        """Whether it may end; waits for that at most so long."""
        ...


@dataclass(frozen=True, slots=True)
class Attack:
    """One shape. ``counter`` is the number in ``/stats`` that tells of it.

    A gauge tells by its highest value meanwhile, a counter by how far it rose.
    """

    name: str
    run: Callable[[Target, Stage], Fate]
    counter: str
    counted_min: int = 1
    shares_backend: bool = False
    """The other client's calls go to the attacked backend, on the same upstream connection; else
    to one of their own, so that what is measured is the gateway and not what it stands before."""


def all_ended(ended: int, of: int, *, what: str = "connections ended") -> Fate:
    """Good when the gateway ended every attacker's connection."""
    fault = None if ended == of else f"{of - ended} of {of} connections live on"
    return Fate(f"{ended} of {of} {what}", fault)


def held(what: str, *, fault: str | None = None) -> Fate:
    """The attackers may stay: they cost little."""
    return Fate(f"held: {what}", fault)


def await_number(target: Target, name: str, least: int) -> bool:
    """Whether the gateway's number comes to ``least`` in time."""
    deadline = time.monotonic() + IN_PLACE_TIMEOUT_S
    while time.monotonic() < deadline:
        if numbers(target.admin_port)[name] >= least:
            return True
        time.sleep(POLL_S)
    return False
