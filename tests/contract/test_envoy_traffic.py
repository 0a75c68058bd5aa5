"""A stock Envoy made of our resources injects faults, copies calls and keeps sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from google.protobuf import json_format

from federation.derive.compile import CompileSettings
from federation.wire.xds import NodeView, to_resources
from tests.contract.test_envoy_accepts import bootstrap
from tests.contract.test_envoy_routes import GATEWAY_PORT, backend, call, envoy, failure
from tests.integration.discovery_support import eventually
from tests.native.support import backends
from tests.testkit.ports import free_port
from tests.testkit.routing import compiled, parse, service

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
  rules:
  - matches: [{method: {service: p.Sticky}}]
    sessionPersistence: {sessionName: sid}
    backendRefs: [{name: many, port: 9090}]
  - matches: [{method: {service: test.Echo}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 9090}}}]
    backendRefs: [{name: main, port: 9090}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: faulty, namespace: app}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches: [{method: {service: p.Faulty}}]
    backendRefs: [{name: many, port: 9090}]
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {name: drill, namespace: app}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: faulty}
  faultInjection: {abort: {grpcStatus: 8}}
  retryConstraint: {}
"""


@asynccontextmanager
async def carrying(folder: Path, **services: tuple[str, ...]) -> AsyncIterator[grpc.aio.Channel]:
    """A client of an Envoy that serves the manifests with these endpoints."""
    backed = [entry for name, at in services.items() for entry in service(f"app/{name}", at)]
    objects = [*parse(MANIFESTS), *backed]
    result = compiled(objects, settings=CompileSettings(eastwest_port=None))
    port = free_port()
    node = NodeView(address="127.0.0.1", port_offset=port - GATEWAY_PORT)
    config = folder / "envoy.json"
    config.write_text(json_format.MessageToJson(bootstrap(to_resources(result.snapshot, node))))
    async with envoy(config), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        yield channel


async def test_faults_mirrors_and_sessions_hold_in_envoy(tmp_path: Path) -> None:
    async with backend("v1") as first, backend("v2") as second:
        with backends("main", "copy") as [main, copy]:
            async with carrying(
                tmp_path, many=(first, second), main=(main.address,), copy=(copy.address,)
            ) as channel:
                await check_fault(channel)
                await check_session(channel)
                answer = await channel.unary_unary("/test.Echo/Unary")(b"hi", timeout=20)
                assert answer == b"hi"
                await eventually(lambda: copy.seen, "the copy arrives")
                assert len(main.seen) == 1


async def check_fault(channel: grpc.aio.Channel) -> None:
    assert (await failure(channel, "/p.Faulty/Get")).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def check_session(channel: grpc.aio.Channel) -> None:
    answers = {await call(channel, "/p.Sticky/Get") for _ in range(40)}
    assert answers == {"v1 -", "v2 -"}, "without a cookie they spread"
    first = channel.unary_unary("/p.Sticky/Get")(b"", timeout=20)
    cookie = str(dict(await first.initial_metadata())["set-cookie"])
    assert cookie.startswith("sid=")
    sticky = ("cookie", cookie.partition(";")[0])
    its = {await call(channel, "/p.Sticky/Get", sticky) for _ in range(20)}
    assert its == {(await first).decode()}
