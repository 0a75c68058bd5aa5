"""Session persistence: from a rule to the endpoint that a client's next call finds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc

from tests.native.support import Backend, backends, channel, unary
from tests.testkit import standalone as kit
from tests.testkit.ports import free_port


class Client:
    """A client that keeps nothing by itself: sessions are given to it and told by it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    async def call(self, **headers: str) -> tuple[str, dict[str, str]]:
        """The name of the endpoint that answered, and the response headers."""
        metadata = [(name.replace("_", "-"), value) for name, value in headers.items()]

        def calls() -> tuple[str, dict[str, str]]:
            _, state = unary(self._channel).with_call(b"", timeout=10, metadata=metadata)
            told = dict(state.initial_metadata())
            return str(told["x-served-by"]), told

        return await asyncio.to_thread(calls)

    async def answered_by(self, times: int = 20, **headers: str) -> set[str]:
        return {(await self.call(**headers))[0] for _ in range(times)}


def ports(*servers: Backend) -> list[int]:
    return [int(server.address.rpartition(":")[2]) for server in servers]


def manifests(port: int, servers: Sequence[Backend], session: str) -> list[str]:
    rules = f"[{{sessionPersistence: {session}, backendRefs: [{{name: echo, port: 9090}}]}}]"
    return [
        kit.gateway(kit.plain(port)),
        kit.route("echo", rules),
        kit.service("echo", *ports(*servers)),
    ]


def pair(cookie: str) -> str:
    return cookie.partition(";")[0]


async def test_calls_with_the_cookie_find_the_same_endpoint(tmp_path: Path) -> None:
    port = free_port()
    with backends("a", "b", "c") as servers, channel(f"127.0.0.1:{port}") as opened:
        client = Client(opened)
        base = manifests(port, servers, "{sessionName: sid}")
        async with kit.standalone(tmp_path, base) as running:
            await running.until_said("listening")
            assert await client.answered_by(60) == {"a", "b", "c"}, "without it they spread"
            name, headers = await client.call()
            cookie = headers["set-cookie"]
            assert cookie.startswith("sid=")
            assert cookie.partition(";")[2] == " Path=/; HttpOnly"
            assert await client.answered_by(30, cookie=pair(cookie)) == {name}
            again = await client.call(cookie=f"other=1; {pair(cookie)}; more=2")
            assert again[0] == name
            assert "set-cookie" not in again[1], "the client has what it needs"
            forged = pair(cookie)[:-4] + "0001"
            assert await client.answered_by(60, cookie=forged) == {"a", "b", "c"}
            assert {"a", "b", "c"} == {
                server.name for server in servers if any("cookie" in seen for seen in server.seen)
            }, "the cookies reach the service as they were"


async def test_a_header_carries_the_session_of_clients_without_cookies(tmp_path: Path) -> None:
    port = free_port()
    with backends("a", "b", "c") as servers, channel(f"127.0.0.1:{port}") as opened:
        client = Client(opened)
        base = manifests(port, servers, "{type: Header, sessionName: X-Session}")
        async with kit.standalone(tmp_path, base) as running:
            await running.until_said("listening")
            name, headers = await client.call()
            token = headers["x-session"]
            assert "set-cookie" not in headers
            assert await client.answered_by(30, x_session=token) == {name}


async def test_a_session_outlives_new_endpoints_and_moves_when_its_own_is_gone(
    tmp_path: Path,
) -> None:
    port = free_port()
    with backends("a", "b", "c") as [a, b, c], channel(f"127.0.0.1:{port}") as opened:
        client = Client(opened)
        base = manifests(port, [a], "{sessionName: sid}")
        async with kit.standalone(tmp_path, base[:2]) as running:
            running.apply("service.yaml", base[2])
            await running.until_said("listening")

            async def serves() -> bool:
                try:
                    return bool(await client.call())
                except grpc.RpcError:
                    return False

            await kit.until_async(serves, "the first endpoint serves")
            name, headers = await client.call()
            cookie = pair(headers["set-cookie"])
            assert name == "a"
            running.apply("service.yaml", kit.service("echo", *ports(a, b, c)))

            async def spread() -> bool:
                return await client.answered_by(10) == {"a", "b", "c"}

            await kit.until_async(spread, "the others serve as well")
            assert await client.answered_by(30, cookie=cookie) == {"a"}
            running.apply("service.yaml", kit.service("echo", *ports(b, c)))

            async def moved() -> bool:
                return (await client.call(cookie=cookie))[0] != "a"

            await kit.until_async(moved, "the endpoint is gone, the session is not")
            name, headers = await client.call(cookie=cookie)
            assert await client.answered_by(20, cookie=pair(headers["set-cookie"])) == {name}


async def test_a_session_moves_from_an_endpoint_that_dies_without_a_failed_call(
    tmp_path: Path,
) -> None:
    port = free_port()
    with backends("a", "b") as [a, b], channel(f"127.0.0.1:{port}") as opened:
        client = Client(opened)
        async with kit.standalone(
            tmp_path, manifests(port, [a, b], "{sessionName: sid}")
        ) as running:
            await running.until_said("listening")
            name, headers = await client.call()
            its, other = (a, b) if name == "a" else (b, a)
            await asyncio.to_thread(its.stop)
            assert await client.answered_by(20, cookie=pair(headers["set-cookie"])) == {other.name}


async def test_a_session_outlives_weights_until_its_part_has_none(tmp_path: Path) -> None:
    port = free_port()

    def routed(one: int, two: int) -> str:
        refs = (
            f"[{{name: one, port: 9090, weight: {one}}}, {{name: two, port: 9090, weight: {two}}}]"
        )
        return kit.route(
            "echo", f"[{{sessionPersistence: {{sessionName: sid}}, backendRefs: {refs}}}]"
        )

    with backends("a", "b") as [a, b], channel(f"127.0.0.1:{port}") as opened:
        client = Client(opened)
        base = [
            kit.gateway(kit.plain(port)),
            kit.service("one", *ports(a)),
            kit.service("two", *ports(b)),
        ]
        async with kit.standalone(tmp_path, base) as running:
            running.apply("route.yaml", routed(1, 0))
            await running.until_said("listening")

            async def serves() -> bool:
                try:
                    return (await client.call())[0] == "a"
                except grpc.RpcError:
                    return False

            await kit.until_async(serves, "the route serves")
            cookie = pair((await client.call())[1]["set-cookie"])
            running.apply("route.yaml", routed(1, 99))

            async def shifted() -> bool:
                return await client.answered_by(5) == {"b"}

            await kit.until_async(shifted, "new calls follow the weights")
            assert await client.answered_by(30, cookie=cookie) == {"a"}
            running.apply("route.yaml", routed(0, 1))

            async def moved() -> bool:
                return await client.answered_by(5, cookie=cookie) == {"b"}

            await kit.until_async(moved, "a part without weight keeps no session")


async def test_a_session_ends_by_its_absolute_timeout(tmp_path: Path) -> None:
    port = free_port()
    session = "{sessionName: sid, absoluteTimeout: 2s, cookieConfig: {lifetimeType: Permanent}}"
    with backends("a") as servers, channel(f"127.0.0.1:{port}") as opened:
        client = Client(opened)
        async with kit.standalone(tmp_path, manifests(port, servers, session)) as running:
            await running.until_said("listening")
            given = (await client.call())[1]["set-cookie"]
            assert given.endswith("; Max-Age=2")
            assert "set-cookie" not in (await client.call(cookie=pair(given)))[1]

            async def is_over() -> bool:
                return "set-cookie" in (await client.call(cookie=pair(given)))[1]

            await kit.until_async(is_over, "the client is given a new session")


async def test_a_session_that_is_used_outlives_its_idle_timeout(tmp_path: Path) -> None:
    port = free_port()
    session = "{type: Header, sessionName: x-session, idleTimeout: 2s}"
    with backends("a", "b") as servers, channel(f"127.0.0.1:{port}") as opened:
        client = Client(opened)
        async with kit.standalone(tmp_path, manifests(port, servers, session)) as running:
            await running.until_said("listening")
            name, headers = await client.call()
            first = token = headers["x-session"]

            async def first_is_over() -> bool:
                """Meanwhile the session is used, with the token that was given last."""
                nonlocal token
                answered, told = await client.call(x_session=token)
                assert answered == name
                token = told.get("x-session", token)
                # An old token leads nowhere in particular.
                return (await client.call(x_session=first))[0] != name

            await kit.until_async(first_is_over, "a token that was not renewed ends")
            assert token != first
            assert await client.answered_by(10, x_session=token) == {name}
