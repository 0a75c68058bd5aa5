"""What a route of the snapshot does besides sending a call on: retry budget, faults, mirrors,
sessions.

Decides: the shape of these parts.
Leaves to others: how they follow from objects (``derive.compile``), their spelling (``wire.xds``).
Invariants: immutable; shares are whole numbers in a million; durations are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MILLION = 1_000_000
"""All calls, in the unit of shares."""


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Retries may be ``percent`` of the calls of the last ``interval_ms``, and in any case
    ``min_retries`` in each ``min_retries_interval_ms`` (GEP-3388). Routes whose budgets are equal,
    by ``name`` too, share one.
    """

    name: str = ""
    percent: int = 20
    interval_ms: int = 10_000
    min_retries: int = 10
    min_retries_interval_ms: int = 1_000


@dataclass(frozen=True, slots=True)
class FaultDelay:
    """``per_million`` of the calls wait ``ms`` before they go on."""

    ms: int
    per_million: int = MILLION


@dataclass(frozen=True, slots=True)
class FaultAbort:
    """``per_million`` of the calls are answered; exactly one of the statuses is given."""

    http_status: int | None = None
    grpc_status: int | None = None
    per_million: int = MILLION


@dataclass(frozen=True, slots=True)
class Fault:
    """Faults on purpose; drawn apart, the delay comes first."""

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of ``per_million`` of the calls goes to ``upstream``; nobody waits for its answer.

    ``destination`` is what a peer's gateway is told to reach, empty for a Service of this cluster.
    """

    upstream: str
    per_million: int = MILLION
    destination: str = ""


class SessionKind(StrEnum):
    """Where a client keeps its session."""

    COOKIE = "cookie"
    HEADER = "header"


@dataclass(frozen=True, slots=True)
class Session:
    """Calls with the same token go to the same endpoint while it can take them.

    ``None`` sets no bound; a ``permanent`` cookie outlives the client, up to ``absolute_ms``.
    """

    name: str
    kind: SessionKind = SessionKind.COOKIE
    absolute_ms: int | None = None
    idle_ms: int | None = None
    permanent: bool = False
