"""The lab's demo services: real gRPC servers, one process for each endpoint.

Decides: what the demo endpoints answer.
Leaves to others: which endpoints there are (``plan``), who starts and kills them
(``processes``).
Invariants: each endpoint is a process of its own, so a SIGKILL to its pid is the death of exactly
that endpoint; nothing restarts it.

A call may steer its answer by request metadata, which is how drills and tests make one endpoint
bad: ``x-demo-fail`` (a gRPC status number) fails the call, ``x-demo-fail-endpoint``
(``host:port``) limits that to one endpoint, ``x-demo-delay-ms`` delays the answer (at most 60,000).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from federation.cli.lab.plan import DemoEndpoint, DemoPlan
from federation.cli.lab.protos import user_service_pb2 as pb

DELAY_MAX_MS = 60_000
PACKAGE = "com.example.api"
SERVICES = (f"{PACKAGE}.UserService", f"{PACKAGE}.OrderService")

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


class Endpoint:
    """The behaviour of one endpoint: every answer says who gave it in ``x-served-by``."""

    def __init__(self, endpoint: DemoEndpoint, *, cluster: str) -> None:
        self._address = endpoint.address
        self._served_by = f"{cluster}/{endpoint.namespace}/{endpoint.service}/{endpoint.address}"

    async def _begin(self, context: Context) -> None:
        """Send who serves, then do what the call's metadata asks for."""
        asked = {str(key): value for key, value in context.invocation_metadata() or ()}
        fails_here = asked.get("x-demo-fail-endpoint", self._address) == self._address
        if delay_ms := int(str(asked.get("x-demo-delay-ms", 0))):
            await asyncio.sleep(min(delay_ms, DELAY_MAX_MS) / 1000)
        if "x-demo-fail" in asked and fails_here:
            code = int(str(asked["x-demo-fail"]))
            await context.abort(
                next(status for status in grpc.StatusCode if status.value[0] == code),
                f"asked to fail by x-demo-fail; served by {self._served_by}",
            )
        await context.send_initial_metadata((("x-served-by", self._served_by),))

    async def get_user(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        """One user, whoever is asked for."""
        await self._begin(context)
        return _user(request.user_id)

    async def list_users(
        self, request: pb.ListUsersRequest, context: Context
    ) -> pb.ListUsersResponse:
        """As many users as a page was asked to hold."""
        await self._begin(context)
        return pb.ListUsersResponse(users=[_user(str(n)) for n in range(request.page_size)])

    async def create_user(
        self, request: pb.CreateUserRequest, context: Context
    ) -> pb.CreateUserResponse:
        """The name of the new user."""
        await self._begin(context)
        return pb.CreateUserResponse(user_id=f"user-{request.name}")

    async def watch_users(
        self, request: pb.WatchUsersRequest, context: Context
    ) -> AsyncIterator[pb.GetUserResponse]:
        """Users at a steady beat, without end if ``count`` is 0."""
        await self._begin(context)
        sent = 0
        while request.count == 0 or sent < request.count:
            yield _user(str(sent))
            sent += 1
            await asyncio.sleep(max(request.interval_ms, 1) / 1000)

    async def import_users(
        self, requests: AsyncIterator[pb.CreateUserRequest], context: Context
    ) -> pb.ImportUsersResponse:
        """How many users the client sent."""
        await self._begin(context)
        received = 0
        async for _ in requests:
            received += 1
        return pb.ImportUsersResponse(received=received)

    async def sync_users(
        self, requests: AsyncIterator[pb.GetUserRequest], context: Context
    ) -> AsyncIterator[pb.GetUserResponse]:
        """One user for each one asked for."""
        await self._begin(context)
        async for request in requests:
            yield _user(request.user_id)

    async def get_order(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        """One order."""
        await self._begin(context)
        return pb.GetOrderResponse(order_id=request.order_id, user_id="user-1")

    async def list_orders(
        self, request: pb.ListOrdersRequest, context: Context
    ) -> pb.ListOrdersResponse:
        """The one order there is."""
        await self._begin(context)
        order = pb.GetOrderResponse(order_id="order-1", user_id=request.user_id)
        return pb.ListOrdersResponse(orders=[order])


def _user(user_id: str) -> pb.GetUserResponse:
    return pb.GetUserResponse(user_id=user_id, name="Ada", email="ada@example.com")


def _handlers(endpoint: Endpoint) -> tuple[grpc.GenericRpcHandler, ...]:
    """The service tables. Generic handlers keep generated service code out of the repository."""

    def unary(
        method: Callable[[Any, Context], Awaitable[Message]], request: type[Message]
    ) -> Handler:
        return grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=request.FromString, response_serializer=_serialize
        )

    users = {
        "GetUser": unary(endpoint.get_user, pb.GetUserRequest),
        "ListUsers": unary(endpoint.list_users, pb.ListUsersRequest),
        "CreateUser": unary(endpoint.create_user, pb.CreateUserRequest),
        "WatchUsers": grpc.unary_stream_rpc_method_handler(
            endpoint.watch_users,
            request_deserializer=pb.WatchUsersRequest.FromString,
            response_serializer=_serialize,
        ),
        "ImportUsers": grpc.stream_unary_rpc_method_handler(
            endpoint.import_users,
            request_deserializer=pb.CreateUserRequest.FromString,
            response_serializer=_serialize,
        ),
        "SyncUsers": grpc.stream_stream_rpc_method_handler(
            endpoint.sync_users,
            request_deserializer=pb.GetUserRequest.FromString,
            response_serializer=_serialize,
        ),
    }
    orders = {
        "GetOrder": unary(endpoint.get_order, pb.GetOrderRequest),
        "ListOrders": unary(endpoint.list_orders, pb.ListOrdersRequest),
    }
    return tuple(
        grpc.method_handlers_generic_handler(service, methods)
        for service, methods in zip(SERVICES, (users, orders), strict=True)
    )


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


async def serve(endpoint: DemoEndpoint, *, cluster: str) -> None:
    """Serve one endpoint until SIGTERM; calls that are open then have five seconds."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers(_handlers(Endpoint(endpoint, cluster=cluster)))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ("", *SERVICES):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    server.add_insecure_port(endpoint.address)
    await server.start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()
    await checks.enter_graceful_shutdown()
    await server.stop(grace=5)


def run(plan: DemoPlan, *, pids_path: Path) -> int:
    """Fork one server for each endpoint of ``plan``, write their pids, wait for all to end.

    Forking after the imports and before gRPC starts shares the modules' memory and takes a few
    milliseconds an endpoint instead of half a second. ``pids_path`` gets ``{address: pid}``,
    written whole or not at all.
    """
    gc.freeze()
    pids: dict[str, int] = {}
    running: set[int] = set()
    for endpoint in plan.endpoints:
        pid = os.fork()
        if pid == 0:
            asyncio.run(serve(endpoint, cluster=plan.cluster))
            os._exit(0)
        pids[endpoint.address] = pid
        running.add(pid)

    def stop_all(*_: object) -> None:
        for child in running:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop_all)
    signal.signal(signal.SIGINT, stop_all)
    temporary = pids_path.with_suffix(".new")
    temporary.write_text(json.dumps(pids))
    temporary.replace(pids_path)
    while running:
        ended, _ = os.wait()
        running.discard(ended)
    return 0


if __name__ == "__main__":
    sys.exit(run(DemoPlan.model_validate_json(sys.argv[1]), pids_path=Path(sys.argv[2])))
