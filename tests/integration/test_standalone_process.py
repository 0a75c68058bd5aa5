"""``fedctl standalone`` as a process: a real call over TLS through a folder of manifests."""

from __future__ import annotations

import asyncio
import base64
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from federation.cli.lab.authority import Authority
from tests.integration.discovery_support import eventually
from tests.integration.test_discovery_envoy import echo_server
from tests.integration.test_gateway_process import ROOT
from tests.testkit.ports import free_port

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: grpc-gateway, namespace: infra}}
spec:
  gatewayClassName: istio
  listeners:
  - name: grpc
    port: {port}
    protocol: HTTPS
    hostname: grpc.example.com
    tls: {{mode: Terminate, certificateRefs: [{{name: grpc-cert}}]}}
    allowedRoutes: {{namespaces: {{from: All}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: grpc-cert, namespace: infra}}
type: kubernetes.io/tls
data: {{tls.crt: {certificate}, tls.key: {key}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: echo, namespace: app}}
spec:
  parentRefs: [{{name: grpc-gateway, namespace: infra}}]
  hostnames: [grpc.example.com]
  rules:
  - matches: [{{method: {{service: test.Echo}}}}]
    backendRefs: [{{name: echo, port: 9090}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: app}}
spec: {{ports: [{{name: grpc, port: 9090}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: echo-1, namespace: app, labels: {{kubernetes.io/service-name: echo}}}}
addressType: IPv4
ports: [{{name: grpc, port: {backend}}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
"""


@asynccontextmanager
async def standalone(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """``fedctl standalone`` and what it has printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from federation.cli.main import main; main()"),
        *("standalone", "--manifests", str(folder), "--port-offset", "0"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            printed.append(line.decode().rstrip())  # noqa: PERF401 - read while it grows

    reading = asyncio.create_task(read())
    try:
        yield process, printed
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
        print("\n".join(printed))


async def test_calls_over_tls_follow_the_folder(tmp_path: Path) -> None:
    authority = Authority("test")
    pair = authority.issue("grpc.example.com", dns=("grpc.example.com",))
    port = free_port()
    credentials = grpc.ssl_channel_credentials(authority.certificate_pem)
    options = [
        ("grpc.ssl_target_name_override", "grpc.example.com"),
        ("grpc.default_authority", "grpc.example.com"),
        ("grpc.max_reconnect_backoff_ms", 200),
    ]

    def write(backend: str) -> None:
        text = MANIFESTS.format(
            port=port,
            backend=backend.rpartition(":")[2],
            certificate=base64.b64encode(pair.certificate_pem).decode(),
            key=base64.b64encode(pair.key_pem).decode(),
        )
        (tmp_path / "all.yaml").write_text(text)

    async with echo_server("one") as one, echo_server("two") as two:
        write(one)
        async with (
            standalone(tmp_path) as (process, printed),
            grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel,
        ):
            line = f"listening: infra/grpc-gateway/{port} on 127.0.0.1:{port} (TLS)"
            await eventually(lambda: line in printed or process.returncode is not None)

            async def answered_by(name: str) -> bool:
                answer = await channel.unary_unary("/test.Echo/Say")(b"", timeout=5)
                return bytes(answer).decode() == name

            await eventually(lambda: answered_by("one"))
            write(two)
            await eventually(lambda: answered_by("two"))
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(8):
                assert await process.wait() == 0


async def test_a_missing_folder_is_one_sentence_and_exit_code_one(tmp_path: Path) -> None:
    async with standalone(tmp_path / "nowhere") as (process, printed):
        async with asyncio.timeout(10):
            assert await process.wait() == 1
        await eventually(lambda: printed)
        assert printed[-1].startswith("error: reading manifests from")
        assert not any("Traceback" in line for line in printed)
