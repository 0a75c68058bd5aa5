"""Precedence of HTTPRoutes (docs/semantics.md): a table's first match is the one that is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from federation.model.objects import Gateway, HTTPRoute, HTTPRouteMatch, PathMatchType
from federation.model.snapshot import MatchKind, Route
from tests.testkit.routing import aged, compiled, routes_of

GATEWAY = Gateway.model_validate(
    {
        "metadata": {"name": "grpc-gateway", "namespace": "infra"},
        "spec": {
            "gatewayClassName": "federation",
            "listeners": [
                {
                    "name": "web",
                    "port": 443,
                    "protocol": "HTTP",
                    "allowedRoutes": {"namespaces": {"from": "All"}},
                }
            ],
        },
    }
)
_PATHS = st.one_of(
    st.builds(
        lambda kind, value: {"type": kind, "value": value},
        st.sampled_from(["Exact", "PathPrefix"]),
        st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c"]),
    ),
    st.builds(
        lambda value: {"type": "RegularExpression", "value": value},
        st.sampled_from(["/.*", "/a.*", "/a/[a-z]", "/[ab]+"]),
    ),
)
_MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "path": _PATHS,
        "method": st.sampled_from(["GET", "POST"]),
        "headers": st.lists(
            st.sampled_from([{"name": "X-A", "value": "1"}, {"name": "x-b", "value": "2"}]),
            max_size=2,
            unique_by=lambda entry: entry["name"],
        ),
        "queryParams": st.lists(
            st.sampled_from([{"name": "p", "value": "1"}, {"name": "q", "value": "2"}]),
            max_size=2,
            unique_by=lambda entry: entry["name"],
        ),
    },
)


def _route(name: int, rules: list[list[dict[str, Any]]]) -> HTTPRoute:
    return HTTPRoute.model_validate(
        {
            "metadata": {"name": f"r{name}", "namespace": "app"},
            "spec": {
                "parentRefs": [{"name": "grpc-gateway", "namespace": "infra"}],
                "rules": [{"matches": matches} for matches in rules],
            },
        }
    )


_ROUTES = st.lists(
    st.lists(st.lists(_MATCHES, max_size=3), min_size=1, max_size=3), min_size=1, max_size=3
).map(lambda many: [_route(name, rules) for name, rules in enumerate(many)])


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    method: str
    headers: dict[str, str]
    query: dict[str, str]


_REQUESTS = st.builds(
    Request,
    path=st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c/d", "/b"]),
    method=st.sampled_from(["GET", "POST", "PUT"]),
    headers=st.sampled_from([{}, {"x-a": "1"}, {"x-a": "1", "x-b": "2"}]),
    query=st.sampled_from([{}, {"p": "1"}, {"p": "1", "q": "2"}, {"p": "3"}]),
)


@settings(max_examples=300)
@given(_ROUTES, _REQUESTS)
def test_the_first_match_is_the_most_specific(routes: list[HTTPRoute], request: Request) -> None:
    result = compiled([GATEWAY, *routes])
    found = next((route for route in routes_of(result, "*") if takes(route, request)), None)
    expected = best_by_the_specification(list(aged(routes)), request)
    event("matched" if expected else "nothing matched")
    assert (found.rule if found else None) == expected


def takes(route: Route, request: Request) -> bool:
    """Whether the compiled route takes the request, as data planes see it."""
    wanted, path = route.match.path, request.path
    fits = {
        MatchKind.EXACT: path == wanted.value,
        MatchKind.PREFIX: path.startswith(wanted.value),
        MatchKind.SEGMENTS: f"{path}/".startswith(f"{wanted.value}/"),
        MatchKind.REGEX: re.fullmatch(wanted.value, path) is not None,
    }
    return (
        fits[wanted.kind]
        and route.match.method in ("", request.method)
        and all(request.headers.get(entry.name) == entry.value for entry in route.match.headers)
        and all(request.query.get(entry.name) == entry.value for entry in route.match.query)
    )


def takes_match(match: HTTPRouteMatch, request: Request) -> bool:
    """Whether the match, as written, takes the request."""
    segments = [part for part in match.path.value.split("/") if part]
    fits = {
        PathMatchType.EXACT: request.path == match.path.value,
        PathMatchType.PATH_PREFIX: [part for part in request.path.split("/") if part][
            : len(segments)
        ]
        == segments,
        PathMatchType.REGULAR_EXPRESSION: bool(re.fullmatch(match.path.value, request.path)),
    }
    return (
        fits[PathMatchType(match.path.type)]
        and match.method in (None, request.method)
        and all(request.headers.get(it.name.lower()) == it.value for it in match.headers)
        and all(request.query.get(it.name) == it.value for it in match.query_params)
    )


def best_by_the_specification(routes: list[HTTPRoute], request: Request) -> str | None:
    """The rule that comes first in the specification's list, written down once more."""
    ranked = []
    for age, route in enumerate(routes):
        for position, rule in enumerate(route.spec.rules):
            for match in rule.matches or (HTTPRouteMatch(),):
                if takes_match(match, request):
                    rank = (*specificity(match), -age, -position)
                    ranked.append((rank, f"HTTPRoute app/{route.metadata.name} rule {position}"))
    return max(ranked)[1] if ranked else None


def specificity(match: HTTPRouteMatch) -> tuple[int, ...]:
    """Exact, then regular expressions (ours), then prefixes by length; method, headers, query."""
    exact = match.path.type == PathMatchType.EXACT
    regex = match.path.type == PathMatchType.REGULAR_EXPRESSION
    prefix = not exact and not regex
    text = match.path.value.rstrip("/") or "/" if prefix else match.path.value
    return (
        2 * exact + regex,
        len(text),
        match.method is not None,
        len(match.headers),
        len(match.query_params),
    )
