"""Agents and gateways as processes around shared rate limits, on a real etcd."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from tests.native.support import DEADLINE_S
from tests.testkit.etcd import EtcdServer
from tests.testkit.ports import free_port

ROOT = Path(__file__).parents[2]
GATEWAY_PORT = 8080
OK, LIMITED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass
class Program:
    """A process of ours with its log."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)

    def said(self, text: str) -> list[dict[str, Any]]:
        """Log lines whose event has ``text``."""
        return [line for line in self.lines if text in line.get("event", "")]

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if line.startswith(b"{"):
                self.lines.append(json.loads(line))
            else:
                self.lines.append({"event": line.decode(errors="replace")})

    async def kill(self) -> None:
        """End it as a crash does."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def program(*command: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    running = Program(process)
    reading = asyncio.create_task(running.read_log())
    try:
        yield running
    finally:
        await running.kill()
        await reading


@asynccontextmanager
async def agent(
    etcd: EtcdServer, folder: Path, xds: str, *options: str, cluster: str = "west"
) -> AsyncIterator[Program]:
    """An agent of ``cluster`` that serves the manifests in ``folder``."""
    async with program(
        *("-c", "from federation.cli.main import main; main()"),
        *("--etcd", etcd.endpoint, "agent", "--cluster", cluster, "--region", f"us-{cluster}"),
        *("--xds", xds, "--source", f"folder:{folder}"),
        *("--state-dir", str(folder.parent / f"agent-{cluster}"), *options),
    ) as running:
        yield running


@dataclass
class RunningGateway:
    """A gateway process and where its clients go."""

    program: Program
    address: str

    def admin(self) -> str | None:
        started = self.program.said("gateway started")
        return f"http://{started[0]['admin']}" if started else None

    async def get(self, path: str) -> Any:
        async with aiohttp.ClientSession(self.admin()) as http, http.get(path) as answer:
            return await answer.json()

    async def limit(self) -> dict[str, Any] | None:
        """The first rate limit as the core counts it."""
        limits = (await self.get("/stats"))["core"]["rate_limits"]
        return limits[0] if limits else None

    async def share(self) -> float | None:
        """Its share of the limit, once it was told one."""
        limit = await self.limit()
        told = limit is not None and limit["share_age_ms"] is not None
        return limit["share_per_million"] / 1e6 if told and limit is not None else None


@asynccontextmanager
async def gateway(
    name: str, xds: str, folder: Path, *, cluster: str = "west"
) -> AsyncIterator[RunningGateway]:
    port = free_port()
    async with program(
        *("-m", "gateway", "--name", name, "--cluster", cluster, "--agent", xds),
        *("--state-dir", str(folder / name), "--address", "127.0.0.1"),
        *("--port-offset", str(port - GATEWAY_PORT), "--drain-grace", "1"),
    ) as running:
        found = RunningGateway(running, f"127.0.0.1:{port}")
        await until(found.admin, f"{name} starts")
        yield found


async def until(condition: Callable[[], Any], what: str, *, within_s: float = 25.0) -> Any:
    """The first true value of ``condition``; fails with ``what`` after the deadline."""
    clock = asyncio.get_running_loop().time
    end = clock() + within_s
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert clock() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)


async def outcomes(address: str, calls: int, key: str) -> Counter[grpc.StatusCode]:
    """How calls with an API key end, sent all at once."""
    async with grpc.aio.insecure_channel(address) as channel:
        echo = channel.unary_unary("/test.Echo/Unary")
        metadata = [("x-api-key", key)]
        running = [
            echo(b"hi", metadata=metadata, timeout=DEADLINE_S, wait_for_ready=True)
            for _ in range(calls)
        ]
        return Counter(await asyncio.gather(*(call.code() for call in running)))


def manifests(folder: Path, endpoint: str, limit: str) -> Path:
    """A Gateway, a route to ``endpoint`` and its limit for each value of ``x-api-key``."""
    folder.mkdir()
    port = endpoint.rpartition(":")[2]
    group = "gateway.networking.k8s.io"
    (folder / "all.yaml").write_text(f"""
apiVersion: {group}/v1
kind: Gateway
metadata: {{name: gw, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: grpc, port: {GATEWAY_PORT}, protocol: HTTP}}]
---
apiVersion: {group}/v1
kind: GRPCRoute
metadata: {{name: echo, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{backendRefs: [{{name: echo, port: 9090}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: app}}
spec: {{ports: [{{port: 9090}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: echo-1, namespace: app, labels: {{kubernetes.io/service-name: echo}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
apiVersion: {group}/v1alpha3
kind: BackendTrafficPolicy
metadata: {{name: limits, namespace: app}}
spec:
  targetRef: {{group: {group}, kind: GRPCRoute, name: echo}}
  rateLimit:
    type: Global
    global:
      rules:
      - clientSelectors: [{{headers: [{{name: x-api-key}}]}}]
        limit: {limit}
""")
    return folder
