"""What a suite found: a name, what it ran through, and each case with its fault, if any."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Transport(Enum):
    """How the client reaches the gateway."""

    PLAIN = "plain"
    TLS = "TLS"


@dataclass(frozen=True, slots=True)
class Case:
    """One case; ``fault`` is None when it passed."""

    name: str
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A suite's cases in the order they ran."""

    suite: str
    transport: Transport
    cases: tuple[Case, ...]

    @property
    def failed(self) -> tuple[Case, ...]:
        """The cases that did not pass."""
        return tuple(case for case in self.cases if case.fault is not None)

    @property
    def passed(self) -> int:
        """How many cases passed."""
        return len(self.cases) - len(self.failed)
