"""Versions of HTTP from manifest to traffic: curl on one side, Node's servers on the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.test_listener_tls import https, secret
from tests.native.certificates import Authority
from tests.native.support import backends
from tests.native.test_grpc_web import BINARY, TEXT, ask
from tests.native.test_websocket import TIMEOUT, chat
from tests.testkit import standalone as kit
from tests.testkit.http_echo import VERSIONS, curl, http_route, http_servers
from tests.testkit.ports import free_port

NODE = """
const http = require(process.argv[1]);
const server = http.createServer((request, response) => {
  let length = 0;
  request.on('data', (part) => { length += part.length; });
  request.on('end', () => {
    const told = {version: request.httpVersion, method: request.method, path: request.url, length};
    response.writeHead(200, {'content-type': 'application/json', 'x-server': process.argv[1]});
    response.end(request.method === 'HEAD' ? undefined : JSON.stringify(told));
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""
"""An HTTP server that tells what it was asked; its argument is the module, `http` or `http2`."""

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


@contextlib.asynccontextmanager
async def node(module: str) -> AsyncIterator[int]:
    """The port of a server of Node."""
    process = await asyncio.create_subprocess_exec(
        *("node", "-e", NODE, module), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield int(await asyncio.wait_for(process.stdout.readline(), 20))
    finally:
        process.kill()
        await process.wait()


def speaking(app_protocol: str, document: str) -> str:
    """A Service whose port says what it speaks."""
    assert "port: 9090}" in document
    return document.replace("port: 9090}", f"port: 9090, appProtocol: {app_protocol}}}", 1)


def by_path(*names: str) -> str:
    rules = (
        f"{{matches: [{{path: {{value: /{name}}}}}], backendRefs: [{{name: {name}, port: 9090}}]}}"
        for name in names
    )
    return f"[{', '.join(rules)}]"


@needs_node
@pytest.mark.parametrize("version", VERSIONS)
async def test_each_side_has_its_own_version(tmp_path: Path, version: str) -> None:
    port = free_port()
    body = tmp_path / "body"
    body.write_bytes(b"x" * 300_000)
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    async with node("http") as one, node("http2") as two:
        base = [
            kit.gateway(kit.plain(port, "web")),
            kit.service("one", one),
            speaking("kubernetes.io/h2c", kit.service("two", two)),
            http_route("versions", by_path("one", "two")),
        ]
        async with kit.standalone(manifests, base) as running:
            await running.until_said("listening")
            for name, spoken in (("one", "1.1"), ("two", "2.0")):
                told = (await curl(port, f"/{name}/x?y", version)).asked
                assert told == {
                    "version": spoken,
                    "method": "GET",
                    "path": f"/{name}/x?y",
                    "length": 0,
                }
                sent = await curl(port, f"/{name}", version, "--data-binary", f"@{body}")
                assert (sent.asked["method"], sent.asked["length"]) == ("POST", 300_000)
                head = await curl(port, f"/{name}", version, "--head")
                assert (head.status, head.body) == (200, b"")
            assert running.numbers()["connects"] == 2, "connections of both kinds are kept"


async def test_tls_agrees_on_the_version(tmp_path: Path) -> None:
    port, ca = free_port(), Authority()
    async with http_servers("a") as [server]:
        base = [
            kit.gateway(https("web", port, "certificate")),
            secret("certificate", ca.leaf("example.com")),
            kit.service("a", server.port),
            http_route("tls", "[{backendRefs: [{name: a, port: 9090}]}]"),
        ]
        async with kit.standalone(tmp_path, base) as running:
            await running.until_said("listening")
            for version, spoken in (("--http1.1", "1.1"), ("--http2", "2")):
                process = await asyncio.create_subprocess_exec(
                    *("curl", "-sSk", "-m", "20", "-o", "/dev/null", "-w", "%{http_version}"),
                    *("--resolve", f"example.com:{port}:127.0.0.1", version),
                    f"https://example.com:{port}/",
                    stdout=asyncio.subprocess.PIPE,
                )
                out, _ = await process.communicate()
                assert (process.returncode, out.decode()) == (0, spoken)
            assert server.seen == ["/", "/"]


@pytest.mark.parametrize("app_protocol", ["kubernetes.io/ws", "http"])
async def test_websockets_by_what_a_port_says(tmp_path: Path, app_protocol: str) -> None:
    port = free_port()
    async with chat() as (server, there), aiohttp.ClientSession(timeout=TIMEOUT) as client:
        base = [
            kit.gateway(kit.plain(port, "web")),
            speaking(app_protocol, kit.service("chat", int(there.rpartition(":")[2]))),
            http_route("chat", by_path("chat")),
        ]
        async with kit.standalone(tmp_path, base) as running:
            await running.until_said("listening")
            url = f"http://127.0.0.1:{port}/chat"
            async with client.ws_connect(url, protocols=("chat",)) as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello"
            assert server.protocols == ["chat"]


async def test_what_no_route_can_speak_is_answered_500(tmp_path: Path) -> None:
    port = free_port()
    async with http_servers("a") as [server]:
        base = [
            kit.gateway(kit.plain(port, "web")),
            speaking("https", kit.service("a", server.port)),
            http_route("odd", by_path("a")),
        ]
        async with kit.standalone(tmp_path, base) as running:
            await running.until_said("UnsupportedProtocol")
            answer = await curl(port, "/a")
            assert (answer.status, server.seen) == (500, [])


@pytest.mark.parametrize("content_type", [BINARY, TEXT])
async def test_grpc_web_on_a_grpc_route(tmp_path: Path, content_type: str) -> None:
    port = free_port()
    with backends("a") as [backend]:
        base = [
            kit.gateway(kit.plain(port)),
            kit.service("echo", int(backend.address.rpartition(":")[2])),
            kit.route(
                "echo",
                "[{matches: [{method: {service: test.Echo}}], "
                "backendRefs: [{name: echo, port: 9090}]}]",
            ),
        ]
        async with kit.standalone(tmp_path, base) as running:
            await running.until_said("listening")
            address = f"127.0.0.1:{port}"
            response = await asyncio.to_thread(ask, address, content_type=content_type)
            assert (response.messages, response.status) == ([b"hi"], 0)
            spec = json.dumps({"count": 3, "size": 10}).encode()
            streamed = await asyncio.to_thread(ask, address, spec, method="ServerStream")
            assert streamed.messages == [b"x" * 10] * 3
