"""The gateway's own gRPC services: health and reflection, for clients of its listeners.

Decides: what health a service has, and the bounds of watching and asking.
Leaves to others: how calls get here (routes of ``reach``, moved by the core), what reflection says
(``reflection``), health of endpoints (the core).
Invariants: listens on the loopback alone, for calls that the core sends; a call that names no route
table is refused; nothing of it is on the way of any other call.

Health: the empty service is the gateway as a whole. A service is SERVING while a route of the host
that was asked takes its calls to a cluster with an available endpoint, NOT_SERVING while none has
one, NOT_FOUND (SERVICE_UNKNOWN where it is watched) without such a route. While the gateway drains
everything is NOT_SERVING.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2

from gateway.reach import (
    HEALTH,
    HOST_HEADER,
    REFLECTION,
    TABLE_HEADER,
    Way,
    available_clusters,
    ways_at,
)
from gateway.reflection import Reflection
from gateway.reflection_files import Method, Request, Response
from gateway.xds_translate import Piece, PieceId

STREAMS_MAX = 1_000
"""Watches and reflection streams open at once; further ones are RESOURCE_EXHAUSTED."""

LOOK_S = 0.5
"""How often a watched service is looked at, and how long a look at endpoints counts."""

LIST_MAX = 1_000
"""Services that ``List`` shows at most; above it is RESOURCE_EXHAUSTED."""

_Status = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[object, object]


@dataclass(slots=True)
class OwnServices:
    """The server. ``in_force`` is the present configuration, ``stats`` the core's counters."""

    in_force: Callable[[], Mapping[PieceId, Piece]]
    stats: Callable[[], bytes]
    draining: asyncio.Event
    learned: Callable[[Sequence[Method]], None] = lambda _: None
    """Told the methods that reflection knows; see ``Reflection``."""

    reflection: Reflection = field(init=False)
    _server: grpc.aio.Server | None = None
    _streams: int = 0
    _available: frozenset[str] = frozenset()
    _looked_s: float = float("-inf")
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.reflection = Reflection(self.in_force, self.learned)

    async def start(self) -> str:
        """Begin to serve; the address."""
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers(tuple(self._handlers()))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._server = server
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        """End what is open, at once."""
        if self._server is not None:
            await self._server.stop(None)

    def _handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        asked = health_pb2.HealthCheckRequest.FromString
        told = _Status.SerializeToString
        yield grpc.method_handlers_generic_handler(
            HEALTH,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._check, asked, told),
                "Watch": grpc.unary_stream_rpc_method_handler(self._watch, asked, told),
                "List": grpc.unary_unary_rpc_method_handler(
                    self._list,
                    health_pb2.HealthListRequest.FromString,
                    health_pb2.HealthListResponse.SerializeToString,
                ),
            },
        )
        for service in REFLECTION:
            info = grpc.stream_stream_rpc_method_handler(
                self._reflect, Request.FromString, Response.SerializeToString
            )
            yield grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": info})

    # Health.

    async def _check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        status = await self._status(request.service, await self._ways(context))
        if status == _Status.SERVICE_UNKNOWN:
            message = f"no route of this host takes calls of {request.service!r}"
            await context.abort(grpc.StatusCode.NOT_FOUND, message)
        return _Status(status=status)

    async def _watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        async with self._stream(context):
            last = None
            while True:
                leaving = self.draining.is_set()
                status = await self._status(request.service, await self._ways(context))
                if status != last:
                    yield _Status(status=status)
                    last = status
                if leaving:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the gateway is draining")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.draining.wait(), LOOK_S)

    async def _list(
        self, _request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        ways = await self._ways(context)
        names = ["", *dict.fromkeys(way.service for way in ways if way.service is not None)]
        if len(names) > LIST_MAX:
            message = f"this host has more than {LIST_MAX} services; check single ones"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        statuses = {name: _Status(status=await self._status(name, ways)) for name in names}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def _status(self, service: str, ways: list[Way]) -> health_pb2.HealthCheckResponse:
        taking = [way for way in ways if way.takes(service)]
        if service and not taking:
            return _Status.SERVICE_UNKNOWN
        if self.draining.is_set():
            return _Status.NOT_SERVING
        if not service:
            return _Status.SERVING
        available = await self._look()
        serves = any(name in available for way in taking for name in way.clusters)
        return _Status.SERVING if serves else _Status.NOT_SERVING

    async def _look(self) -> frozenset[str]:
        """Clusters with an available endpoint, as of ``LOOK_S`` ago at most."""
        async with self._looking:  # who comes meanwhile waits for the same look
            if time.monotonic() - self._looked_s > LOOK_S:
                stats = json.loads(await asyncio.to_thread(self.stats))
                self._available = available_clusters(stats, self.in_force())
                self._looked_s = time.monotonic()
            return self._available

    # Reflection.

    async def _reflect(
        self, requests: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[Response]:
        async with self._stream(context):
            table, host = await self._host(context)
            async for response in self.reflection.answers(table, host, requests):
                yield response

    # Both.

    async def _ways(self, context: Context) -> list[Way]:
        return ways_at(self.in_force(), *await self._host(context))

    async def _host(self, context: Context) -> tuple[str, str]:
        """The route table and the virtual host by which a call came."""
        metadata = dict(context.invocation_metadata() or ())
        table, host = metadata.get(TABLE_HEADER), metadata.get(HOST_HEADER)
        if not (isinstance(table, str) and isinstance(host, str)):
            message = "this port answers calls that came through a listener of the gateway only"
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, message)
        return str(table), str(host)

    @contextlib.asynccontextmanager
    async def _stream(self, context: Context) -> AsyncIterator[None]:
        if self._streams >= STREAMS_MAX:
            message = f"{STREAMS_MAX} streams are open at the gateway's own services"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
