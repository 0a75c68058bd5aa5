"""Real gRPC servers and clients around a native core, and builders of its configuration."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc

from gateway.driver import Driver

SERVICE = "test.Echo"
DEADLINE_S = 15.0


def wait_until(condition: Callable[[], object], what: str, *, within_s: float = DEADLINE_S) -> None:
    """Return once ``condition`` holds; fail with ``what`` when it does not in time."""
    end = time.monotonic() + within_s
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        tick.wait(0.005)


class EchoHandler(grpc.GenericRpcHandler):
    """``test.Echo``: bytes in, bytes out; what a call saw and does is told by its metadata."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        backend = self._backend
        backend.seen.append(dict(details.invocation_metadata))
        match details.method.rpartition("/")[2]:
            case "Unary":
                return grpc.unary_unary_rpc_method_handler(backend.unary)
            case "ServerStream":
                return grpc.unary_stream_rpc_method_handler(backend.server_stream)
            case "ClientStream":
                return grpc.stream_unary_rpc_method_handler(backend.client_stream)
            case "Bidi":
                return grpc.stream_stream_rpc_method_handler(backend.bidi)
            case "Hang":
                return grpc.unary_unary_rpc_method_handler(backend.hang)
            case _:
                return None


@dataclass
class Backend:
    """One endpoint: a real gRPC server on a port of the system's choice.

    It fails with ``fail``, or where a call's ``x-fail-at`` names it; it answers after ``delay_s``.
    """

    name: str = "a"
    fail: grpc.StatusCode | None = None
    delay_s: float = 0.0
    options: tuple[tuple[str, int], ...] = ()
    seen: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""

    def start(self, port: int = 0, *, host: str = "127.0.0.1") -> Backend:
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", 16 << 20),
            *self.options,
        ]
        self._server = grpc.server(futures.ThreadPoolExecutor(32), options=options)
        self._server.add_generic_rpc_handlers((EchoHandler(self),))
        self.address = f"{host}:{self._server.add_insecure_port(f'{host}:{port}')}"
        self._server.start()
        return self

    def stop(self, *, grace_s: float | None = None) -> None:
        self._server.stop(grace_s).wait(DEADLINE_S)

    def unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._begin(context)
        context.set_trailing_metadata((("x-trailer", "t"),))
        return request

    def server_stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin(context)
        spec = json.loads(request)
        for _ in range(spec["count"]):
            yield b"x" * spec["size"]
        if spec.get("fail_at") == self.name:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"{self.name} fails at the end")

    def client_stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._begin(context)
        return str(sum(len(request) for request in requests)).encode()

    def bidi(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin(context)
        yield from requests

    def hang(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(DEADLINE_S)
        return b""

    def _begin(self, context: grpc.ServicerContext) -> None:
        if self.delay_s:
            threading.Event().wait(self.delay_s)
        asked = dict(context.invocation_metadata()).get("x-fail-at") == self.name
        if self.fail is not None or asked:
            context.abort(self.fail or grpc.StatusCode.UNAVAILABLE, f"{self.name} fails")
        context.send_initial_metadata((("x-served-by", self.name),))


@contextlib.contextmanager
def backends(*names: str) -> Iterator[list[Backend]]:
    started = [Backend(name).start() for name in names]
    try:
        yield started
    finally:
        for backend in started:
            backend.stop()


@contextlib.contextmanager
def channel(address: str, **kwargs: Any) -> Iterator[grpc.Channel]:
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", 16 << 20),
        *kwargs.pop("options", ()),
    ]
    made = (
        grpc.secure_channel(address, kwargs["credentials"], options)
        if "credentials" in kwargs
        else grpc.insecure_channel(address, options)
    )
    with made:
        yield made


def unary(client: grpc.Channel, method: str = "Unary") -> grpc.UnaryUnaryMultiCallable[Any, Any]:
    return client.unary_unary(f"/{SERVICE}/{method}")


def call(client: grpc.Channel, request: bytes = b"hi", **kwargs: Any) -> tuple[bytes, str]:
    """Answer and the name of the endpoint that gave it."""
    kwargs.setdefault("timeout", DEADLINE_S)
    answer, state = unary(client).with_call(request, **kwargs)
    return answer, str(dict(state.initial_metadata())["x-served-by"])


def failure(client: grpc.Channel, method: str = "Unary", **kwargs: Any) -> grpc.RpcError:
    """The error that a call ends with."""
    kwargs.setdefault("timeout", DEADLINE_S)
    try:
        unary(client, method)(b"hi", **kwargs)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call did not fail")


# --- configuration ---


def listener(name: str = "public", **changes: Any) -> dict[str, Any]:
    base = {"name": name, "address": "127.0.0.1", "port": 0, "kind": "ingress", "tls": None}
    return base | {"route_table": "main"} | changes


def route(*clusters: str | tuple[str, int], **changes: Any) -> dict[str, Any]:
    parts = [(it, 1) if isinstance(it, str) else it for it in clusters]
    weighted = [{"cluster": name, "weight": weight} for name, weight in parts]
    base = {"name": "app/echo/rule-0", "match": {"path": {"prefix": "/"}}}
    return base | {"action": {"weighted": weighted}} | changes


def table(*routes: dict[str, Any], name: str = "main", host: str = "*") -> dict[str, Any]:
    hosts = [{"name": "app", "hostnames": [host], "routes": list(routes)}]
    return {"name": name, "virtual_hosts": hosts}


def cluster(name: str = "echo", **changes: Any) -> dict[str, Any]:
    return {"name": name} | changes


def locality(*addresses: str | dict[str, Any], **changes: Any) -> dict[str, Any]:
    endpoints = [{"address": it} if isinstance(it, str) else it for it in addresses]
    base = {"cluster_id": "us-west-1", "region": "us-west", "priority": 0, "weight": 1}
    return base | {"endpoints": endpoints} | changes


def endpoints(*localities: dict[str, Any], name: str = "echo") -> dict[str, Any]:
    return {"cluster": name, "localities": list(localities)}


def update(**parts: Any) -> dict[str, Any]:
    """A full update, or a delta with ``full=False``."""
    return {"version": "1", "full": True} | parts


def simple(*addresses: str, **changes: Any) -> dict[str, Any]:
    """One listener, one route, one cluster with these endpoints; each part can be replaced."""
    base = update(
        listeners=[listener()],
        route_tables=[table(route("echo"))],
        clusters=[cluster()],
        endpoints=[endpoints(locality(*addresses))],
    )
    return base | changes


@contextlib.contextmanager
def core(**settings: Any) -> Iterator[Driver]:
    with Driver({"workers": 1} | settings) as driver:
        yield driver


def serve(driver: Driver, configuration: dict[str, Any]) -> str:
    """Apply; the address of the first listener."""
    applied = driver.apply(configuration)
    assert [it.error for it in applied.listeners if it.error] == []
    return applied.listeners[0].address


def numbers(driver: Driver) -> dict[str, int]:
    return driver.stats()["numbers"]  # type: ignore[return-value]
