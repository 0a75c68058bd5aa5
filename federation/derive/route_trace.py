"""Which route takes a request, and why not the others: the gateway's own choice, told in words.

Decides: the same as the gateway's core (``gateway/core/src/route``): the virtual host of a name
(exact, then the longest wildcard, then ``*``), the first of its routes that matches, and for every
route before that the first condition that did not hold.
Leaves to others: the order of routes (``derive.compile``), which endpoint of a destination (that
depends on load), choosing for real (the core; a test holds this file against it).
Invariants: pure; what is said of a route is about the request as the gateway sees it: a path
without its query, header names in lower case, each value of a repeated header by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from federation.model.http import QueryMatch
from federation.model.snapshot import (
    HeaderMatch,
    Listener,
    ListenerKind,
    MatchKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    Snapshot,
    VirtualHost,
)

HOST_BYTES_MAX = 254
"""Longest host name with its final dot (RFC 1035); a longer one has no host of its own."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for. ``path`` has its query, ``headers`` have names in lower case.

    ``grpc``: its content type is gRPC's. ``method`` is HTTP's.
    """

    host: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    grpc: bool = True
    method: str = "POST"

    @property
    def plain_path(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def query(self) -> str:
        """What stands behind the ``?``."""
        return self.path.partition("?")[2]

    def values(self, name: str) -> tuple[str, ...]:
        """All values of a header."""
        return tuple(value for known, value in self.headers if known == name)


@dataclass(frozen=True, slots=True)
class Considered:
    """A route that was looked at; ``why_not`` is empty for the one that takes the request."""

    route: Route
    why_not: str


@dataclass(frozen=True, slots=True)
class Traced:
    """What becomes of a request at one listener.

    ``host`` ``None``: no virtual host has the name. ``considered`` ends with the route taken, if
    one is. ``grpc_only``: a route would take it if it were a call of gRPC.
    """

    listener: Listener
    host: VirtualHost | None
    why_host: str
    considered: tuple[Considered, ...]
    grpc_only: bool = False

    @property
    def route(self) -> Route | None:
        """The route that takes the request."""
        last = self.considered[-1] if self.considered else None
        return last.route if last is not None and not last.why_not else None


def ingress(snapshot: Snapshot) -> tuple[Listener, ...]:
    """The listeners that route calls of clients."""
    return tuple(
        entry
        for entry in snapshot.listeners
        if entry.kind is ListenerKind.INGRESS and not entry.plain
    )


def table_of(snapshot: Snapshot, listener: Listener) -> RouteTable | None:
    """The routes of ``listener``."""
    return next((it for it in snapshot.route_tables if it.name == listener.route_table), None)


def trace(table: RouteTable, listener: Listener, request: Request) -> Traced:
    """What ``listener`` with ``table`` does with ``request``."""
    host, why = find_host(table, request.host)
    if host is None:
        return Traced(listener, None, why, ())
    considered, grpc_only = [], False
    for route in host.routes:
        why_not = why_not_taken(route.match, request)
        grpc_only |= not why_not and route.match.grpc and not request.grpc
        if not why_not and route.match.grpc and not request.grpc:
            why_not = "it takes calls of gRPC only (content-type application/grpc)"
        considered.append(Considered(route, why_not))
        if not why_not:
            break
    taken = bool(considered) and not considered[-1].why_not
    return Traced(listener, host, why, tuple(considered), grpc_only and not taken)


def find_host(table: RouteTable, authority: str) -> tuple[VirtualHost | None, str]:
    """The virtual host of ``authority`` and why it is that one."""
    by_name = {host.hostname: host for host in table.virtual_hosts}
    name = plain_host(authority)
    if name is not None:
        if name in by_name:
            return by_name[name], "it is exactly this name"
        for suffix in _suffixes(name):
            if (found := by_name.get(f"*.{suffix}")) is not None:
                return found, f"*.{suffix} is the longest wildcard that fits"
    if (found := by_name.get("*")) is not None:
        return found, "no other name fits; * takes all"
    known = ", ".join(sorted(by_name)) or "none"
    return None, f"no name of this listener's routes fits; there are: {known}"


def plain_host(authority: str) -> str | None:
    """The host of an authority: lower case, without port and final dot; ``None``: too long."""
    if authority.startswith("["):
        host = authority[1:].partition("]")[0]
    else:
        host = authority.partition(":")[0]
    host = host.removesuffix(".")
    if len(host.encode("utf-8", "surrogateescape")) > HOST_BYTES_MAX:
        return None
    return "".join(char.lower() if char.isascii() else char for char in host)


def _suffixes(name: str) -> Iterator[str]:
    """What follows each dot, the longest first; an empty label in front is no label."""
    return (name[at + 1 :] for at, char in enumerate(name) if char == "." and at > 0)


def why_not_taken(match: RouteMatch, request: Request) -> str:
    """The first condition of ``match`` that does not hold; empty: all do."""
    if not path_matches(match.path, request.plain_path):
        return f"the path is not {path_words(match.path)}"
    if match.method and request.method != match.method:
        return f"the method is {request.method}, it takes {match.method}"
    for header in match.headers:
        values = request.values(header.name)
        if not any(_value_matches(header.kind, header.value, value) for value in values):
            return _why_not_header(header, values)
    for parameter in match.query:
        if not query_matches(parameter, request.query):
            return f"the query has no {parameter.name} that is {_query_words(parameter)}"
    return ""


def path_matches(match: PathMatch, path: str) -> bool:
    """Whether ``path`` (without query) fits."""
    match match.kind:
        case MatchKind.EXACT:
            return path == match.value
        case MatchKind.PREFIX:
            return path.startswith(match.value)
        case MatchKind.SEGMENTS:
            return path == match.value or path.startswith(f"{match.value}/")
        case MatchKind.REGEX:
            return _fits_whole(match.value, path)


def query_matches(match: QueryMatch, query: str) -> bool:
    """Whether the first parameter of that name fits; values are compared as they stand."""
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name == match.name:
            return _fits_whole(match.value, value) if match.regex else value == match.value
    return False


def _value_matches(kind: MatchKind, wanted: str, value: str) -> bool:
    return path_matches(PathMatch(kind, wanted), value)


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression)


def _fits_whole(expression: str, text: str) -> bool:
    """``derive.compile.regex`` takes only what RE2, the core and Python read alike."""
    return _compiled(expression).fullmatch(text) is not None


def path_words(match: PathMatch) -> str:
    """The condition on a path for people."""
    match match.kind:
        case MatchKind.EXACT:
            return match.value
        case MatchKind.PREFIX:
            return f"{match.value}* (a prefix)"
        case MatchKind.SEGMENTS:
            return f"{match.value} or below it"
        case MatchKind.REGEX:
            return f"of the form {match.value}"


def match_words(match: RouteMatch) -> str:
    """All conditions for people."""
    parts = [f"path {path_words(match.path)}"]
    if match.method:
        parts.append(f"method {match.method}")
    parts += [f"header {entry.name} {_header_words(entry)}" for entry in match.headers]
    parts += [f"query {entry.name} {_query_words(entry)}" for entry in match.query]
    if not match.grpc:
        parts.append("any content type")
    return ", ".join(parts)


def _header_words(match: HeaderMatch) -> str:
    return f'of the form "{match.value}"' if match.kind is MatchKind.REGEX else f'"{match.value}"'


def _query_words(match: QueryMatch) -> str:
    return f'of the form "{match.value}"' if match.regex else f'"{match.value}"'


def _why_not_header(match: HeaderMatch, values: Sequence[str]) -> str:
    wanted = _header_words(match)
    if not values:
        return f"there is no header {match.name}, it wants {wanted}"
    got = ", ".join(f'"{value}"' for value in values)
    return f"header {match.name} is {got}, it wants {wanted}"
