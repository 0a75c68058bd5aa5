"""Plain HTTP around a gateway: servers that tell what they were asked, and curl as the client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

VERSIONS = ("--http1.1", "--http2-prior-knowledge")
"""Curl's words for how to speak."""


@dataclass
class EchoServer:
    """An HTTP/1.1 server; ``answers`` are statuses for the next requests, then it is 200.

    ``hang`` is how many requests it never answers, ``stall`` makes it stop within its answers;
    ``seen`` are the paths that it was asked for.
    """

    name: str
    port: int = 0
    answers: list[int] = field(default_factory=list)
    hang: int = 0
    stall: bool = False
    seen: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer with what came."""
        self.seen.append(request.path_qs)
        self.bodies.append(await request.read())
        if self.hang:
            self.hang -= 1
            await asyncio.sleep(3_600)
        if self.stall:
            response = web.StreamResponse(headers={"content-length": "1000"})
            await response.prepare(request)
            await response.write(b"the beginning")
            await asyncio.sleep(3_600)
        asked: dict[str, Any] = {
            "server": self.name,
            "method": request.method,
            "path": request.path_qs,
            "host": request.host,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": self.bodies[-1].decode("latin-1"),
        }
        status = self.answers.pop(0) if self.answers else 200
        return web.json_response(asked, status=status, headers={"x-server": self.name})


@contextlib.asynccontextmanager
async def http_servers(*names: str) -> AsyncIterator[list[EchoServer]]:
    """Servers on ports of the system's choice."""
    servers, runners = [EchoServer(name) for name in names], []
    try:
        for server in servers:
            application = web.Application()
            application.router.add_route("*", "/{tail:.*}", server.handle)
            runner = web.AppRunner(application, shutdown_timeout=0.1)
            runners.append(runner)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            server.port = runner.addresses[0][1]
        yield servers
    finally:
        for runner in runners:
            await runner.cleanup()


@dataclass
class Answer:
    """A response as curl got it; repeated fields are joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def asked(self) -> dict[str, Any]:
        """What the server says it was asked."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def server(self) -> str:
        """Who answered; empty if it was the gateway."""
        return self.headers.get("x-server", "")


async def curl_exit(port: int, path: str, *arguments: str) -> int:
    """The exit code of a request whose answer does not end well."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-s", "-m", "20", *arguments, f"http://127.0.0.1:{port}{path}"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


async def curl(
    port: int, path: str, *arguments: str, host: str = "example.com", scheme: str = "http"
) -> Answer:
    """The answer to a request on ``port``."""
    url = f"{scheme}://{host}:{port}{path}"
    process = await asyncio.create_subprocess_exec(
        *("curl", "-s", "-i", "--path-as-is", "-m", "20", "--resolve", f"{host}:{port}:127.0.0.1"),
        *(*arguments, url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"curl {path}: exit {process.returncode}: {err!r} {out!r}"
    return _parse(out)


def _parse(out: bytes) -> Answer:
    head, _, body = out.partition(b"\r\n\r\n")
    while head.split(b" ")[1].startswith(b"1"):
        head, _, body = body.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        name = name.lower()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return Answer(int(first.split(" ")[1]), headers, body)


def http_route(name: str, rules: str, *, hostnames: str = "[]", listener: str = "web") -> str:
    """An HTTPRoute of namespace ``app``; ``rules`` is in YAML's flow style."""
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
        f"metadata: {{name: {name}, namespace: app}}\n"
        f"spec:\n  parentRefs: [{{namespace: infra, name: gw, sectionName: {listener}}}]\n"
        f"  hostnames: {hostnames}\n  rules: {rules}\n"
    )
