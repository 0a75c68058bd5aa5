"""Where the gateway's own services stand among routes, and which routes take a service's calls."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.reach import OWN_CLUSTER, Way, ways_at, with_own_routes
from gateway.xds_translate import Kind, Piece, PieceId


def route(path: dict[str, str], *clusters: str, **match: Any) -> dict[str, Any]:
    weighted = [{"cluster": name, "weight": 1} for name in clusters]
    return {
        "name": str(path),
        "match": {"path": path, "grpc": True} | match,
        "action": {"weighted": weighted},
    }


def table(*routes: dict[str, Any]) -> Piece:
    host = {"name": "h", "hostnames": ["*"], "routes": list(routes)}
    return Piece(PieceId(Kind.ROUTE_TABLES, "t"), {"name": "t", "virtual_hosts": [host]})


def order(piece: Piece) -> list[str]:
    routes = piece.body["virtual_hosts"][0]["routes"]
    return [next(iter(entry["match"]["path"].values())) for entry in routes]


HEALTH = "/grpc.health.v1.Health/"


def test_own_services_come_before_routes_that_take_everything() -> None:
    piece = with_own_routes(table(route({"prefix": "/"}, "a")))
    assert order(piece)[-1] == "/"
    assert HEALTH in order(piece)[:-1]
    assert len(order(piece)) == 4
    assert PieceId(Kind.CLUSTERS, OWN_CLUSTER) in piece.needs


def test_a_route_that_names_a_service_goes_first() -> None:
    mine = route({"exact": HEALTH + "Check"}, "a")
    piece = with_own_routes(table(mine, route({"prefix": "/"}, "b")))
    assert order(piece).index(HEALTH + "Check") < order(piece).index(HEALTH)
    assert order(piece).index(HEALTH) < order(piece).index("/")


def test_tables_for_peers_and_for_http_have_none() -> None:
    header = [{"name": "x-federation-destination", "exact": "a/b:1"}]
    peers = table(route({"prefix": "/"}, "a", headers=header))
    assert with_own_routes(peers) is peers
    http = table(route({"prefix": "/"}, "a", grpc=False))
    assert with_own_routes(http) is http


def test_ways_leave_out_the_own_ones_and_weights_of_zero() -> None:
    unused = route({"exact": "/a.B/M"}, "x", "y")
    unused["action"]["weighted"][1]["weight"] = 0
    piece = with_own_routes(table(unused, route({"regex": "/[^/]+/Get"}, "z")))
    assert ways_at({piece.id: piece}, "t", "h") == [
        Way("a.B", None, ("x",)),
        Way(None, "/[^/]+/Get", ("z",)),
    ]
    assert ways_at({piece.id: piece}, "t", "other") == []


@pytest.mark.parametrize(
    ("way", "takes"),
    [
        (Way("a.B", None, ()), True),
        (Way("a.C", None, ()), False),
        (Way(None, None, ()), True),
        (Way(None, "/a\\..*/.*", ()), True),
        (Way(None, "/b\\..*/.*", ()), False),
        (Way(None, "(", ()), False),
    ],
)
def test_which_ways_take_a_service(way: Way, takes: bool) -> None:
    assert way.takes("a.B") is takes
