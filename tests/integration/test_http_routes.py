"""HTTPRoutes from manifest to traffic: every field of a rule, seen by curl and real servers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from federation.cli.lab.authority import Authority
from tests.native.support import backends, call, channel
from tests.testkit import standalone as kit
from tests.testkit.http_echo import (
    VERSIONS,
    Answer,
    EchoServer,
    curl,
    curl_exit,
    http_route,
    http_servers,
)
from tests.testkit.ports import free_port


def to(*names: str) -> str:
    refs = ", ".join(f"{{name: {name}, port: 9090}}" for name in names)
    return f"backendRefs: [{refs}]"


@dataclass
class Web:
    """A gateway with an HTTP listener and servers behind it."""

    port: int
    running: kit.Standalone
    servers: dict[str, EchoServer]

    async def get(self, path: str = "/", *arguments: str, host: str = "example.com") -> Answer:
        return await curl(self.port, path, *arguments, host=host)

    async def server(self, path: str = "/", *arguments: str, host: str = "example.com") -> str:
        """Who answers; a number is the gateway's own status."""
        answer = await self.get(path, *arguments, host=host)
        return answer.server or str(answer.status)


@contextlib.asynccontextmanager
async def web(
    folder: Path, *documents: str, names: tuple[str, ...] = ("a", "b")
) -> AsyncIterator[Web]:
    port = free_port()
    async with http_servers(*names) as servers:
        base = [
            kit.gateway(kit.plain(port, "web")),
            *(kit.service(server.name, server.port) for server in servers),
            *documents,
        ]
        async with kit.standalone(folder, base) as running:
            await running.until_said("listening")
            yield Web(port, running, {server.name: server for server in servers})


MATCHES = (
    f"[{{matches: [{{path: {{type: Exact, value: /exact}}}}], {to('a')}}}, "
    f"{{matches: [{{path: {{value: /prefix/}}}}], {to('a')}}}, "
    f"{{matches: [{{path: {{type: RegularExpression, value: '/re[0-9]+/.*'}}}}], {to('a')}}}, "
    f"{{matches: [{{path: {{value: /method}}, method: POST}}], {to('a')}}}, "
    f"{{matches: [{{path: {{value: /q}}, queryParams: [{{name: page, value: '2'}}, "
    f"{{name: sort, type: RegularExpression, value: 'a|d'}}]}}], {to('a')}}}, "
    f"{{matches: [{{path: {{value: /h}}, headers: [{{name: Version, value: two}}, "
    f"{{name: color, type: RegularExpression, value: 'b.*'}}]}}, "
    f"{{path: {{value: /h}}, headers: [{{name: any, value: way}}]}}], {to('a')}}}]"
)


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_kind_of_match(tmp_path: Path, version: str) -> None:
    async with web(tmp_path, http_route("matches", MATCHES)) as site:
        for path, arguments, expected in [
            ("/exact", (), "a"),
            ("/exact?q=1", (), "a"),
            ("/exact/", (), "404"),
            ("/prefix", (), "a"),
            ("/prefix/", (), "a"),
            ("/prefix/x", (), "a"),
            ("/prefixed", (), "404"),
            ("/re12/x", (), "a"),
            ("/re/x", (), "404"),
            ("/method", ("-X", "POST"), "a"),
            ("/method", (), "404"),
            ("/q?sort=d&page=2", (), "a"),
            ("/q?sort=c&page=2", (), "404"),
            ("/q?sort=d", (), "404"),
            ("/h", ("-H", "version: two", "-H", "Color: blue"), "a"),
            ("/h", ("-H", "version: two"), "404"),
            ("/h", ("-H", "any: way"), "a"),
        ]:
            assert await site.server(path, version, *arguments) == expected, (path, arguments)
        unmatched = await site.get("/nowhere", version)
        assert unmatched.headers["content-type"] == "text/plain; charset=utf-8"
        assert b"no route for host `example.com" in unmatched.body
        head = await site.get("/nowhere", version, "--head")
        assert (head.status, head.body) == (404, b"")


async def test_precedence_of_matches(tmp_path: Path) -> None:
    # The Gateway API: exact, longest prefix, method, headers, parameters; then the first rule.
    rules = (
        f"[{{matches: [{{path: {{value: /}}}}], {to('default')}}}, "
        "{matches: [{path: {value: /a}, headers: [{name: x, value: y}]}], "
        f"{to('header')}}}, "
        f"{{matches: [{{path: {{value: /a}}, method: GET}}], {to('method')}}}, "
        f"{{matches: [{{path: {{value: /a}}, queryParams: [{{name: q, value: '1'}}]}}], "
        f"{to('query')}}}, "
        f"{{matches: [{{path: {{value: /a/b}}}}], {to('longer')}}}, "
        f"{{matches: [{{path: {{type: RegularExpression, value: /a/.*}}}}], {to('regex')}}}, "
        f"{{matches: [{{path: {{type: Exact, value: /a/b}}}}], {to('exact')}}}]"
    )
    names = ("default", "header", "method", "query", "longer", "regex", "exact")
    async with web(tmp_path, http_route("ranks", rules), names=names) as site:
        assert await site.server("/a/b") == "exact"
        assert await site.server("/a/b/c") == "regex"
        assert await site.server("/a", "-H", "x: y") == "method"
        assert await site.server("/a?q=1", "-H", "x: y", "-X", "PUT") == "header"
        assert await site.server("/a?q=1", "-X", "PUT") == "query"
        assert await site.server("/a", "-X", "PUT") == "default"


async def test_hostnames_and_the_longest_first(tmp_path: Path) -> None:
    documents = (
        http_route("one", f"[{{{to('a')}}}]", hostnames="['*.example.com']"),
        http_route("two", f"[{{{to('b')}}}]", hostnames="[b.example.com]"),
    )
    async with web(tmp_path, *documents) as site:
        assert await site.server(host="b.example.com") == "b"
        assert await site.server(host="c.example.com") == "a"
        assert await site.server(host="d.c.example.com") == "a"
        assert await site.server(host="example.com") == "404"


@pytest.mark.parametrize("version", VERSIONS)
async def test_headers_are_changed_by_rule_and_by_backend(tmp_path: Path, version: str) -> None:
    def change(kind: str, mark: str) -> str:
        field = kind[0].lower() + kind[1:]
        return (
            f"{{type: {kind}, {field}: {{set: [{{name: x-set, value: {mark}}}], "
            f"add: [{{name: x-add, value: {mark}}}], remove: [x-gone-{mark}]}}}}"
        )

    both = ", ".join(
        change(kind, "rule") for kind in ("RequestHeaderModifier", "ResponseHeaderModifier")
    )
    of_backend = change("RequestHeaderModifier", "backend")
    rules = (
        f"[{{filters: [{both}], backendRefs: [{{name: a, port: 9090, filters: [{of_backend}]}}]}}]"
    )
    async with web(tmp_path, http_route("changes", rules)) as site:
        sent = ("-H", "x-set: mine", "-H", "x-gone-rule: 1", "-H", "x-gone-backend: 1")
        answer = await site.get("/", version, *sent)
        headers = answer.asked["headers"]
        assert headers["x-set"] == "backend"
        assert "x-gone-rule" not in headers
        assert "x-gone-backend" not in headers
        assert (answer.headers["x-set"], answer.headers["x-add"]) == ("rule", "rule")


def redirect(fields: str, match: str = "{path: {value: /}}") -> str:
    return (
        f"[{{matches: [{match}], "
        f"filters: [{{type: RequestRedirect, requestRedirect: {{{fields}}}}}]}}]"
    )


@pytest.mark.parametrize(
    ("fields", "status", "location"),
    [
        ("hostname: other.org", 302, "http://other.org:{port}/old/page?q=1"),
        ("scheme: https", 302, "https://example.com/old/page?q=1"),
        ("scheme: https, port: 8443", 302, "https://example.com:8443/old/page?q=1"),
        ("port: 80, statusCode: 301", 301, "http://example.com/old/page?q=1"),
        ("port: 8081", 302, "http://example.com:8081/old/page?q=1"),
        (
            "path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 303",
            303,
            "http://example.com:{port}/new?q=1",
        ),
        (
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 307",
            307,
            "http://example.com:{port}/new/page?q=1",
        ),
        (
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}, statusCode: 308",
            308,
            "http://example.com:{port}/page?q=1",
        ),
    ],
)
async def test_redirects(tmp_path: Path, fields: str, status: int, location: str) -> None:
    rules = redirect(fields, "{path: {value: /old}}")
    async with web(tmp_path, http_route("redirect", rules)) as site:
        for version in VERSIONS:
            answer = await site.get("/old/page?q=1", version)
            assert answer.status == status
            assert answer.headers["location"] == location.format(port=site.port)


@pytest.mark.parametrize(
    ("fields", "match", "path", "expected"),
    [
        ("hostname: inner.local", "/", "/a?b", ("inner.local", "/a?b")),
        (
            "path: {type: ReplaceFullPath, replaceFullPath: /one}",
            "/",
            "/any/thing?q=1",
            (None, "/one?q=1"),
        ),
        (
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /xyz}",
            "/foo",
            "/foo/bar?q=/foo",
            (None, "/xyz/bar?q=/foo"),
        ),
        (
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /xyz/}",
            "/foo",
            "/foo",
            (None, "/xyz"),
        ),
        (
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}",
            "/foo",
            "/foo/bar",
            (None, "/bar"),
        ),
        ("path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}", "/foo", "/foo", (None, "/")),
        ("path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}", "/", "/bar", (None, "/x/bar")),
    ],
)
async def test_rewrites(
    tmp_path: Path, fields: str, match: str, path: str, expected: tuple[str | None, str]
) -> None:
    rules = (
        f"[{{matches: [{{path: {{value: {match}}}}}], "
        f"filters: [{{type: URLRewrite, urlRewrite: {{{fields}}}}}], {to('a')}}}]"
    )
    async with web(tmp_path, http_route("rewrite", rules)) as site:
        for version in VERSIONS:
            asked = (await site.get(path, version)).asked
            host, to_path = expected
            assert asked["path"] == to_path
            assert asked["host"].partition(":")[0] == (host or "example.com")


async def test_weights_divide_requests(tmp_path: Path) -> None:
    refs = "backendRefs: [{name: a, port: 9090, weight: 3}, {name: b, port: 9090, weight: 1}]"
    async with web(tmp_path, http_route("split", f"[{{{refs}}}]")) as site:
        urls = [f"http://127.0.0.1:{site.port}/[1-400]"]
        process = await asyncio.create_subprocess_exec(
            "curl", "-s", "-o", "/dev/null", *urls, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
        counts = Counter({name: len(server.seen) for name, server in site.servers.items()})
        assert counts.total() == 400
        assert 240 < counts["a"] < 360


async def test_mirrors_get_a_copy(tmp_path: Path) -> None:
    rules = (
        "[{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 9090}}}], "
        f"{to('a')}}}]"
    )
    async with web(tmp_path, http_route("mirror", rules)) as site:
        assert await site.server("/copied", "--data", "twice") == "a"
        await kit.until(lambda: site.servers["b"].seen, "the mirror is asked")
        assert site.servers["b"].seen == ["/copied"]
        await kit.until(lambda: site.servers["b"].bodies, "with the body")
        assert site.servers["b"].bodies == [b"twice"]


CORS = (
    "{type: CORS, cors: {allowOrigins: ['https://*.example.com', 'http://b'], "
    "allowMethods: [PUT], allowHeaders: [X-Mine], exposeHeaders: [x-server], "
    "allowCredentials: true, maxAge: 60}}"
)


@pytest.mark.parametrize("version", VERSIONS)
async def test_cors(tmp_path: Path, version: str) -> None:
    rules = (
        f"[{{filters: [{CORS}], timeouts: {{request: 300ms}}, {to('a')}}}, "
        f"{{matches: [{{path: {{value: /gone}}}}], filters: [{CORS}], {to('gone')}}}]"
    )
    async with web(tmp_path, http_route("cors", rules)) as site:
        origin = ("-H", "origin: https://app.example.com")
        asks = ("-X", "OPTIONS", "-H", "access-control-request-method: PUT")
        asks = (*asks, "-H", "access-control-request-headers: x-mine")
        question = await site.get("/", version, *origin, *asks)
        assert (question.status, question.server) == (200, "")
        allowed = {
            name.removeprefix("access-control-"): value
            for name, value in question.headers.items()
            if name.startswith("access-control-")
        }
        assert allowed == {
            "allow-origin": "https://app.example.com",
            "allow-credentials": "true",
            "allow-methods": "PUT",
            "allow-headers": "x-mine",
            "max-age": "60",
            "expose-headers": "x-server",
        }
        answer = await site.get("/", version, *origin)
        assert answer.server == "a"
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        assert answer.headers["access-control-expose-headers"] == "x-server"
        own = await site.get("/gone", version, *origin)
        assert own.status == 500
        assert own.headers["access-control-allow-origin"] == "https://app.example.com"
        site.servers["a"].hang = 1
        late = await site.get("/", version, *origin)
        assert late.status == 504
        assert late.headers["access-control-allow-origin"] == "https://app.example.com"
        foreign = await site.get("/", version, "-H", "origin: https://evil.org", *asks)
        assert (foreign.status, foreign.server) == (200, "")
        assert not [name for name in foreign.headers if name.startswith("access-control-")]


async def test_the_time_for_a_request_and_for_a_try(tmp_path: Path) -> None:
    rules = (
        f"[{{matches: [{{path: {{value: /whole}}}}], timeouts: {{request: 300ms}}, {to('a')}}}, "
        "{matches: [{path: {value: /try}}], timeouts: {request: 10s, backendRequest: 300ms}, "
        f"retry: {{attempts: 1, backoff: 1ms}}, {to('a')}}}]"
    )
    async with web(tmp_path, http_route("times", rules)) as site:
        server = site.servers["a"]
        for version in VERSIONS:
            server.hang = 1
            late = await site.get("/whole", version)
            assert late.status == 504
            assert b"300 ms" in late.body
            server.hang = 1
            assert await site.server("/try", version) == "a", "the second try answers"


async def test_an_answer_that_stops_ends_as_a_broken_one(tmp_path: Path) -> None:
    rules = f"[{{timeouts: {{request: 300ms}}, {to('a')}}}]"
    async with web(tmp_path, http_route("times", rules)) as site:
        site.servers["a"].stall = True
        partial_file, stream_error = 18, 92
        assert await curl_exit(site.port, "/", VERSIONS[0]) == partial_file
        assert await curl_exit(site.port, "/", VERSIONS[1]) == stream_error


async def test_retries_by_status_and_at_failed_connections(tmp_path: Path) -> None:
    rules = (
        f"[{{matches: [{{path: {{value: /codes}}}}], retry: {{codes: [500, 409], attempts: 2, "
        f"backoff: 1ms}}, {to('a')}}}, "
        f"{{matches: [{{path: {{value: /none}}}}], {to('a')}}}]"
    )
    async with web(tmp_path, http_route("retry", rules)) as site:
        server = site.servers["a"]
        server.answers = [500, 409]
        assert (await site.get("/codes", "--data", "kept")).status == 200
        assert server.bodies == [b"kept"] * 3
        server.answers = [500, 500, 500]
        assert (await site.get("/codes")).status == 500
        server.answers = [503]
        failed = await site.get("/codes")
        assert (failed.status, failed.server) == (503, "a"), "503 is not listed"
        server.answers = [500]
        passed_on = await site.get("/none")
        assert (passed_on.status, passed_on.asked["path"]) == (500, "/none")


async def test_failing_servers_are_ejected_by_status(tmp_path: Path) -> None:
    port = free_port()
    policy = kit.policy("web", "circuitBreaker: {consecutiveFailures: 3, baseEjectionTime: 60s}")
    policy = policy.replace("kind: GRPCRoute", "kind: HTTPRoute")
    async with http_servers("good", "bad") as (good, bad):
        bad.answers = [500] * 1000
        base = [
            kit.gateway(kit.plain(port, "web")),
            kit.service("both", good.port, bad.port),
            http_route("web", f"[{{{to('both')}}}]"),
            policy,
        ]
        async with kit.standalone(tmp_path, base) as running:
            await running.until_said("listening")
            answers = [(await curl(port, "/")).status for _ in range(40)]
            assert answers.count(500) == 3
            assert running.numbers()["ejections"] == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_does_not_resolve_is_answered_500(tmp_path: Path, version: str) -> None:
    gone = "{name: gone, port: 9090}"
    rules = (
        f"[{{matches: [{{path: {{value: /all}}}}], backendRefs: [{gone}]}}, "
        "{matches: [{path: {value: /half}}], "
        f"backendRefs: [{gone}, {{name: a, port: 9090}}]}}, "
        "{matches: [{path: {value: /nothing}}]}, "
        "{matches: [{path: {value: /zero}}], backendRefs: [{name: a, port: 9090, weight: 0}]}, "
        f"{{matches: [{{path: {{value: /empty}}}}], {to('empty')}}}]"
    )
    documents = (http_route("broken", rules), kit.service("empty"))
    async with web(tmp_path, *documents) as site:
        assert [await site.server(path, version) for path in ("/all", "/nothing", "/zero")] == (
            ["500"] * 3
        )
        half = Counter([await site.server("/half", version) for _ in range(40)])
        assert set(half) == {"a", "500"}
        assert await site.server("/empty", version) == "503", "there, but without endpoints"


async def test_sessions_stay_with_one_server(tmp_path: Path) -> None:
    rules = f"[{{sessionPersistence: {{sessionName: sid}}, {to('a', 'b')}}}]"
    async with web(tmp_path, http_route("session", rules)) as site:
        first = await site.get("/")
        cookie = first.headers["set-cookie"].partition(";")[0]
        later = {await site.server("/", "-H", f"cookie: {cookie}") for _ in range(12)}
        assert later == {first.server}


def http_policy(*fields: str) -> str:
    return kit.policy("web", *fields).replace("kind: GRPCRoute", "kind: HTTPRoute")


@pytest.mark.parametrize("version", VERSIONS)
async def test_policies_answer_in_http(tmp_path: Path, version: str) -> None:
    documents = (
        http_route("web", f"[{{{to('a')}}}]"),
        http_policy(
            "faultInjection: {abort: {httpStatus: 418, percentage: 100}}",
            "rateLimit: {type: Local, local: {rules: [{limit: {requestsPerUnit: 2, unit: Hour}}]}}",
        ),
    )
    async with web(tmp_path, *documents) as site:
        first = [await site.get("/", version) for _ in range(2)]
        assert [answer.status for answer in first] == [418, 418]
        over = await site.get("/", version)
        assert over.status == 429
        assert int(over.headers["retry-after"]) > 0
        assert not site.servers["a"].seen


async def test_calls_of_grpc_pass_an_http_route(tmp_path: Path) -> None:
    port = free_port()
    rules = (
        "[{matches: [{path: {value: /test.Echo}}], backendRefs: [{name: rpc, port: 9090}]}, "
        "{matches: [{path: {value: /gone}}], backendRefs: [{name: none, port: 9090}]}]"
    )
    with backends("rpc") as [backend]:
        spoken = kit.service("rpc", int(backend.address.rpartition(":")[2]))
        spoken = spoken.replace("port: 9090}]", "port: 9090, appProtocol: kubernetes.io/h2c}]")
        base = [kit.gateway(kit.plain(port, "web")), spoken, http_route("web", rules)]
        async with kit.standalone(tmp_path, base) as running:
            await running.until_said("listening")

            def calls() -> tuple[tuple[bytes, str], set[grpc.StatusCode]]:
                with channel(f"127.0.0.1:{port}") as client:
                    codes = set()
                    for path in ("/gone/Call", "/nowhere/Call"):
                        with pytest.raises(grpc.RpcError) as error:
                            client.unary_unary(path)(b"", timeout=10)
                        codes.add(error.value.code())
                    return call(client), codes

            answer, codes = await asyncio.to_thread(calls)
            assert answer == (b"hi", "rpc")
            assert codes == {grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED}


async def test_over_tls_in_both_versions(tmp_path: Path) -> None:
    authority = Authority("web")
    pair = authority.issue("example.com", dns=("example.com",))
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    data = ", ".join(
        f"{name}: {base64.b64encode(value).decode()}"
        for name, value in {"tls.crt": pair.certificate_pem, "tls.key": pair.key_pem}.items()
    )
    port = free_port()
    async with http_servers("a") as (server,):
        base = [
            kit.gateway(
                f"{{name: web, port: {port}, protocol: HTTPS, tls: {{certificateRefs: "
                "[{name: cert}]}, allowedRoutes: {namespaces: {from: All}}}"
            ),
            (
                "apiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: infra}\n"
                f"type: kubernetes.io/tls\ndata: {{{data}}}\n"
            ),
            kit.service("a", server.port),
            http_route(
                "web",
                f"[{{matches: [{{path: {{value: /page}}}}], {to('a')}}}, "
                "{matches: [{path: {value: /port}}], filters: "
                "[{type: RequestRedirect, requestRedirect: {port: 443}}]}]",
            ),
        ]
        async with kit.standalone(manifests, base) as running:
            await running.until_said("listening")
            trust = ("--cacert", str(tmp_path / "ca.pem"))
            for version in ("--http1.1", "--http2"):
                answer = await curl(port, "/page", version, *trust, scheme="https")
                assert (answer.status, answer.server) == (200, "a")
                moved = await curl(port, "/port", version, *trust, scheme="https")
                assert moved.headers["location"] == "https://example.com/port"
