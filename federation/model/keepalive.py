"""Keepalive of clients' connections, as a ConfigMap says it in ``keepalive.json``.

Decides: the document's fields (gRPC's server keepalive by their names there), bounds, defaults.
Leaves to others: which Gateway a ConfigMap is for (``derive.compile``), acting on it (the gateway).
Invariants: what is absent sets no bound; an unknown or out-of-range field is refused with its path.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from federation.model.duration import DurationMs, format_duration
from federation.model.objects.metadata import Part, Port

KEEPALIVE_KEY = "keepalive.json"
"""Key of a ConfigMap's data that holds the document."""

DURATION_MS_MIN = 100
DURATION_MS_MAX = 30 * 24 * 3_600_000
STRIKES_MAX = 100

ENFORCEMENT_MIN_TIME_MS = 300_000
"""gRPC's default: one PING in five minutes."""


def _within_bounds(duration_ms: int) -> int:
    if not DURATION_MS_MIN <= duration_ms <= DURATION_MS_MAX:
        raise ValueError(
            f"must be between {format_duration(DURATION_MS_MIN)} and "
            f"{format_duration(DURATION_MS_MAX)}, got {format_duration(duration_ms)}"
        )
    return duration_ms


BoundedMs = Annotated[DurationMs, AfterValidator(_within_bounds)]


class Enforcement(Part):
    """PINGs that clients may send (gRPC's keepalive enforcement policy).

    ``min_time_ms`` is the least time between two; ``permit_without_stream`` allows them while no
    call is open (else one in two hours is); ``strikes`` may come earlier before the connection ends
    with GOAWAY ``ENHANCE_YOUR_CALM``, ``too_many_pings``.
    """

    min_time_ms: BoundedMs = Field(default=ENFORCEMENT_MIN_TIME_MS, alias="minTime")
    permit_without_stream: bool = False
    strikes: int = Field(default=2, ge=0, le=STRIKES_MAX)


class Keepalive(Part):
    """How long clients' connections live; ``None`` is without bound.

    A connection without calls leaves after ``max_connection_idle_ms``; any at the age of
    ``max_connection_age_ms`` (a tenth more or less), and its calls end after the grace. A PING asks
    after ``time_ms`` of silence; without any answer the connection ends after ``timeout_ms``.
    """

    max_connection_idle_ms: BoundedMs | None = Field(default=None, alias="maxConnectionIdle")
    max_connection_age_ms: BoundedMs | None = Field(default=None, alias="maxConnectionAge")
    max_connection_age_grace_ms: BoundedMs | None = Field(
        default=None, alias="maxConnectionAgeGrace"
    )
    time_ms: BoundedMs | None = Field(default=None, alias="time")
    timeout_ms: BoundedMs | None = Field(default=None, alias="timeout")
    enforcement: Enforcement | None = None

    @model_validator(mode="after")
    def _complete(self) -> Keepalive:
        if self.max_connection_age_grace_ms is not None and self.max_connection_age_ms is None:
            raise ValueError("maxConnectionAgeGrace needs maxConnectionAge")
        if self.timeout_ms is not None and self.time_ms is None:
            raise ValueError("timeout needs time")
        return self


class PortKeepalive(Part):
    """Keepalive of one port, in place of the general one."""

    port: Port
    keepalive: Keepalive


class KeepaliveDocument(Part):
    """The document: ``keepalive`` for all listeners, ``per_port`` in its place for single ports."""

    keepalive: Keepalive = Keepalive()
    per_port: tuple[PortKeepalive, ...] = Field(default=(), max_length=64)

    @field_validator("per_port")
    @classmethod
    def _ports_unique(cls, entries: tuple[PortKeepalive, ...]) -> tuple[PortKeepalive, ...]:
        ports = [entry.port for entry in entries]
        for port in ports:
            if ports.count(port) > 1:
                raise ValueError(f"port {port} stands twice")
        return entries

    def of_port(self, port: int) -> Keepalive:
        """What holds for ``port``."""
        return next(
            (entry.keepalive for entry in self.per_port if entry.port == port), self.keepalive
        )


def parse_keepalive(text: str) -> KeepaliveDocument | str:
    """The document in ``text``, or what is wrong with it: the field, what stands there, why."""
    try:
        return KeepaliveDocument.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
        ).removeprefix(".")
        cause = first.get("ctx", {}).get("error")
        words = str(cause) if isinstance(cause, ValueError) else first["msg"]
        return f"{path}: {words}" if path else words
