"""Times as API objects spell them."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(unix_s: float) -> str:
    """A Unix time as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
