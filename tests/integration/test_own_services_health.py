"""Health of services: a real client asks the server; counters are as the core gives them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.own_services import OwnServices
from gateway.reach import HOST_HEADER, TABLE_HEADER
from gateway.xds_translate import Kind, Piece, PieceId

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CAME_BY = ((TABLE_HEADER, "table"), (HOST_HEADER, "host"))


def configured(sizes: Mapping[str, int]) -> dict[PieceId, Piece]:
    """A route for service ``NAME.v1.Api`` to each cluster NAME, and its endpoints."""
    routes = [
        {
            "match": {"path": {"prefix": f"/{name}.v1.Api/"}, "grpc": True},
            "action": {"weighted": [{"cluster": name, "weight": 1}]},
        }
        for name in sizes
    ]
    host = {"name": "host", "routes": routes}
    pieces = [Piece(PieceId(Kind.ROUTE_TABLES, "table"), {"virtual_hosts": [host]})]
    for name, size in sizes.items():
        endpoints = [{"address": f"10.0.{n >> 8}.{n & 255}:1"} for n in range(size)]
        body = {"cluster": name, "localities": [{"endpoints": endpoints}]}
        pieces.append(Piece(PieceId(Kind.ENDPOINTS, name), body))
    return {piece.id: piece for piece in pieces}


def listed(cluster: str, *, down: bool) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "health": "healthy",
        "down": down,
        "check_failed": False,
        "ejected_until_unix_ms": None,
    }


@contextlib.asynccontextmanager
async def served(own: OwnServices) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    address = await own.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield health_pb2_grpc.HealthStub(channel)
    finally:
        await own.stop()


async def status_of(stub: health_pb2_grpc.HealthStub, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    answer = await stub.Check(request, metadata=CAME_BY, timeout=10)
    return int(answer.status)


async def test_endpoints_that_are_too_many_to_be_listed_serve() -> None:
    pieces = configured({"many": 12_000, "dead": 2})
    troubled = [listed("many", down=True), listed("dead", down=True), listed("dead", down=True)]
    stats = {"endpoints": troubled, "endpoints_total": 12_002}
    own = OwnServices(lambda: pieces, lambda: json.dumps(stats).encode(), asyncio.Event())
    async with served(own) as stub:
        assert await status_of(stub, "many.v1.Api") == SERVING
        assert await status_of(stub, "dead.v1.Api") == NOT_SERVING


async def test_who_asks_while_another_look_is_under_way_waits_for_it() -> None:
    pieces = configured({"some": 1})
    looks = 0

    def slow_stats() -> bytes:
        nonlocal looks
        looks += 1
        time.sleep(0.2)  # what a large core takes; the second call comes meanwhile
        entries = [listed("some", down=False)]
        return json.dumps({"endpoints": entries, "endpoints_total": 1}).encode()

    own = OwnServices(lambda: pieces, slow_stats, asyncio.Event())
    async with served(own) as stub:
        asked = [status_of(stub, "some.v1.Api") for _ in range(8)]
        assert await asyncio.gather(*asked) == [SERVING] * 8
    assert looks == 1
