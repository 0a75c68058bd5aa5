"""The gateway's shell over a core on paper: admin, drain, identity, health checks, broken parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from envoy.service.discovery.v3 import discovery_pb2
from grpc_health.v1 import health as health_service
from grpc_health.v1 import health_pb2, health_pb2_grpc

from federation.discovery.catalog import seal
from federation.model.acks import AckView
from federation.model.snapshot import HealthCheck, Snapshot
from federation.wire.xds import NodeView, to_resources
from gateway.admin import AdminError, _refused
from gateway.agent_feed import AgentFeed
from gateway.errors import GaveUp
from gateway.runtime import Runtime
from gateway.settings import GatewaySettings, IdentityFiles
from gateway.shell import FeedState, Shell, ShellSettings
from gateway.status import State
from gateway.xds_translate import KIND_OF_TYPE
from tests.integration.discovery_support import PaperCore, eventually, snapshot
from tests.integration.test_discovery_and_shell import Gateway, serving


class FixedFeed:
    """Gives one snapshot at the start; ``failures`` times its loop fails."""

    def __init__(self, runtime: Runtime, source: Snapshot, *, failures: int = 0) -> None:
        self._runtime = runtime
        self._source = source
        self.failures = failures
        self.runs = 0

    async def boot(self) -> None:
        catalog = seal(to_resources(self._source, NodeView("127.0.0.1", 20_000)), generation=1)
        await self._runtime.replace(
            {
                KIND_OF_TYPE[kind]: [
                    discovery_pb2.Resource(name=n, version=r.version, resource=r.body)
                    for n, r in entries.items()
                ]
                for kind, entries in catalog.types.items()
            }
        )

    async def run(self) -> None:
        self.runs += 1
        if self.runs <= self.failures:
            raise ValueError("a part that fails")
        await asyncio.Event().wait()

    async def leave(self) -> None:
        pass

    def changed(self) -> None:
        pass

    def state(self) -> FeedState:
        return FeedState(State.IN_SYNC, 0.0)


class Elsewhere(asyncio.Transport):
    """A connection from an address that this machine does not have."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 40_000)})


def _asked(method: str, path: str, transport: asyncio.Transport) -> web.Request:
    return make_mocked_request(method, path, {"Host": "10.0.0.8"}, transport=transport)


@asynccontextmanager
async def running(
    source: Snapshot,
    core: PaperCore,
    *,
    identity: IdentityFiles | None = None,
    failures: int = 0,
) -> AsyncIterator[tuple[Shell, FixedFeed, str]]:
    settings = ShellSettings("gw-1", "us-west-1", "127.0.0.1:0", identity, drain_grace_s=1.0)
    shell = Shell(settings, core=core)
    feed = FixedFeed(shell.runtime, source, failures=failures)
    task = asyncio.create_task(shell.run(feed))
    try:
        await eventually(lambda: not shell.admin.address.endswith(":0") or task.done())
        yield shell, feed, f"http://{shell.admin.address}"
    finally:
        shell.stop()
        await task


async def test_the_admin_endpoint_tells_state_numbers_and_configuration() -> None:
    core = PaperCore()
    async with (
        running(snapshot("127.0.0.1:9090"), core) as (_, _, url),
        aiohttp.ClientSession(url) as http,
    ):
        async with http.get("/ready") as answer:
            assert answer.status == 200
            body = await answer.json()
            assert (body["state"], body["ready"]) == ("InSync", True)
        async with http.get("/metrics") as answer:
            text = await answer.text()
            assert 'federation_gateway_state{state="InSync"} 1\n' in text
            assert "federation_gateway_config_version 2\n" in text
        assert answer.content_type == "text/plain"
        asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
        async with http.get("/metrics", headers=asked) as answer:
            assert answer.content_type == "application/openmetrics-text"
            assert (await answer.text()).endswith("\n# EOF\n")
        async with http.get("/config_dump") as answer:
            dump = await answer.json()
            assert [entry["name"] for entry in dump["listeners"]] == ["infra/gw/8080"]
            assert dump["refused"] == {}
        async with http.get("/stats") as answer:
            assert (await answer.json())["gateway"]["cluster"] == "us-west-1"
        async with http.get("/events") as answer:
            assert await answer.json() == []


async def test_a_drain_by_the_admin_endpoint_makes_it_unready() -> None:
    core = PaperCore()
    async with (
        running(snapshot("127.0.0.1:9090"), core) as (_, _, url),
        aiohttp.ClientSession(url) as http,
    ):
        async with http.post("/drain") as answer:
            assert answer.status == 202
        assert core.draining
        async with http.get("/ready") as answer:
            assert answer.status == 503
            assert (await answer.json())["state"] == "Draining"


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Origin": "http://127.0.0.1:8080"}, "a web page's request"),
        ({"Origin": "null"}, "a web page's request"),
        ({"Host": "rebound.example:15000"}, "neither an IP address nor localhost"),
    ],
)
async def test_a_web_page_cannot_drain(headers: dict[str, str], why: str) -> None:
    core = PaperCore()
    async with (
        running(snapshot("127.0.0.1:9090"), core) as (_, _, url),
        aiohttp.ClientSession(url) as http,
    ):
        async with http.post("/drain", headers=headers) as answer:
            assert (answer.status, why in (await answer.json())["why"]) == (403, True)
        async with http.get("/metrics", headers={"Host": "gateway.svc:15000"}) as answer:
            assert answer.status == 200
        for host in ("localhost:15000", "[::1]:15000", "[::1]", "127.0.0.1"):
            async with http.get("/events", headers={"Host": host}) as answer:
                assert answer.status == 200, host
        assert not core.draining


@pytest.mark.parametrize(
    ("peer", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.3.0.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.7", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.7", False),
    ],
)
async def test_callers_from_elsewhere_have_probes_and_metrics_alone(
    peer: str, loopback: bool
) -> None:
    transport = Elsewhere(peer)
    refused = {
        path: _refused(_asked(method, path, transport))
        for method, path in [
            *(("GET", path) for path in ("/healthz", "/ready", "/metrics")),
            *(("GET", path) for path in ("/stats", "/tap", "/config_dump", "/events", "/peers")),
            ("POST", "/drain"),
        ]
    }
    told = {path for path, why in refused.items() if why and "alone" in why}
    others = {"/stats", "/tap", "/config_dump", "/events", "/peers", "/drain"}
    assert told == (set() if loopback else others)


async def test_stopping_drains_then_stops_the_core() -> None:
    core = PaperCore()
    async with running(snapshot("127.0.0.1:9090"), core):
        assert not core.draining
    assert core.draining
    assert core.stopped


async def test_a_core_that_gave_up_is_drained_and_the_gateway_ends_with_an_error() -> None:
    core = PaperCore()
    settings = ShellSettings("gw-1", "us-west-1", "127.0.0.1:0", None, drain_grace_s=1.0)
    shell = Shell(settings, core=core)
    core.happened.append({"event": "panic", "message": "a bug"})
    core.happened.append({"event": "gave_up", "panics": 32})
    with pytest.raises(GaveUp, match="after 32 panics"):
        await shell.run(FixedFeed(shell.runtime, snapshot("127.0.0.1:9090")))
    assert core.draining
    assert core.stopped


async def test_no_open_port_is_not_ready() -> None:
    core = PaperCore()
    core.taken_ports = {28_080}
    async with (
        running(snapshot("127.0.0.1:9090"), core) as (_, _, url),
        aiohttp.ClientSession(url) as http,
        http.get("/ready") as answer,
    ):
        assert answer.status == 503
        assert (await answer.json())["listeners"] == {"infra/gw/8080": "address already in use"}


async def test_a_part_that_fails_is_started_again_and_stops_no_other() -> None:
    core = PaperCore()
    async with running(snapshot("127.0.0.1:9090"), core, failures=1) as (_, feed, url):
        await eventually(lambda: feed.runs == 2)
        async with aiohttp.ClientSession(url) as http, http.get("/ready") as answer:
            assert answer.status == 200


async def test_a_taken_admin_port_is_an_error_that_names_it() -> None:
    core = PaperCore()
    async with running(snapshot("127.0.0.1:9090"), core) as (shell, _, _):
        settings = ShellSettings("gw-2", "us-west-1", shell.admin.address, None, drain_grace_s=0)
        other = Shell(settings, core=PaperCore())
        with pytest.raises(AdminError, match=shell.admin.address):
            await other.run(FixedFeed(other.runtime, snapshot("127.0.0.1:9090")))


async def test_identity_files_are_secrets_and_reloaded_on_change(tmp_path: Path) -> None:
    files = IdentityFiles(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    for path in (files.certificate, files.private_key, files.trust_bundle):
        path.write_text(f"{path.name} one")
    core = PaperCore()
    async with running(snapshot("127.0.0.1:9090"), core, identity=files):
        identity = core.state["secrets"]["federation/identity"]
        assert identity["certificate_pem"] == "tls.crt one"
        assert identity["private_key_pem"] == "tls.key one"
        assert core.state["secrets"]["federation/trust-bundle"]["ca_pem"] == "ca.crt one"
        files.certificate.write_text("tls.crt number two")
        await eventually(
            lambda: (
                core.state["secrets"]["federation/identity"]["certificate_pem"]
                == "tls.crt number two"
            )
        )


async def test_identity_files_that_change_before_they_are_watched_are_read(tmp_path: Path) -> None:
    files = IdentityFiles(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    for path in (files.certificate, files.private_key, files.trust_bundle):
        path.write_text(f"{path.name} one")

    class Rotating(FixedFeed):
        """Takes its time at the start, in which the certificate is rotated."""

        async def boot(self) -> None:
            await super().boot()
            files.certificate.write_text("tls.crt number two")

    core = PaperCore()
    settings = ShellSettings("gw-1", "us-west-1", "127.0.0.1:0", files, drain_grace_s=1.0)
    shell = Shell(settings, core=core)
    task = asyncio.create_task(shell.run(Rotating(shell.runtime, snapshot("127.0.0.1:9090"))))
    try:
        await eventually(
            lambda: (
                core.state["secrets"].get("federation/identity", {}).get("certificate_pem")
                == "tls.crt number two"
            )
        )
    finally:
        shell.stop()
        await task


async def test_endpoints_are_checked_by_grpc_health_where_the_cluster_asks() -> None:
    server = grpc.aio.server()
    servicer = health_service.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await servicer.set("users", health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    good, bad = f"127.0.0.1:{port}", "127.0.0.1:1"
    name = "service/app/users/9090"
    core = PaperCore()
    source = _with_health_check(snapshot(good, bad), HealthCheck(50, 500, 2, 1, "users"))
    try:
        async with running(source, core):
            await eventually(lambda: len(core.health) == 2)
            assert core.health == {(name, good): True, (name, bad): False}
            await servicer.set("users", health_pb2.HealthCheckResponse.NOT_SERVING)
            await eventually(lambda: core.health[name, good] is False)
            await servicer.set("users", health_pb2.HealthCheckResponse.SERVING)
            await eventually(lambda: core.health[name, good] is True)
            core.health.clear()  # as when an endpoint went and came back meanwhile
            await eventually(lambda: core.health == {(name, good): True, (name, bad): False})
    finally:
        await server.stop(0)


def _with_health_check(source: Snapshot, check: HealthCheck) -> Snapshot:
    from dataclasses import replace

    upstreams = tuple(replace(entry, health_check=check) for entry in source.upstreams)
    return replace(source, upstreams=upstreams)


async def test_a_gateway_that_drains_takes_its_leave_of_the_agent(tmp_path: Path) -> None:
    async with serving() as server:
        server.publish(snapshot("127.0.0.1:9090"))
        settings = GatewaySettings("gw-1", "us-west-1", server.address, tmp_path)
        core = PaperCore()
        shell = Shell(
            ShellSettings("gw-1", "us-west-1", "127.0.0.1:0", None, drain_grace_s=1.0), core=core
        )
        task = asyncio.create_task(shell.run(AgentFeed(settings, shell.runtime)))
        await eventually(lambda: shell.status().state is State.IN_SYNC)
        assert server.acks.value is not None
        assert server.acks.value.left == ()
        shell.stop()
        await task
        assert server.acks.value == AckView(generation=1, nodes=(), left=("gw-1",))
        # Connected again, it has not left; a connection that is merely lost is no leave.
        async with Gateway.of(settings).running() as again:
            await eventually(lambda: again.feed.state().state is State.IN_SYNC)
            assert server.acks.value.left == ()
        await eventually(lambda: server.acks.value and not server.acks.value.nodes)
        assert server.acks.value.left == ()
