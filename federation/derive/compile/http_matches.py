"""Matches of HTTPRoute rules: what requests they take and how specific they are.

Decides: paths, parameters, headers and methods of a match, and its place in the order of
precedence.
Leaves to others: hostnames and age (``tables``), headers as GRPCRoutes have them (``matches``).
Invariants: a match that gateways would read differently is refused, never approximated; of several
matches of one header or parameter the first counts.
"""

from __future__ import annotations

from federation.derive.compile.matches import (
    CompiledMatch,
    header_matches,
    headers_fault,
    type_fault,
)
from federation.derive.compile.regex import regex_fault
from federation.model.http import QueryMatch
from federation.model.objects import (
    HTTPPathMatch,
    HTTPQueryParamMatch,
    HTTPRouteMatch,
    MatchType,
    PathMatchType,
)
from federation.model.snapshot import MatchKind, PathMatch, RouteMatch

_RANKS = {
    PathMatchType.EXACT: 0,
    PathMatchType.REGULAR_EXPRESSION: 1,
    PathMatchType.PATH_PREFIX: 2,
}
"""The Gateway API leaves the place of regular expressions open: here before every prefix."""


def compile_http_match(source: HTTPRouteMatch, *, position: int, where: str) -> CompiledMatch | str:
    """The match, or what is wrong with it; ``where`` is its field path."""
    fault = (
        _path_fault(source.path)
        or headers_fault(source.headers)
        or _query_fault(source.query_params)
    )
    if fault:
        return f"{where}.{fault}"
    path = _path(source.path)
    headers = header_matches(source.headers)
    query = _query(source.query_params)
    return CompiledMatch(
        position=position,
        match=RouteMatch(
            path=path, headers=headers, grpc=False, query=query, method=source.method or ""
        ),
        specificity=(
            _RANKS[PathMatchType(source.path.type)],
            -len(path.value),
            0 if source.method else 1,
            -len(headers),
            -len(query),
        ),
    )


def _path_fault(path: HTTPPathMatch) -> str:
    if fault := type_fault(path.type, PathMatchType):
        return f"path.{fault}"
    if path.type == PathMatchType.REGULAR_EXPRESSION and (fault := regex_fault(path.value)):
        return f"path.value: {path.value!r} {fault}"
    return ""


def _path(path: HTTPPathMatch) -> PathMatch:
    match PathMatchType(path.type):
        case PathMatchType.EXACT:
            return PathMatch(MatchKind.EXACT, path.value)
        case PathMatchType.REGULAR_EXPRESSION:
            return PathMatch(MatchKind.REGEX, path.value)
        case PathMatchType.PATH_PREFIX:
            segments = path.value.rstrip("/")
            if segments:
                return PathMatch(MatchKind.SEGMENTS, segments)
            return PathMatch(MatchKind.PREFIX, "/")


def _query_fault(params: tuple[HTTPQueryParamMatch, ...]) -> str:
    for position, param in enumerate(params):
        if fault := type_fault(param.type, MatchType):
            return f"queryParams[{position}].{fault}"
        if param.type == MatchType.REGULAR_EXPRESSION and (fault := regex_fault(param.value)):
            return f"queryParams[{position}].value: {param.value!r} {fault}"
    return ""


def _query(params: tuple[HTTPQueryParamMatch, ...]) -> tuple[QueryMatch, ...]:
    first: dict[str, HTTPQueryParamMatch] = {}
    for param in params:
        first.setdefault(param.name, param)
    return tuple(
        QueryMatch(name, first[name].value, regex=first[name].type == MatchType.REGULAR_EXPRESSION)
        for name in sorted(first)
    )
