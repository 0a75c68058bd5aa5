"""The agent's xDS server and the gateway's shell talking real gRPC over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from federation.discovery import DiscoveryServer, DiscoverySettings
from federation.model.acks import AckView
from federation.model.snapshot import Snapshot
from federation.wire.xds import to_resources
from gateway.agent_feed import AgentFeed
from gateway.runtime import LISTENER_RETRIED, Runtime
from gateway.settings import GatewaySettings
from gateway.status import State
from tests.integration.discovery_support import PaperCore, eventually, snapshot

Server = DiscoveryServer[Snapshot]


class Gateway:
    """A shell's feed and runtime over a core on paper."""

    def __init__(self, agent: str, state_dir: Path) -> None:
        self._start(
            GatewaySettings(
                name="gw-1",
                cluster="us-west-1",
                agent=agent,
                state_dir=state_dir,
                address="127.0.0.1",
                port_offset=20_000,
                eastwest_address="127.0.0.1:15444",
            )
        )

    @classmethod
    def of(cls, settings: GatewaySettings) -> Gateway:
        """A gateway with settings of the test's own."""
        gateway = cls.__new__(cls)
        gateway._start(settings)
        return gateway

    def _start(self, settings: GatewaySettings) -> None:
        self.core = PaperCore()
        self.runtime = Runtime(self.core)
        self.feed = AgentFeed(settings, self.runtime)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        await self.feed.boot()
        self.runtime.on_change = self.feed.changed
        task = asyncio.create_task(self.feed.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    def endpoints(self, upstream: str = "service/app/users/9090") -> list[str]:
        found = self.core.state["endpoints"].get(upstream, {"localities": []})
        return [e["address"] for locality in found["localities"] for e in locality["endpoints"]]


@asynccontextmanager
async def serving(address: str = "127.0.0.1:0", **settings: int) -> AsyncIterator[Server]:
    server: Server = DiscoveryServer(
        DiscoverySettings(cluster="us-west-1", address=address, **settings), render=to_resources
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_a_snapshot_comes_into_force_and_is_acked(tmp_path: Path) -> None:
    async with serving() as server, Gateway(server.address, tmp_path).running() as gateway:
        generation = server.publish(snapshot("127.0.0.1:9090"))
        await eventually(lambda: gateway.core.state["listeners"])
        assert gateway.core.state["listeners"]["infra/gw/8080"]["port"] == 28_080
        assert gateway.endpoints() == ["127.0.0.1:9090"]

        await eventually(
            lambda: server.acks.value and server.acks.value.nodes[0].generation == generation
        )
        assert server.acks.value is not None
        node = server.acks.value.nodes[0]
        assert (node.node, node.kind) == ("gw-1", "gateway")
        assert node.eastwest_address == "127.0.0.1:15444"
        assert node.refused == ()
        assert gateway.feed.state().state is State.IN_SYNC


async def test_a_stream_is_silent_until_the_first_publication(tmp_path: Path) -> None:
    async with serving() as server, Gateway(server.address, tmp_path).running() as gateway:
        await eventually(lambda: server.acks.value and server.acks.value.nodes)
        assert gateway.feed.state().state is State.STARTING
        assert gateway.core.updates == []


async def test_one_endpoint_of_thousands_that_changes_travels_alone(tmp_path: Path) -> None:
    many = [f"10.1.{number >> 8}.{number & 255}:9090" for number in range(6_000)]
    async with serving() as server, Gateway(server.address, tmp_path).running() as gateway:
        server.publish(snapshot(*many))
        await eventually(lambda: len(gateway.endpoints()) == len(many))
        before = len(gateway.core.updates)
        generation = server.publish(snapshot(*many[1:], "10.2.0.1:9090"))
        await eventually(lambda: many[0] not in gateway.endpoints())
        await eventually(lambda: "10.2.0.1:9090" in gateway.endpoints())
        assert len(gateway.endpoints()) == len(many)
        updates = gateway.core.updates[before:]
        assert [it["endpoints"] for it in updates] == [[]] * len(updates)
        deltas = [delta for it in updates for delta in it["endpoint_deltas"]]
        assert [it for delta in deltas for it in delta["removed"]] == [many[0]]
        added = [
            it for delta in deltas for place in delta["localities"] for it in place["endpoints"]
        ]
        assert [it["address"] for it in added] == ["10.2.0.1:9090"]
        await eventually(
            lambda: server.acks.value and server.acks.value.nodes[0].generation == generation
        )
        # A small set is one resource again; what is left of the cut goes with it.
        server.publish(snapshot("127.0.0.1:9090"))
        await eventually(lambda: gateway.endpoints() == ["127.0.0.1:9090"])


async def test_an_endpoint_change_sends_that_endpoint_set_alone(tmp_path: Path) -> None:
    async with serving() as server, Gateway(server.address, tmp_path).running() as gateway:
        server.publish(snapshot("127.0.0.1:9090"))
        await eventually(lambda: gateway.feed.state().state is State.IN_SYNC)
        await eventually(lambda: gateway.endpoints() == ["127.0.0.1:9090"])
        before = len(gateway.core.updates)
        server.publish(snapshot("127.0.0.1:9090", "127.0.0.1:9091"))
        await eventually(lambda: len(gateway.endpoints()) == 2)
        (update,) = gateway.core.updates[before:]
        assert [len(update[kind]) for kind in ("clusters", "endpoints", "route_tables")] == [
            0,
            1,
            0,
        ]


async def test_an_equal_snapshot_is_not_published(tmp_path: Path) -> None:
    async with serving() as server, Gateway(server.address, tmp_path).running() as gateway:
        first = server.publish(snapshot("127.0.0.1:9090"))
        assert server.publish(snapshot("127.0.0.1:9090")) == first
        await eventually(lambda: gateway.feed.state().state is State.IN_SYNC)


async def test_a_taken_port_is_refused_naming_the_listener(tmp_path: Path) -> None:
    async with serving() as server:
        gateway = Gateway(server.address, tmp_path)
        gateway.core.taken_ports = {28_080}
        async with gateway.running():
            server.publish(snapshot("127.0.0.1:9090"))
            refused = await eventually(
                lambda: (
                    server.acks.value
                    and server.acks.value.nodes
                    and server.acks.value.nodes[0].refused
                )
            )
            assert (refused[0].kind, refused[0].name) == ("listeners", "infra/gw/8080")
            assert refused[0].message == f"address already in use; {LISTENER_RETRIED}"
            # Whoever held the port has gone: the listener opens, and the refusal ends.
            gateway.core.taken_ports = set()
            await gateway.runtime.retry_listeners()
            await eventually(lambda: server.acks.value and not server.acks.value.nodes[0].refused)
            # Asked for by name now, it still goes when it is gone.
            server.publish(snapshot("127.0.0.1:9090", port=8081))
            await eventually(lambda: list(gateway.core.state["listeners"]) == ["infra/gw/8081"])


async def test_a_bad_route_table_keeps_the_last_good_one_and_stops_nothing_else(
    tmp_path: Path,
) -> None:
    async with serving() as server, Gateway(server.address, tmp_path).running() as gateway:
        server.publish(snapshot("127.0.0.1:9090"))
        await eventually(lambda: gateway.core.state["listeners"])
        generation = server.publish(snapshot("127.0.0.1:9090", "127.0.0.1:9091", regex="("))
        refused = await eventually(lambda: server.acks.value and server.acks.value.nodes[0].refused)
        assert refused[0].kind == "routes"
        assert refused[0].message == (
            "virtual_hosts[0].routes[0].match.path.regex: is not a regular expression"
        )
        table = gateway.core.state["route_tables"]["infra/gw/8080"]
        assert table["virtual_hosts"][0]["routes"][0]["match"]["path"] == {"prefix": "/"}
        assert len(gateway.endpoints()) == 2
        await eventually(
            lambda: server.acks.value and server.acks.value.nodes[0].generation == generation
        )
        server.publish(snapshot("127.0.0.1:9090"))
        await eventually(lambda: server.acks.value and not server.acks.value.nodes[0].refused)


async def test_an_upstream_that_goes_leaves_after_the_route_that_named_it(tmp_path: Path) -> None:
    async with serving() as server, Gateway(server.address, tmp_path).running() as gateway:
        server.publish(snapshot("127.0.0.1:9090", upstream="old"))
        await eventually(lambda: gateway.core.state["listeners"])
        server.publish(snapshot("127.0.0.1:9090", upstream="new"))
        await eventually(lambda: list(gateway.core.state["clusters"]) == ["new"])
        for update in gateway.core.updates:
            # The core on paper refuses a table that names a missing cluster: none was ever sent.
            assert not (update["route_tables"] and update["removed"]["clusters"])


async def test_a_gateway_outlives_its_agent_and_asks_only_for_what_changed(tmp_path: Path) -> None:
    async with serving() as first:
        address = first.address
        gateway = Gateway(address, tmp_path)
        async with gateway.running():
            first.publish(snapshot("127.0.0.1:9090"))
            await eventually(lambda: gateway.feed.state().state is State.IN_SYNC)
            await eventually(lambda: gateway.core.state["listeners"])
            await first.stop()
            await eventually(lambda: gateway.feed.state().state is State.AGENT_AWAY)
            assert gateway.endpoints() == ["127.0.0.1:9090"]
            before = len(gateway.core.updates)
            async with serving(address) as second:
                second.publish(snapshot("127.0.0.1:9092"))
                await eventually(lambda: gateway.endpoints() == ["127.0.0.1:9092"])
                (update,) = gateway.core.updates[before:]
                assert [e["cluster"] for e in update["endpoints"]] == ["service/app/users/9090"]
                assert not update["clusters"]
                assert not update["listeners"]


async def test_a_gateway_starts_from_disk_when_its_agent_is_away(tmp_path: Path) -> None:
    async with serving() as server, Gateway(server.address, tmp_path).running() as gateway:
        address = server.address
        server.publish(snapshot("127.0.0.1:9090", extra_upstreams=("gone",)))
        await eventually(lambda: gateway.core.state["listeners"])
        await eventually(lambda: list(tmp_path.iterdir()))
    async with Gateway(address, tmp_path).running() as again:
        assert again.endpoints() == ["127.0.0.1:9090"]
        state = again.feed.state()
        assert state.state is State.SERVING_FROM_SNAPSHOT
        assert state.age_s is not None
        assert state.age_s >= 0
        async with serving(address) as server:
            server.publish(snapshot("127.0.0.1:9091"))
            await eventually(lambda: again.endpoints() == ["127.0.0.1:9091"])
            await eventually(lambda: again.feed.state().state is State.IN_SYNC)
            await eventually(lambda: "gone" not in again.core.state["clusters"])


async def test_a_damaged_file_is_reported_and_not_used(tmp_path: Path) -> None:
    (tmp_path / "last-good.xds").write_bytes(b"grpc-federation last-good 1\n" + b"x" * 100)
    async with serving() as server, Gateway(server.address, tmp_path).running() as gateway:
        assert gateway.feed.state().state is State.STARTING
        server.publish(snapshot("127.0.0.1:9090"))
        await eventually(lambda: gateway.endpoints() == ["127.0.0.1:9090"])


@pytest.mark.parametrize("response_bytes", [1])
async def test_responses_are_cut_at_their_bound(tmp_path: Path, response_bytes: int) -> None:
    async with (
        serving(response_bytes_max=response_bytes) as server,
        Gateway(server.address, tmp_path).running() as gateway,
    ):
        server.publish(snapshot("127.0.0.1:9090", extra_upstreams=tuple("abcdefgh")))
        await eventually(lambda: len(gateway.core.state["clusters"]) == 9)
        await eventually(lambda: gateway.core.state["listeners"])


async def test_a_refusal_is_told_to_the_next_agent_too(tmp_path: Path) -> None:
    async with serving() as first:
        address = first.address
        gateway = Gateway(address, tmp_path)
        gateway.core.taken_ports = {28_080}
        async with gateway.running():
            first.publish(snapshot("127.0.0.1:9090"))
            await eventually(gateway.runtime.refusals)
            await eventually(lambda: gateway.feed.state().state is State.IN_SYNC)
            await first.stop()
            async with serving(address) as second:
                generation = second.publish(snapshot("127.0.0.1:9090"))
                node = await eventually(
                    lambda: next(
                        (n for n in acks(second).nodes if n.generation == generation), None
                    )
                )
                # The port is still taken: the configuration is held, and not in force.
                assert [refused.name for refused in node.refused] == ["infra/gw/8080"]


async def test_what_was_refused_and_is_gone_after_a_reconnect_is_forgotten(tmp_path: Path) -> None:
    async with serving() as first:
        address = first.address
        gateway = Gateway(address, tmp_path)
        async with gateway.running():
            first.publish(snapshot("127.0.0.1:9090", regex="("))
            await eventually(gateway.runtime.refusals)
            await eventually(lambda: acks(first).nodes and acks(first).nodes[0].refused)
            await first.stop()
            async with serving(address) as second:
                second.publish(snapshot("127.0.0.1:9090", port=8081))
                await eventually(lambda: list(gateway.core.state["listeners"]) == ["infra/gw/8081"])
                await eventually(lambda: not gateway.runtime.refusals())


def acks(server: Server) -> AckView:
    assert server.acks.value is not None
    return server.acks.value


async def test_what_breaks_rate_limits_ends_no_stream(tmp_path: Path) -> None:
    async with serving() as server:
        gateway = Gateway(server.address, tmp_path)
        asked = 0

        def broken(keys_max: int, all: bool) -> bytes:  # noqa: A002 - as in the port
            nonlocal asked
            asked += 1
            return b"no JSON"

        gateway.core.take_limit_demand = broken  # type: ignore[method-assign]
        async with gateway.running():
            server.publish(snapshot("127.0.0.1:9090"))
            await eventually(lambda: gateway.endpoints() == ["127.0.0.1:9090"])
            await eventually(lambda: asked >= 3)
            server.publish(snapshot("127.0.0.1:9091"))
            await eventually(lambda: gateway.endpoints() == ["127.0.0.1:9091"])
