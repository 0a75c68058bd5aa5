"""Health and reflection through the gateway: real clients on a listener, real backends behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.conformance import programs
from tests.testkit import standalone as kit
from tests.testkit.ports import free_port

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
OWN = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


@dataclass
class Reflecting:
    """A gRPC server that offers services by reflection; their messages import a file of its own."""

    port: int
    server: grpc.Server

    @classmethod
    def start(cls, *services: str, field: str = "name", port: int = 0) -> Reflecting:
        pool = descriptor_pool.DescriptorPool()
        shared = descriptor_pb2.FileDescriptorProto(
            name="shared.proto", package="shared", syntax="proto3"
        )
        message = shared.message_type.add(name="Thing")
        text = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
        message.field.add(name=field, number=1, type=text, label=1)
        pool.Add(shared)
        for full_name in services:
            package, _, name = full_name.rpartition(".")
            file = descriptor_pb2.FileDescriptorProto(
                name=f"{full_name}.proto", package=package, dependency=["shared.proto"]
            )
            service = file.service.add(name=name)
            service.method.add(name="Get", input_type=".shared.Thing", output_type=".shared.Thing")
            pool.Add(file)
        server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], server, pool)
        found = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        return cls(found, server)

    def stop(self) -> None:
        self.server.stop(None).wait(10)


@contextlib.contextmanager
def stopping(*servers: Reflecting) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.stop()


def rule(backend: str, service: str) -> str:
    return (
        f"{{matches: [{{method: {{service: {service}}}}}], "
        f"backendRefs: [{{name: {backend}, port: 9090}}]}}"
    )


def check(port: int, service: str = "") -> int | grpc.StatusCode:
    """The status of ``service``, or the code of the failure."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        except grpc.RpcError as failure:
            code = failure.code()
            assert isinstance(code, grpc.StatusCode)
            return code
        return int(answer.status)


def services_at(port: int, host: str = "a.test") -> set[str]:
    options = (("grpc.default_authority", host),)
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        return set(ProtoReflectionDescriptorDatabase(channel).get_services())


async def until_shown(port: int, host: str, services: set[str]) -> None:
    """A machine that is busy may leave out a backend for a moment."""

    async def is_shown() -> bool:
        return await asyncio.to_thread(services_at, port, host) == services

    await kit.until_async(is_shown, f"{host} shows {services}")


def fields_at(port: int, service: str) -> list[str]:
    """Fields of the request of ``service``'s method, as a client that knows nothing finds them."""
    options = (("grpc.default_authority", "a.test"),)
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(service).FindMethodByName("Get")
        return [field.name for field in method.input_type.fields]


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path, *documents: str, plain: Sequence[str] = ("grpc",)
) -> AsyncIterator[tuple[kit.Standalone, list[int]]]:
    ports = [free_port() for _ in plain]
    listeners = [kit.plain(port, name) for port, name in zip(ports, plain, strict=True)]
    async with kit.standalone(tmp_path, [kit.gateway(*listeners), *documents]) as running:
        await running.until_said("listening: infra/gw")
        yield running, ports


async def test_health_follows_routes_and_endpoints(tmp_path: Path) -> None:
    backend = Reflecting.start("app.Users")
    documents = (
        kit.service("users", backend.port),
        kit.service("gone", free_port()),
        kit.route("users", f"[{rule('users', 'app.Users')}, {rule('gone', 'app.Gone')}]"),
    )
    with stopping(backend):
        async with serving(tmp_path, *documents) as (_, (port,)):
            assert await asyncio.to_thread(check, port) == SERVING
            assert await asyncio.to_thread(check, port, "app.Users") == SERVING
            unknown = await asyncio.to_thread(check, port, "app.Unknown")
            assert unknown is grpc.StatusCode.NOT_FOUND
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                listed = await asyncio.to_thread(
                    health_pb2_grpc.HealthStub(channel).List, health_pb2.HealthListRequest()
                )
            assert set(listed.statuses) == {"", "app.Users", "app.Gone"}

            async def is_down() -> bool:
                await asyncio.to_thread(_call, port, "/app.Gone/Get")
                return bool(await asyncio.to_thread(check, port, "app.Gone") == NOT_SERVING)

            await kit.until_async(is_down, "what cannot be connected does not serve")
            assert await asyncio.to_thread(check, port, "app.Users") == SERVING


def _call(port: int, method: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, contextlib.suppress(grpc.RpcError):
        unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        unary(b"", timeout=10)


async def test_a_watch_tells_changes_and_the_drain(tmp_path: Path) -> None:
    backend = Reflecting.start("app.Users")
    documents = (
        kit.service("users", backend.port),
        kit.route("x", f"[{rule('users', 'app.Users')}]"),
    )
    with stopping(backend):
        async with contextlib.AsyncExitStack() as stack:
            running, (port,) = await stack.enter_async_context(serving(tmp_path, *documents))
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            )
            stub = health_pb2_grpc.HealthStub(channel)
            known = stub.Watch(health_pb2.HealthCheckRequest(service="app.Users"), timeout=30)
            later = stub.Watch(health_pb2.HealthCheckRequest(service="app.Later"), timeout=30)
            assert (await known.read()).status == SERVING
            assert (await later.read()).status == UNKNOWN
            running.apply("later.yaml", kit.route("later", f"[{rule('users', 'app.Later')}]"))
            assert (await later.read()).status == SERVING
            os.kill(os.getpid(), signal.SIGTERM)
            assert (await known.read()).status == NOT_SERVING


async def test_a_route_that_names_health_itself_has_it(tmp_path: Path) -> None:
    def unwell(_request: bytes, _context: object) -> bytes:
        return bytes(health_pb2.HealthCheckResponse(status=NOT_SERVING).SerializeToString())

    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(unwell)
    handlers = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})
    server.add_generic_rpc_handlers((handlers,))
    backend = Reflecting(server.add_insecure_port("127.0.0.1:0"), server)
    server.start()
    rules = f"[{rule('own', 'grpc.health.v1.Health')}]"
    documents = kit.service("own", backend.port), kit.route("own", rules)
    with stopping(backend):
        async with serving(tmp_path, *documents) as (_, (port,)):
            assert await asyncio.to_thread(check, port) == NOT_SERVING


async def test_reflection_shows_what_the_hosts_routes_lead_to(tmp_path: Path) -> None:
    first = Reflecting.start("app.Users", "app.Hidden", field="user")
    second = Reflecting.start("app.Orders", field="order")
    third = Reflecting.start("other.Any", "other.Thing")
    documents = (
        kit.service("first", first.port),
        kit.service("second", second.port),
        kit.service("third", third.port),
        kit.service("gone", free_port()),
        kit.route(
            "a",
            f"[{rule('first', 'app.Users')}, {rule('second', 'app.Orders')}, "
            f"{rule('gone', 'app.Gone')}]",
            hostnames="[a.test]",
        ),
        kit.route("b", "[{backendRefs: [{name: third, port: 9090}]}]", hostnames="[b.test]"),
    )
    with stopping(first, second, third):
        async with serving(tmp_path, *documents) as (_, (port,)):
            await until_shown(port, "a.test", {"app.Users", "app.Orders", *OWN})
            await until_shown(port, "b.test", {"other.Any", "other.Thing", *OWN})
            # Both backends have a file `shared.proto`, each another one.
            assert await asyncio.to_thread(fields_at, port, "app.Users") == ["user"]
            assert await asyncio.to_thread(fields_at, port, "app.Orders") == ["order"]


async def test_methods_that_reflection_knows_are_named_in_metrics(tmp_path: Path) -> None:
    backend = Reflecting.start("app.Users")
    documents = (
        kit.service("users", backend.port),
        kit.route("users", f"[{rule('users', 'app.Users')}]"),
    )
    with stopping(backend):
        async with serving(tmp_path, *documents) as (running, (port,)):

            def counted() -> dict[tuple[str, str], int]:
                calls = json.loads(running.core.stats())["rpc"]
                of = [it for it in calls if it["service"] == "app.Users"]
                return {(it["method"], it["type"]): it["started"] for it in of}

            for method in ("/app.Users/Get", "/app.Users/Made-up"):
                await asyncio.to_thread(_call, port, method)
            assert counted() == {("other", "unknown"): 2}

            await until_shown(port, "a.test", {"app.Users", *OWN})
            await kit.until_async(lambda: _is_named(port, counted), "the method has a name")
            others = counted()["other", "unknown"]
            await asyncio.to_thread(_call, port, "/app.Users/Made-up")
            assert counted()["other", "unknown"] == others + 1


async def _is_named(port: int, counted: Callable[[], dict[tuple[str, str], int]]) -> bool:
    await asyncio.to_thread(_call, port, "/app.Users/Get")
    return ("Get", "unary") in counted()


async def test_grpcurl_lists_and_describes(tmp_path: Path) -> None:
    grpcurl = _grpcurl()
    first, second = Reflecting.start("app.Users"), Reflecting.start("app.Orders")
    rules = f"[{rule('first', 'app.Users')}, {rule('second', 'app.Orders')}]"
    documents = (
        kit.service("first", first.port),
        kit.service("second", second.port),
        kit.route("both", rules),
    )
    with stopping(first, second):
        async with serving(tmp_path, *documents) as (_, (port,)):
            target = f"127.0.0.1:{port}"
            services = {"app.Users", "app.Orders", *OWN}
            await until_shown(port, "a.test", services)
            listed = await _run(grpcurl, "-plaintext", target, "list")
            assert set(listed.split()) == services
            described = await _run(grpcurl, "-plaintext", target, "describe", "app.Orders")
            assert "rpc Get ( .shared.Thing ) returns ( .shared.Thing );" in described
            described = await _run(grpcurl, "-plaintext", target, "describe", ".shared.Thing")
            assert "string name = 1;" in described
            health = await _run(grpcurl, "-plaintext", target, "grpc.health.v1.Health/Check")
            assert "SERVING" in health


def _grpcurl() -> str:
    """The program as the conformance rig builds it."""
    found = programs.built()
    if found is None:
        pytest.skip("programs in Go are not built: `make conformance` builds them once")
    return str(found.grpcurl)


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, output.decode()
    return output.decode()
