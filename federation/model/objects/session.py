"""Session persistence of route rules (GEP-1619): calls of one session go to one endpoint.

Decides: its fields, bounds and defaults.
Leaves to others: the session's default name (``derive.compile``), the token and what it is worth
when it comes back (the data plane).
Invariants: a cookie that outlives its client has an end; only cookies have a ``cookie_config``.
"""

from __future__ import annotations

import re
from enum import StrEnum

from pydantic import Field, field_validator, model_validator

from federation.model.duration import DurationMs
from federation.model.objects.metadata import Part

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
TIMEOUT_MS_MIN = 1_000
"""Tokens count in seconds."""

_RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "keep-alive",
        "proxy-connection",
        "set-cookie",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers with a meaning of their own."""
_RESERVED_PREFIXES = ("grpc-", "x-federation-")


class SessionPersistenceType(StrEnum):
    """Where a client keeps its session."""

    COOKIE = "Cookie"
    HEADER = "Header"


class CookieLifetime(StrEnum):
    """How long a client keeps the cookie: while it runs, or until ``absoluteTimeout``."""

    SESSION = "Session"
    PERMANENT = "Permanent"


class CookieConfig(Part):
    """Of a session that is kept in a cookie."""

    lifetime_type: CookieLifetime = CookieLifetime.SESSION


class SessionPersistence(Part):
    """Without a ``session_name`` the gateway chooses one for the rule."""

    session_name: str | None = Field(default=None, min_length=1, max_length=128)
    absolute_timeout_ms: DurationMs | None = Field(
        default=None, alias="absoluteTimeout", ge=TIMEOUT_MS_MIN
    )
    idle_timeout_ms: DurationMs | None = Field(default=None, alias="idleTimeout", ge=TIMEOUT_MS_MIN)
    type: SessionPersistenceType = SessionPersistenceType.COOKIE
    cookie_config: CookieConfig | None = None

    @field_validator("session_name")
    @classmethod
    def _is_a_token(cls, name: str | None) -> str | None:
        if name is not None and not _TOKEN.fullmatch(name):
            raise ValueError(f'must be usable as the name of a cookie or header, got "{name}"')
        return name

    @model_validator(mode="after")
    def _cookie_fits(self) -> SessionPersistence:
        name = (self.session_name or "").lower()
        is_header = self.type is SessionPersistenceType.HEADER
        if is_header and (name in _RESERVED or name.startswith(_RESERVED_PREFIXES)):
            raise ValueError(f"sessionName: the header {name} has a meaning of its own")
        if self.cookie_config is None:
            return self
        if self.type is not SessionPersistenceType.COOKIE:
            raise ValueError("cookieConfig is for type Cookie only")
        permanent = self.cookie_config.lifetime_type is CookieLifetime.PERMANENT
        if permanent and self.absolute_timeout_ms is None:
            raise ValueError("cookieConfig.lifetimeType Permanent needs an absoluteTimeout")
        return self
