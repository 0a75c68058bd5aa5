"""HTTPRoutes in a stock Envoy and in our gateway: the same requests get the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format

from federation.derive.compile import CompileSettings
from federation.wire.xds import to_resources
from federation.wire.xds_listeners import NodeView
from tests.contract.test_envoy_accepts import bootstrap
from tests.contract.test_envoy_routes import envoy
from tests.testkit import standalone as kit
from tests.testkit.http_echo import VERSIONS, Answer, curl, http_route, http_servers
from tests.testkit.ports import free_port
from tests.testkit.routing import compiled, parse


def rule(match: str, *, filters: str = "", more: str = "", backend: str = "a") -> str:
    refs = f"backendRefs: [{{name: {backend}, port: 9090}}]" if backend else ""
    parts = [f"matches: [{{{match}}}]", f"filters: [{filters}]" if filters else "", more, refs]
    return f"{{{', '.join(part for part in parts if part)}}}"


def redirect(fields: str) -> str:
    return f"{{type: RequestRedirect, requestRedirect: {{{fields}}}}}"


def rewrite(fields: str) -> str:
    return f"{{type: URLRewrite, urlRewrite: {{{fields}}}}}"


def prefix(by: str) -> str:
    return f"path: {{type: ReplacePrefixMatch, replacePrefixMatch: {by}}}"


CORS = (
    "{type: CORS, cors: {allowOrigins: ['https://*.example.com'], allowMethods: [PUT], "
    "allowHeaders: [x-mine], exposeHeaders: [x-server], allowCredentials: true, maxAge: 60}}"
)
RULES = (
    rule("path: {type: Exact, value: /exact}"),
    rule("path: {value: /prefix/}"),
    rule("path: {type: RegularExpression, value: '/re[0-9]+/.*'}"),
    rule("path: {value: /m}, method: POST"),
    rule("path: {value: /q}, queryParams: [{name: page, value: '2'}]"),
    rule("path: {value: /to-host}", filters=redirect("hostname: b.org"), backend=""),
    rule("path: {value: /to-tls}", filters=redirect("scheme: https, statusCode: 308"), backend=""),
    rule("path: {value: /to-port}", filters=redirect("port: 8081, statusCode: 301"), backend=""),
    rule("path: {value: /to-prefix}", filters=redirect(f"{prefix('/x')}"), backend=""),
    rule("path: {value: /to-root}", filters=redirect(f"{prefix('/')}"), backend=""),
    rule(
        "path: {value: /to-full}",
        filters=redirect("path: {type: ReplaceFullPath, replaceFullPath: /one}, statusCode: 303"),
        backend="",
    ),
    rule("path: {value: /by-host}", filters=rewrite("hostname: inner.local")),
    rule("path: {value: /by-prefix}", filters=rewrite(prefix("/x/"))),
    rule("path: {value: /by-root}", filters=rewrite(prefix("/"))),
    rule(
        "path: {value: /by-full}",
        filters=rewrite("path: {type: ReplaceFullPath, replaceFullPath: /one}"),
    ),
    rule("path: {value: /cors}", filters=CORS),
    rule("path: {value: /gone}", backend="gone"),
    rule("path: {value: /slow}", more="timeouts: {request: 200ms}", backend="slow"),
    rule("path: {value: /retried}", more="retry: {codes: [500], attempts: 1, backoff: 1ms}"),
)
PREFLIGHT = (
    *("-X", "OPTIONS", "-H", "origin: https://x.example.com"),
    *("-H", "access-control-request-method: PUT", "-H", "access-control-request-headers: x-mine"),
)
FOREIGN_PREFLIGHT = ("-X", "OPTIONS", "-H", "origin: https://x.example.org", *PREFLIGHT[4:])
REQUESTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *(
        (path, ())
        for path in ("/exact", "/exact?q", "/exact/", "/prefix", "/prefix/a", "/prefixed")
    ),
    *((path, ()) for path in ("/re1/x", "/re/x", "/m", "/q", "/q?page=2&x=y", "/q?page=20")),
    ("/m", ("-X", "POST")),
    *((f"/to-{name}/a?b=c", ()) for name in ("host", "tls", "port", "prefix", "root", "full")),
    *((path, ()) for path in ("/to-prefix", "/to-root", "/to-root/")),
    *((f"/by-{name}/a?b=c", ()) for name in ("host", "prefix", "root", "full")),
    *((path, ()) for path in ("/by-prefix", "/by-root", "/by-root/")),
    ("/cors", PREFLIGHT),
    ("/cors", FOREIGN_PREFLIGHT),
    ("/cors", ("-H", "origin: https://x.example.com")),
    ("/cors", ("-H", "origin: https://example.com")),
    ("/gone", ()),
    ("/slow", ()),
    ("/retried", ("-H", "x-fail: once")),
)
COMPARED = ("location", "x-server")


def said(answer: Answer) -> dict[str, object]:
    """What is compared of an answer: not its wording, not ports that differ."""
    found: dict[str, object] = {"status": answer.status}
    found |= {name: answer.headers.get(name) for name in COMPARED}
    if "access-control-allow-origin" in answer.headers:  # the others mean nothing without it
        found |= {
            name: value
            for name, value in answer.headers.items()
            if name.startswith("access-control-")
        }
    if answer.server:
        found |= {"path": answer.asked["path"], "host": answer.asked["host"].partition(":")[0]}
    return found


@pytest.mark.parametrize("version", VERSIONS)
async def test_envoy_and_the_gateway_answer_alike(tmp_path: Path, version: str) -> None:
    port, of_envoy = free_port(), free_port()
    async with http_servers("a", "slow") as (server, slow):
        slow.hang = 1000
        documents = [
            kit.gateway(kit.plain(port, "web")),
            kit.service("a", server.port),
            kit.service("slow", slow.port),
            http_route("web", f"[{', '.join(RULES[:12])}]"),
            http_route("web-2", f"[{', '.join(RULES[12:])}]"),
        ]
        result = compiled(
            parse("\n---\n".join(documents)), settings=CompileSettings(eastwest_port=None)
        )
        node = NodeView(address="127.0.0.1", port_offset=of_envoy - port)
        config = tmp_path / "envoy.json"
        config.write_text(json_format.MessageToJson(bootstrap(to_resources(result.snapshot, node))))
        folder = tmp_path / "manifests"
        folder.mkdir()
        async with envoy(config), kit.standalone(folder, documents) as running:
            await running.until_said("listening")
            await kit.until_async(lambda: answers(of_envoy), "Envoy listens")
            for path, arguments in REQUESTS:
                spoken = []
                for at in (of_envoy, port):
                    server.answers = [500] if path == "/retried" else []
                    spoken.append(said(await curl(at, path, version, *arguments)))
                theirs, ours = spoken
                assert ours == theirs, (path, arguments)


async def answers(port: int) -> bool:
    try:
        await curl(port, "/exact")
    except AssertionError:
        return False
    return True
