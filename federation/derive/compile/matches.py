"""Matches of GRPCRoute rules: what requests they take and how specific they are.

Decides: paths and headers of a match, and its place in the order of precedence.
Leaves to others: hostnames and age (``tables``).
Invariants: a match that gateways would read differently is refused, never approximated; of several
header matches of one name the first counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from federation.derive.compile.regex import regex_fault
from federation.model.objects import GRPCHeaderMatch, GRPCMethodMatch, GRPCRouteMatch, MatchType
from federation.model.snapshot import HeaderMatch, MatchKind, PathMatch, RouteMatch

_SERVICE = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")

CONNECTION_HEADERS = frozenset(
    {
        "connection",
        "grpc-timeout",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of one connection, or of the protocol: no rule can match or change them."""

EVERY_CALL = PathMatch(kind=MatchKind.PREFIX, value="/")
"""The path of a match without method."""


Specificity = tuple[int, ...]
"""Order of precedence among matches of one kind of route: the smaller comes first.

For GRPCRoutes the Gateway API counts characters of service and method, then headers; it is silent
about types: at the same count exact comes before regular expression here.
"""


@dataclass(frozen=True, slots=True)
class CompiledMatch:
    """One match of a rule; ``position`` is its place there."""

    position: int
    match: RouteMatch
    specificity: Specificity


def compile_match(source: GRPCRouteMatch, *, position: int, where: str) -> CompiledMatch | str:
    """The match, or what is wrong with it; ``where`` is its field path."""
    fault = _method_fault(source.method) or headers_fault(source.headers)
    if fault:
        return f"{where}.{fault}"
    headers = _first_of_name(source.headers)
    method = source.method
    return CompiledMatch(
        position=position,
        match=RouteMatch(
            path=_path(source.method), headers=tuple(_header(entry) for entry in headers)
        ),
        specificity=(
            -len((method and method.service) or ""),
            -len((method and method.method) or ""),
            -len(headers),
            int(_is_regex(method)) + sum(map(_is_regex, headers)),
        ),
    )


def _is_regex(source: GRPCMethodMatch | GRPCHeaderMatch | None) -> bool:
    return source is not None and source.type == MatchType.REGULAR_EXPRESSION


def _method_fault(source: GRPCMethodMatch | None) -> str:
    if source is None:
        return ""
    if fault := type_fault(source.type, MatchType):
        return f"method.{fault}"
    for field, value, exact in (
        ("service", source.service, _SERVICE),
        ("method", source.method, _METHOD),
    ):
        if value is None:
            continue
        if _is_regex(source):
            if fault := regex_fault(value):
                return f"method.{field}: {value!r} {fault}"
        elif not exact.fullmatch(value):
            return f"method.{field}: {value!r} is not a name of a gRPC {field}"
    return ""


def type_fault(given: str, known: type[StrEnum]) -> str:
    """What is wrong with the type of a match; empty if it is known."""
    if given in set(known):
        return ""
    return f"type: {given} is not supported; supported: {', '.join(known)}"


def headers_fault(headers: tuple[GRPCHeaderMatch, ...]) -> str:
    """What is wrong with matches of headers, with its field; empty if nothing is."""
    for position, header in enumerate(headers):
        if fault := type_fault(header.type, MatchType):
            return f"headers[{position}].{fault}"
        if header.name.lower() in CONNECTION_HEADERS:
            return f"headers[{position}].name: {header.name!r} belongs to the connection"
        if not _HEADER_NAME.fullmatch(header.name):
            return f"headers[{position}].name: {header.name!r} is not a name of a header"
        if _is_regex(header) and (fault := regex_fault(header.value)):
            return f"headers[{position}].value: {header.value!r} {fault}"
    return ""


def header_matches(headers: tuple[GRPCHeaderMatch, ...]) -> tuple[HeaderMatch, ...]:
    """The matches of headers, one for each name."""
    return tuple(_header(entry) for entry in _first_of_name(headers))


def _first_of_name(headers: tuple[GRPCHeaderMatch, ...]) -> tuple[GRPCHeaderMatch, ...]:
    first: dict[str, GRPCHeaderMatch] = {}
    for header in headers:
        first.setdefault(header.name.lower(), header)
    return tuple(first[name] for name in sorted(first))


def _header(source: GRPCHeaderMatch) -> HeaderMatch:
    kind = MatchKind.REGEX if _is_regex(source) else MatchKind.EXACT
    return HeaderMatch(name=source.name.lower(), kind=kind, value=source.value)


def _path(source: GRPCMethodMatch | None) -> PathMatch:
    if source is None:
        return EVERY_CALL
    if _is_regex(source) or source.service is None:
        service = _pattern(source, source.service)
        method = _pattern(source, source.method)
        return PathMatch(kind=MatchKind.REGEX, value=f"/{service}/{method}")
    if source.method is None:
        return PathMatch(kind=MatchKind.PREFIX, value=f"/{source.service}/")
    return PathMatch(kind=MatchKind.EXACT, value=f"/{source.service}/{source.method}")


def _pattern(source: GRPCMethodMatch, value: str | None) -> str:
    if value is None:
        return "[^/]+"
    return f"(?:{value})" if _is_regex(source) else re.escape(value)
