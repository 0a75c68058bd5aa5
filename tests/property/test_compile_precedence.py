"""Precedence (docs/semantics.md): a table's first match is the one that the order names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from federation.derive.compile.hostnames import covering, covers
from federation.model.objects import Gateway, GRPCRoute, GRPCRouteMatch, MatchType
from federation.model.snapshot import MatchKind, Route, RouteTable
from tests.testkit.routing import aged, certificate, compiled

HOSTNAMES = (
    "a.example.com",
    "b.example.com",
    "x.a.example.com",
    "*.example.com",
    "*.a.example.com",
)
REQUEST_HOSTS = ("a.example.com", "b.example.com", "x.a.example.com", "example.com", "other.org")
SERVICES = ("p.Users", "p.U", "q.Orders")
METHODS = ("Get", "GetAll")
HEADERS = ({"x-env": "test"}, {"x-env": "test", "x-tier": "gold"}, {})

GATEWAY = Gateway.model_validate(
    {
        "metadata": {"name": "gw", "namespace": "infra"},
        "spec": {
            "gatewayClassName": "federation",
            "listeners": [
                {
                    "name": "grpc",
                    "port": 443,
                    "protocol": "HTTPS",
                    "tls": {"certificateRefs": [{"name": "cert"}]},
                    "allowedRoutes": {"namespaces": {"from": "All"}},
                }
            ],
        },
    }
)


def _method() -> st.SearchStrategy[dict[str, Any]]:
    exact = st.fixed_dictionaries(
        {"service": st.sampled_from(SERVICES)}, optional={"method": st.sampled_from(METHODS)}
    )
    regex = st.fixed_dictionaries(
        {
            "type": st.just("RegularExpression"),
            "service": st.sampled_from(["p[.]U", "p[.].*", "[pq][.].+"]),
        }
    )
    return st.one_of(exact, regex, st.sampled_from(METHODS).map(lambda name: {"method": name}))


_match = st.fixed_dictionaries(
    {
        "headers": st.sampled_from(HEADERS).map(
            lambda entry: [{"name": name.upper(), "value": value} for name, value in entry.items()]
        )
    },
    optional={"method": _method()},
)


@st.composite
def _routes(draw: st.DrawFn) -> list[GRPCRoute]:
    return [
        GRPCRoute.model_validate(
            {
                "metadata": {"name": f"route-{number}", "namespace": "app"},
                "spec": {
                    "parentRefs": [{"name": "gw", "namespace": "infra"}],
                    "hostnames": draw(st.lists(st.sampled_from(HOSTNAMES), max_size=2)),
                    "rules": [
                        {"matches": draw(st.lists(_match, max_size=2))}
                        for _ in range(draw(st.integers(1, 3)))
                    ],
                },
            }
        )
        for number in draw(st.permutations(range(draw(st.integers(1, 5)))))
    ]


@dataclass(frozen=True)
class Call:
    host: str
    service: str
    method: str
    headers: dict[str, str]


_calls = st.builds(
    Call,
    host=st.sampled_from(REQUEST_HOSTS),
    service=st.sampled_from(SERVICES),
    method=st.sampled_from(METHODS),
    headers=st.sampled_from(HEADERS),
)


@settings(max_examples=300)
@given(_routes(), _calls)
def test_the_first_match_is_the_most_specific(routes: list[GRPCRoute], call: Call) -> None:
    result = compiled([GATEWAY, certificate("infra/cert"), *routes])
    (table,) = [entry for entry in result.snapshot.route_tables if entry.name == "infra/gw/443"]
    expected = best_by_the_specification(list(aged(routes)), call)
    found = look_up(table, call)
    event("matched" if expected else "nothing matched")
    assert (found.rule if found else None) == expected


def look_up(table: RouteTable, call: Call) -> Route | None:
    """As data planes do: one virtual host, the most specific; in it the first match."""
    hosts = {entry.hostname: entry for entry in table.virtual_hosts}
    wildcards = sorted((name for name in hosts if name.startswith("*.")), key=len, reverse=True)
    names = [call.host, *(name for name in wildcards if covers(name, call.host)), "*"]
    host = next(hosts[name] for name in names if name in hosts)
    return next((route for route in host.routes if takes(route, call)), None)


def takes(route: Route, call: Call) -> bool:
    path, wanted = f"/{call.service}/{call.method}", route.match.path
    matches = {
        MatchKind.EXACT: path == wanted.value,
        MatchKind.PREFIX: path.startswith(wanted.value),
        MatchKind.REGEX: bool(re.fullmatch(wanted.value, path)),
    }
    return matches[wanted.kind] and all(
        call.headers.get(header.name) == header.value for header in route.match.headers
    )


def takes_match(match: GRPCRouteMatch, call: Call) -> bool:
    """Whether the match, as written, takes the call."""

    def same(wanted: str | None, given: str) -> bool:
        if wanted is None or match.method is None:
            return True
        if match.method.type == MatchType.REGULAR_EXPRESSION:
            return re.fullmatch(wanted, given) is not None
        return wanted == given

    method = match.method
    return (
        method is None or (same(method.service, call.service) and same(method.method, call.method))
    ) and all(call.headers.get(entry.name.lower()) == entry.value for entry in match.headers)


def best_by_the_specification(routes: list[GRPCRoute], call: Call) -> str | None:
    """The rule with the largest numbers in the specification's list, written down once more."""
    ranked = []
    for age, route in enumerate(routes):
        hosts = [host for host in route.spec.hostnames if covers(host, call.host)]
        if route.spec.hostnames and not hosts:
            continue
        precise = max((len(host) for host in hosts if not host.startswith("*")), default=0)
        longest = max((len(host) for host in hosts), default=0)
        for position, rule in enumerate(route.spec.rules):
            for match in rule.matches or (GRPCRouteMatch(),):
                if takes_match(match, call):
                    rank = (precise, longest, *specificity(match), -age, -position)
                    ranked.append((rank, f"GRPCRoute app/{route.metadata.name} rule {position}"))
    return max(ranked)[1] if ranked else None


def specificity(match: GRPCRouteMatch) -> tuple[int, int, int, int]:
    """Characters of service and method, headers; at the same count exact before regex (ours)."""
    method = match.method
    if method is None:
        return (0, 0, len(match.headers), 0)
    regex = method.type == MatchType.REGULAR_EXPRESSION
    return (len(method.service or ""), len(method.method or ""), len(match.headers), -regex)


_hostnames = st.lists(st.sampled_from(["a", "b", "com", "*"]), min_size=1, max_size=4).map(".".join)


@given(_hostnames, _hostnames)
def test_the_patterns_that_cover_a_hostname_are_listed(pattern: str, hostname: str) -> None:
    for text in (pattern, hostname):
        assume("*" not in text[1:])
    assert (pattern in covering(hostname)) == covers(pattern, hostname)
