"""GRPCRoutes from manifest to traffic: every kind of match, filter and attachment."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from tests.native.support import Backend, backends, channel
from tests.testkit import standalone as kit
from tests.testkit.http_echo import curl, http_route
from tests.testkit.ports import free_port


@dataclass
class Site:
    """A gateway with a listener for gRPC, and a client of it."""

    port: int
    running: kit.Standalone
    servers: dict[str, Backend]

    async def call(self, path: str, *headers: tuple[str, str], host: str = "example.com") -> str:
        """Who answers, or the name of the error's code."""

        def calls() -> str:
            options = [("grpc.default_authority", host)]
            with channel(f"127.0.0.1:{self.port}", options=options) as client:
                try:
                    _, state = client.unary_unary(path).with_call(
                        b"hi", metadata=headers, timeout=10
                    )
                except grpc.RpcError as error:
                    return str(error.code().name)
                return str(dict(state.initial_metadata())["x-served-by"])

        return await asyncio.to_thread(calls)

    async def becomes(self, path: str, expected: str) -> None:
        """Return once a call is answered so."""

        async def answered() -> bool:
            return await self.call(path) == expected

        await kit.until_async(answered, f"{path} is answered by {expected}")


@contextlib.asynccontextmanager
async def site(
    folder: Path, *documents: str, names: tuple[str, ...] = ("a", "b"), listener: str = ""
) -> AsyncIterator[Site]:
    port = free_port()
    with backends(*names) as servers:
        base = [
            kit.gateway(listener.replace("PORT", str(port)) or kit.plain(port)),
            *(kit.service(it.name, int(it.address.rpartition(":")[2])) for it in servers),
        ]
        async with kit.standalone(folder, base) as running:
            running.apply("routes.yaml", *documents)
            await running.until_said("listening")
            yield Site(port, running, {server.name: server for server in servers})


def rule(backend: str, *matches: str, more: str = "") -> str:
    listed = f"matches: [{', '.join(matches)}], " if matches else ""
    return f"{{{listed}{more}backendRefs: [{{name: {backend}, port: 9090}}]}}"


async def test_every_kind_of_match_by_its_precedence(tmp_path: Path) -> None:
    rules = ", ".join(
        (
            rule("rest", "{method: {service: p.Rest}}"),
            rule("exact", "{method: {service: p.Users, method: Unary}}"),
            rule("service", "{method: {service: p.Users}}"),
            rule("method", "{method: {method: ClientStream}}"),
            rule("regex", "{method: {type: RegularExpression, service: 'p[.]R.*', method: U.*}}"),
            rule("header", "{headers: [{name: Version, value: two}]}"),
            rule(
                "headers",
                "{headers: [{name: version, value: two}, "
                "{name: color, type: RegularExpression, value: 'b.*'}]}",
                "{headers: [{name: any, value: way}]}",
            ),
        )
    )
    names = ("exact", "service", "method", "regex", "header", "headers", "rest")
    async with site(tmp_path, kit.route("matches", f"[{rules}]"), names=names) as gateway:
        await gateway.becomes("/p.Users/Unary", "exact")
        for path, headers, expected in [
            ("/p.Users/ClientStream", (), "service"),
            ("/q.Other/ClientStream", (), "method"),
            ("/p.Rx/Unary", (), "regex"),
            # The longer text is more specific, whatever its type.
            ("/p.Rest/Unary", (), "regex"),
            ("/p.Rest/ClientStream", (), "rest"),
            ("/p.users/Unary", (), "UNIMPLEMENTED"),
            ("/q.Other/Unary", (), "UNIMPLEMENTED"),
            ("/q.Other/Unary", (("version", "two"),), "header"),
            ("/q.Other/Unary", (("version", "two"), ("color", "blue")), "headers"),
            ("/q.Other/Unary", (("version", "two"), ("color", "red")), "header"),
            ("/q.Other/Unary", (("any", "way"),), "headers"),
            ("/p.Users/Unary", (("version", "two"),), "exact"),
        ]:
            assert await gateway.call(path, *headers) == expected, (path, headers)


async def test_wildcard_hostnames(tmp_path: Path) -> None:
    documents = (
        kit.route("wide", f"[{rule('a')}]", hostnames="['*.example.com']"),
        kit.route("narrow", f"[{rule('b')}]", hostnames="[x.example.com]"),
    )
    async with site(tmp_path, *documents) as gateway:

        async def by(host: str) -> str:
            return await gateway.call("/s/Unary", host=host)

        async def ready() -> bool:
            return await by("x.example.com") == "b"

        await kit.until_async(ready, "the routes are there")
        assert await by("y.example.com") == "a"
        assert await by("z.y.example.com") == "a"
        assert await by("example.com") == "UNIMPLEMENTED"
        assert await by("example.org") == "UNIMPLEMENTED"


def split(first: int, second: int) -> str:
    refs = f"{{name: a, port: 9090, weight: {first}}}, {{name: b, port: 9090, weight: {second}}}"
    return kit.route("split", f"[{{backendRefs: [{refs}]}}]")


async def test_weights_change_under_load_without_a_lost_call(tmp_path: Path) -> None:
    answers: Counter[str] = Counter()
    ended = asyncio.Event()
    async with site(tmp_path, split(1_000_000, 0)) as gateway:
        await gateway.becomes("/s/Unary", "a")

        async def load() -> None:
            while not ended.is_set():
                answers[await gateway.call("/s/Unary")] += 1

        callers = [asyncio.create_task(load()) for _ in range(4)]
        for first, second, expected in [(0, 1_000_000, "b"), (1, 0, "a"), (0, 1, "b")]:
            gateway.running.apply("routes.yaml", split(first, second))
            await gateway.becomes("/s/Unary", expected)
        gateway.running.apply("routes.yaml", split(1_000_000, 1_000_000))
        seen = len(gateway.servers["a"].seen)
        await kit.until(lambda: len(gateway.servers["a"].seen) > seen + 5, "both are called")
        ended.set()
        await asyncio.gather(*callers)
    assert set(answers) == {"a", "b"}, "no call failed"


async def test_headers_are_changed_at_rule_and_backend(tmp_path: Path) -> None:
    def changes(mark: str) -> str:
        return (
            "{type: RequestHeaderModifier, requestHeaderModifier: "
            f"{{set: [{{name: x-set, value: {mark}}}], add: [{{name: x-{mark}, value: added}}], "
            f"remove: [x-gone-{mark}]}}}}"
        )

    rules = (
        f"[{{name: changing, filters: [{changes('rule')}], "
        f"backendRefs: [{{name: a, port: 9090, filters: [{changes('backend')}]}}]}}]"
    )
    async with site(tmp_path, kit.route("changes", rules)) as gateway:
        await gateway.becomes("/s/Unary", "a")
        gone = (("x-gone-rule", "1"), ("x-gone-backend", "1"), ("x-set", "mine"))
        assert await gateway.call("/s/Unary", *gone) == "a"
        seen = gateway.servers["a"].seen[-1]
        assert seen["x-set"] == "backend"
        assert (seen["x-rule"], seen["x-backend"]) == ("added", "added")
        assert not {"x-gone-rule", "x-gone-backend"} & set(seen)


async def test_what_is_not_known_loses_no_object(tmp_path: Path) -> None:
    extension = "{type: ExtensionRef, extensionRef: {group: x.io, kind: Wasm, name: w}}"
    rules = ", ".join(
        (
            rule("a", "{method: {service: good}}"),
            rule("a", "{method: {type: Soundex, service: odd}}"),
            rule("a", "{method: {service: ext}}", more=f"filters: [{extension}], "),
            rule("a", "{method: {service: warp}}", more="filters: [{type: Teleport}], "),
        )
    )
    bad = kit.route("bad", f"[{rule('a', more='filters: [{type: Teleport}], ')}]")
    bad = bad.replace("hostnames: []", "hostnames: [bad.example.com]")
    async with site(tmp_path, kit.route("mixed", f"[{rules}]"), bad) as gateway:
        await gateway.becomes("/good/Unary", "a")
        assert await gateway.call("/odd/Unary") == "UNIMPLEMENTED"
        assert await gateway.call("/ext/Unary") == "UNAVAILABLE", "never without its filter"
        assert await gateway.call("/warp/Unary") == "UNAVAILABLE"
        assert await gateway.call("/s/Unary", host="bad.example.com") == "UNAVAILABLE"
        await gateway.running.until_said("UnsupportedValue")
        said = "\n".join(gateway.running.said)
        assert "spec.rules[0].filters[0].type: Teleport is not supported" in said


NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: app, labels: {LABELS}}\n"
SELECTED = (
    "{name: grpc, port: PORT, protocol: HTTP, allowedRoutes: {namespaces: "
    "{from: Selector, SELECTOR}}}"
)


async def test_labels_of_a_namespace_open_and_close_a_listener(tmp_path: Path) -> None:
    selectors = (
        'selector: {matchLabels: {internal: "yes"}}',
        "selector: {matchExpressions: [{key: internal, operator: In, values: ['yes', 'sure']}]}",
        'selectorLabels: {internal: "yes"}',
        'selector: {selectorLabels: {internal: "yes"}}',
    )
    for position, selector in enumerate(selectors):
        folder = tmp_path / str(position)
        folder.mkdir()
        listener = SELECTED.replace("SELECTOR", selector)
        route = kit.route("open", f"[{rule('a')}]")
        async with site(folder, route, listener=listener) as gateway:
            await gateway.becomes("/s/Unary", "UNIMPLEMENTED")
            gateway.running.apply("ns.yaml", NAMESPACE.replace("LABELS", 'internal: "yes"'))
            await gateway.becomes("/s/Unary", "a")
            gateway.running.apply("ns.yaml", NAMESPACE.replace("LABELS", 'internal: "no"'))
            await gateway.becomes("/s/Unary", "UNIMPLEMENTED")


async def test_a_listener_takes_routes_of_its_namespace_and_kinds(tmp_path: Path) -> None:
    for position, (allowed, expected) in enumerate(
        (
            ("{namespaces: {from: Same}}", "UNIMPLEMENTED"),
            ("{namespaces: {from: All}}", "a"),
            ("{namespaces: {from: All}, kinds: [{kind: HTTPRoute}]}", "UNIMPLEMENTED"),
            ("{namespaces: {from: All}, kinds: [{kind: HTTPRoute}, {kind: GRPCRoute}]}", "a"),
        )
    ):
        folder = tmp_path / str(position)
        folder.mkdir()
        listener = f"{{name: grpc, port: PORT, protocol: HTTP, allowedRoutes: {allowed}}}"
        async with site(folder, kit.route("r", f"[{rule('a')}]"), listener=listener) as gateway:
            await gateway.becomes("/s/Unary", expected)


async def test_requests_of_http_get_answers_of_http(tmp_path: Path) -> None:
    async with site(
        tmp_path, kit.route("r", f"[{rule('a', '{method: {service: s}}')}]")
    ) as gateway:
        await gateway.becomes("/s/Unary", "a")
        two = "--http2-prior-knowledge"
        answer = await curl(gateway.port, "/s/Unary", two, "-H", "content-type: application/json")
        assert answer.status == 415
        assert (await curl(gateway.port, "/other", two)).status == 404


async def test_of_two_kinds_for_a_host_the_older_is_served(tmp_path: Path) -> None:
    grpc_route = kit.route("r", f"[{rule('a')}]")
    web = http_route("w", f"[{rule('b')}]", listener="grpc")
    async with site(tmp_path, grpc_route, web) as gateway:
        await gateway.becomes("/s/Unary", "a")
        await gateway.running.until_said("GRPCRoutes and HTTPRoutes cannot share a host")
        assert (await curl(gateway.port, "/", "--http2-prior-knowledge")).status == 415
        gateway.running.apply("routes.yaml", web)

        async def taken_over() -> bool:
            # Its backend speaks gRPC alone: what the HTTPRoute sends there in HTTP/1.1 fails.
            return (await curl(gateway.port, "/")).status == 503

        await kit.until_async(taken_over, "the HTTPRoute has the host")
