"""What only routes of HTTP have: spelled for Envoy, and read back into the core's document."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.route.v3 import route_components_pb2, route_pb2

from federation.model.http import Cors, PathRewrite, QueryMatch, Redirect, Rewrite
from federation.model.snapshot import (
    Forward,
    MatchKind,
    PathMatch,
    Refuse,
    Route,
    RouteMatch,
    RouteTable,
    Timeouts,
    Upstream,
    VirtualHost,
    Weighted,
)
from federation.wire.xds_clusters import upstream_cluster
from federation.wire.xds_routes import route_configuration
from gateway.xds_translate import UnsupportedFieldError
from gateway.xds_translate.clusters import translate_cluster
from gateway.xds_translate.routes import translate_routes

FORWARD = Forward((Weighted("a", 1),))
FOO = PathMatch(MatchKind.SEGMENTS, "/foo")
ROOT = PathMatch(MatchKind.PREFIX, "/")


def message(path: PathMatch = FOO, **fields: Any) -> route_pb2.RouteConfiguration:
    match = RouteMatch(path, grpc=False, **fields.pop("match", {}))
    route = Route("r", "r", match, fields.pop("action", FORWARD), **fields)
    return route_configuration(RouteTable("t", (VirtualHost("*", (route,)),)))


def body(path: PathMatch = FOO, **fields: Any) -> dict[str, Any]:
    """The core's route."""
    piece = translate_routes(message(path, **fields))
    (route,) = piece.body["virtual_hosts"][0]["routes"]
    assert isinstance(route, dict)
    return route


def test_matches() -> None:
    queries = (QueryMatch("page", "2"), QueryMatch("sort", "a|b", regex=True))
    assert body(match={"method": "PUT", "query": queries})["match"] == {
        "path": {"segments": "/foo"},
        "headers": [],
        "grpc": False,
        "method": "PUT",
        "query": [{"name": "page", "exact": "2"}, {"name": "sort", "regex": "a|b"}],
    }


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        (Redirect(302), {"status": 302}),
        (
            Redirect(301, "https", "b.org", 8443),
            {"status": 301, "scheme": "https", "host": "b.org", "port": 8443},
        ),
        (Redirect(303, path=PathRewrite("/x")), {"status": 303, "path": {"full": "/x"}}),
        (Redirect(307, path=PathRewrite("/x", True)), {"status": 307, "path": {"prefix": "/x"}}),
        (
            Redirect(308, path=PathRewrite("/", True)),
            {"status": 308, "path": {"regex": {"pattern": "^/foo/*", "substitution": "/"}}},
        ),
    ],
)
def test_redirects(redirect: Redirect, expected: dict[str, Any]) -> None:
    nothing = {"scheme": None, "host": None, "port": None, "path": None}
    assert body(action=redirect)["action"] == {"redirect": nothing | expected}


@pytest.mark.parametrize(
    ("path", "rewrite", "expected"),
    [
        (FOO, Rewrite("b.org"), {"host": "b.org", "path": None}),
        (FOO, Rewrite(path=PathRewrite("/x/", True)), {"host": None, "path": {"prefix": "/x"}}),
        (ROOT, Rewrite(path=PathRewrite("/x", True)), {"host": None, "path": {"prefix": "/x/"}}),
        (
            FOO,
            Rewrite(path=PathRewrite(r"/a\1")),
            {"host": None, "path": {"regex": {"pattern": "^/.*$", "substitution": r"/a\\1"}}},
        ),
    ],
)
def test_rewrites(path: PathMatch, rewrite: Rewrite, expected: dict[str, Any]) -> None:
    assert body(path, rewrite=rewrite)["rewrite"] == expected


def test_cors() -> None:
    cors = Cors(
        origins=("*", "http://b:1", "https://*.example.com"),
        methods=("PUT", "GET"),
        headers=("x-a",),
        expose_headers=("x-b", "x-c"),
        credentials=True,
        max_age_s=7,
    )
    assert body(cors=cors)["cors"] == {
        "origins": ["*", "http://b:1"],
        "origin_regexes": [r"https://[A-Za-z0-9.\-]+\.example\.com"],
        "methods": ["PUT", "GET"],
        "headers": ["x-a"],
        "expose_headers": ["x-b", "x-c"],
        "credentials": True,
        "max_age_s": 7,
        "forward_foreign": False,
    }


def test_refusals_keep_their_status() -> None:
    reply = body(action=Refuse("no such Service", 500))["action"]["reply"]
    assert reply == {"grpc_status": 2, "http_status": 500, "message": "no such Service"}
    cluster = upstream_cluster(Upstream("invalid", 1_000, empty_status=500))
    assert translate_cluster(cluster).body["empty_status"] == 500


def test_a_time_out_holds_in_envoy_too() -> None:
    # Beside `max_stream_duration` Envoy looks at no `timeout`.
    (route,) = message(timeouts=Timeouts(request_ms=5)).virtual_hosts[0].routes
    assert not route.route.HasField("max_stream_duration")
    (without,) = message().virtual_hosts[0].routes
    assert without.route.HasField("max_stream_duration")


def _change(change: str) -> tuple[route_pb2.RouteConfiguration, str]:
    table = message()
    route = table.virtual_hosts[0].routes[0]
    match change:
        case "method":
            header = route.match.headers.add(name=":method")
            header.string_match.safe_regex.regex = "G.*"
            return table, "match.headers: :method must be exact, once"
        case "query":
            route.match.query_parameters.add(name="a").string_match.prefix = "b"
            return table, "match.query_parameters[0].string_match.prefix: not supported"
        case "redirect":
            route.redirect.strip_query = True
            return table, "redirect.strip_query: not supported"
        case _:
            rewritten = route_components_pb2.RouteAction(host_rewrite_header="x")
            route.route.MergeFrom(rewritten)
            return table, "route.host_rewrite_header: not supported"


@pytest.mark.parametrize("change", ["method", "query", "redirect", "host"])
def test_what_is_not_done_is_refused_with_its_path(change: str) -> None:
    table, text = _change(change)
    with pytest.raises(UnsupportedFieldError) as refusal:
        translate_routes(table)
    assert str(refusal.value).startswith(f"virtual_hosts[0].routes[0].{text}")
