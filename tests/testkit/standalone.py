"""``fedctl standalone`` with the real core over a folder, in this process, to test with traffic."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from federation.cli.standalone import StandaloneSettings, serve
from federation.model.base import ClusterId
from gateway import _native
from gateway.driver import open_core
from gateway.settings import CoreSettings

DEADLINE_S = 15.0


@dataclass
class Standalone:
    """A running gateway; ``said`` is what it has printed."""

    folder: Path
    core: _native.Core
    said: list[str] = field(default_factory=list)

    def numbers(self) -> dict[str, int]:
        """The core's plain counters."""
        stats = json.loads(self.core.stats())
        return dict(stats["numbers"])

    def apply(self, name: str, *documents: str) -> None:
        """Put ``documents`` into the file ``name`` of its folder, in place of what was there."""
        path = self.folder / name
        fresh = path.with_suffix(".new")
        fresh.write_text("\n---\n".join(documents))
        fresh.rename(path)

    async def until_said(self, text: str) -> None:
        """Return once it has printed something with ``text``."""
        await until(lambda: any(text in line for line in self.said), f"{text!r} in {self.said}")


async def until(condition: Callable[[], object], what: str) -> None:
    """Return once ``condition`` holds; fail with ``what`` when it does not in time."""
    end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=DEADLINE_S)
    while not condition():
        assert dt.datetime.now(dt.UTC) < end, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.01)


async def until_async(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """``until`` for a condition that is awaited."""
    end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=DEADLINE_S)
    while not await condition():
        assert dt.datetime.now(dt.UTC) < end, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def standalone(
    folder: Path, documents: Iterable[str] = (), *, port_offset: int = 0
) -> AsyncIterator[Standalone]:
    """A gateway over ``folder``, which holds ``documents`` and takes ports as they are named."""
    core = open_core(CoreSettings())
    running = Standalone(folder, core)
    if documents := tuple(documents):
        running.apply("base.yaml", *documents)
    settings = StandaloneSettings(
        manifests=folder,
        cluster=ClusterId("standalone"),
        address="127.0.0.1",
        port_offset=port_offset,
        workers=1,
        admin="127.0.0.1:0",
        gateway_classes=frozenset({"istio"}),
    )
    task = asyncio.create_task(serve(settings, core=core, say=running.said.append))
    try:
        await until(lambda: running.said or task.done(), "it says something")
        if task.done():
            task.result()
        yield running
    finally:
        task.cancel()
        await asyncio.wait([task])


def gateway(*listeners: str, name: str = "gw", extra: str = "") -> str:
    """A Gateway of namespace ``infra``; ``extra`` are lines of its spec."""
    lines = "".join(f"  - {listener}\n" for listener in listeners)
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n"
        f"metadata: {{name: {name}, namespace: infra}}\n"
        f"spec:\n  gatewayClassName: istio\n{extra}  listeners:\n{lines}"
    )


def service(name: str, *ports: int) -> str:
    """Service ``NAME`` of namespace ``app``, port 9090, with an endpoint at each of ``ports``."""
    slices = "".join(
        "\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        f"metadata: {{name: {name}-{port}, namespace: app, "
        f"labels: {{kubernetes.io/service-name: {name}}}}}\n"
        "addressType: IPv4\n"
        f"ports: [{{name: grpc, port: {port}}}]\n"
        "endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]\n"
        for port in ports
    )
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: app}}\n"
        f"spec: {{ports: [{{name: grpc, port: 9090}}]}}\n{slices}"
    )


def route(name: str, rules: str, *, hostnames: str = "[]", parent: str = "{name: gw}") -> str:
    """A GRPCRoute of namespace ``app`` at the Gateway; ``rules`` is in YAML's flow style."""
    ref = parent.replace("{", "{namespace: infra, ", 1)
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n"
        f"metadata: {{name: {name}, namespace: app}}\n"
        f"spec:\n  parentRefs: [{ref}]\n  hostnames: {hostnames}\n  rules: {rules}\n"
    )


def plain(port: int, name: str = "grpc") -> str:
    """A listener without TLS that takes routes of all namespaces."""
    return (
        f"{{name: {name}, port: {port}, protocol: HTTP, "
        "allowedRoutes: {namespaces: {from: All}}}"
    )


def policy(route: str, *fields: str, name: str = "policy") -> str:
    """A BackendTrafficPolicy for the GRPCRoute; ``fields`` are lines of its spec."""
    return (
        "apiVersion: gateway.networking.k8s.io/v1alpha3\nkind: BackendTrafficPolicy\n"
        f"metadata: {{name: {name}, namespace: app}}\nspec:\n"
        f"  targetRef: {{group: gateway.networking.k8s.io, kind: GRPCRoute, name: {route}}}\n"
        + "".join(f"  {field}\n" for field in fields)
    )
