"""What only routes of HTTP do in a snapshot: matches of the query, redirects, rewrites, CORS.

Decides: the shape of these parts.
Leaves to others: how they follow from objects (``derive.compile``), their spelling (``wire.xds``).
Invariants: immutable; paths are absolute; an empty text or ``None`` leaves what the client sent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueryMatch:
    """Match of one parameter of the query; ``regex``: the value is RE2 for the whole text."""

    name: str
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """Another path; ``prefix``: in place of the prefix that the route matched, else of all."""

    value: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer that sends the client elsewhere.

    ``port`` ``None`` is the scheme's own, or while ``follows_listener`` that of the listener.
    """

    status: int
    scheme: str = ""
    hostname: str = ""
    port: int | None = None
    path: PathRewrite | None = None
    follows_listener: bool = False


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What the backend is asked for instead."""

    hostname: str = ""
    path: PathRewrite | None = None


@dataclass(frozen=True, slots=True)
class Cors:
    """Which foreign pages may call; ``*`` is all of a list, in ``origins`` also in front of a
    domain. Header names are in lower case.
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    credentials: bool = False
    max_age_s: int | None = None
