"""``fedctl agent`` as a process on a real etcd: joining, refusing, surviving, stopping."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.rate_limit_quota.v3 import rlqs_pb2
from typer.testing import CliRunner

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.cli.lab.authority import Authority, gateway_identity
from federation.cli.main import app
from federation.discovery.catalog import ResourceType
from federation.model.view import FederationView
from federation.wire.etcd import view_from
from federation.wire.etcd_keys import Keys
from gateway.quota import METHOD as QUOTA_METHOD
from gateway.xds_client import METHOD
from tests.integration.discovery_support import eventually
from tests.testkit.etcd import EtcdServer, running_etcd
from tests.testkit.ports import free_port

KEYS = Keys()
LISTENERS = ResourceType.LISTENERS


class AgentProcess:
    """A started ``fedctl agent`` and what it logs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def event(self, text: str) -> dict[str, Any]:
        """The next log line whose event contains ``text``."""
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                if line.startswith("{") and text in json.loads(line)["event"]:
                    found: dict[str, Any] = json.loads(line)
                    return found
        raise AssertionError(f"no event {text!r} in:\n{''.join(self.lines)}")

    async def ended(self) -> tuple[int, str]:
        """Exit code and all that was written to stderr."""
        async with asyncio.timeout(30):
            _, rest = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, "".join(self.lines) + rest.decode()


@asynccontextmanager
async def agent(etcd: EtcdServer, state_dir: Path, *options: str) -> AsyncIterator[AgentProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from federation.cli.main import main; main()"),
        *("--etcd", etcd.endpoint, "agent", "--cluster", "west", "--region", "us-west"),
        *("--xds", "127.0.0.1:0", "--state-dir", str(state_dir), *options),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        yield AgentProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def view_when(etcd: EtcdServer, holds: Callable[[FederationView], bool]) -> FederationView:
    """The first view of the store that ``holds``."""
    store = EtcdStore(EtcdSettings(endpoints=(etcd.endpoint,)))
    try:
        async with asyncio.timeout(30), aclosing(store.mirror(KEYS.state)) as listings:
            async for listing in listings:
                view = view_from(KEYS, listing.revision, listing.entries).view
                if holds(view):
                    return view
    finally:
        await store.close()
    raise AssertionError("the mirror ended")


async def asked(address: str, path: str) -> tuple[int, str]:
    """Status and text of ``path``; status 0: nobody listens yet."""
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://{address}{path}") as answer:
            return answer.status, (await answer.text()).strip()
    except aiohttp.ClientConnectionError:
        return 0, ""


async def test_an_agent_joins_and_leaves_cleanly(tmp_path: Path) -> None:
    with running_etcd() as etcd:
        async with agent(etcd, tmp_path, "--dns", f"127.0.0.1:{free_port()}") as one:
            view = await view_when(etcd, lambda view: "west" in view.heartbeats)
            assert view.members[next(iter(view.members))].region == "us-west"
            one.process.send_signal(signal.SIGTERM)
            code, log = await one.ended()
            assert code == 0, log
            await view_when(etcd, lambda view: not view.heartbeats and "west" in view.members)


async def test_a_duplicate_cluster_name_is_refused(tmp_path: Path) -> None:
    with running_etcd() as etcd:
        async with agent(etcd, tmp_path / "one"):
            view = await view_when(etcd, lambda view: "west" in view.heartbeats)
            owner = next(iter(view.members.values())).instance
            async with agent(etcd, tmp_path / "two") as two:
                code, log = await two.ended()
            assert code == 1
            message = log.splitlines()[-1]
            assert message.startswith(
                f'error: cluster "west" has joined already: agent instance {owner} in region '
                "us-west owns the name (it is alive); this is instance "
            )


async def test_an_agent_outlives_its_etcd(tmp_path: Path) -> None:
    with running_etcd() as etcd:
        async with agent(etcd, tmp_path) as one:
            await one.event("heartbeat is present")
            etcd.kill()
            await one.event("heartbeat is away")
            await asyncio.to_thread(etcd.start)
            await one.event("heartbeat is present")
            assert one.process.returncode is None


async def test_an_agent_starts_without_etcd_and_stops(tmp_path: Path) -> None:
    with running_etcd() as etcd:
        etcd.kill()
        async with agent(etcd, tmp_path) as one:
            event = await one.event("heartbeat is away")
            assert f"etcd at {etcd.endpoint} is away" in event["reason"]
            one.process.send_signal(signal.SIGTERM)
            code, log = await one.ended()
            assert code == 0, log


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with running_etcd() as etcd:
        async with agent(etcd, tmp_path, "--xds", etcd.endpoint) as one:
            code, log = await one.ended()
        assert code == 1
        assert f"error: cannot serve xDS on {etcd.endpoint}" in log.splitlines()[-1]


async def test_health_is_told_over_http(tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    with running_etcd() as etcd:
        async with agent(etcd, tmp_path, "--health", at):
            await view_when(etcd, lambda view: "west" in view.heartbeats)

            async def ready() -> bool:
                return await asked(at, "/readyz") == (200, "ok")

            await eventually(ready)
            # What is known is served on without the store: nobody is sent away.
            etcd.kill()
            assert await asked(at, "/readyz") == (200, "ok")
            async with agent(etcd, tmp_path / "two", "--health", at) as two:
                code, log = await two.ended()
            assert code == 1
            assert f"error: cannot serve health on {at}" in log.splitlines()[-1]


async def test_an_agent_that_knows_nothing_lives_and_is_not_ready(tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    with running_etcd() as etcd:
        etcd.kill()
        async with agent(etcd, tmp_path, "--health", at) as one:
            await one.event("heartbeat is away")
            assert await asked(at, "/healthz") == (200, "ok")
            assert await asked(at, "/readyz") == (503, "it knows nothing to serve yet")


async def test_a_wrong_option_is_named_before_anything_starts(tmp_path: Path) -> None:
    with running_etcd() as etcd:
        async with agent(etcd, tmp_path / "state", "--source", "folder:/nowhere") as one:
            code, log = await one.ended()
    assert (code, log.splitlines()[-1]) == (2, "error: --source: /nowhere does not exist")
    assert not (tmp_path / "state").exists()


async def test_gateways_of_this_cluster_alone_are_let_in_by_mutual_tls(tmp_path: Path) -> None:
    authority = Authority("test")
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    for name, cluster in (("agent", ""), ("gateway", "west"), ("stranger", "east")):
        pair = authority.issue(name, dns=("localhost",), uris=(gateway_identity(cluster),))
        (tmp_path / f"{name}.crt").write_bytes(pair.certificate_pem)
        (tmp_path / f"{name}.key").write_bytes(pair.key_pem)
    options = (
        *("--xds-cert", str(tmp_path / "agent.crt"), "--xds-key", str(tmp_path / "agent.key")),
        *("--xds-client-ca", str(tmp_path / "ca.crt")),
    )
    with running_etcd() as etcd:
        async with agent(etcd, tmp_path / "state", *options) as running:
            started = await running.event("xds server started")
            port = started["address"].rpartition(":")[2]
            assert await _opened(f"localhost:{port}", tmp_path, "gateway") is None
            refused = await _opened(f"localhost:{port}", tmp_path, "stranger")
            assert refused is grpc.StatusCode.PERMISSION_DENIED
            # The same holds for what is served beside xDS.
            let_in = await _reported(f"localhost:{port}", tmp_path, "gateway")
            assert let_in is grpc.StatusCode.OK
            refused = await _reported(f"localhost:{port}", tmp_path, "stranger")
            assert refused is grpc.StatusCode.PERMISSION_DENIED


async def _reported(address: str, files: Path, name: str) -> grpc.StatusCode:
    """How a report of rate limits as ``name`` ends."""
    report = rlqs_pb2.RateLimitQuotaUsageReports(domain="federation")
    async with grpc.aio.secure_channel(address, _credentials(files, name)) as channel:
        call = channel.stream_stream(
            QUOTA_METHOD,
            request_serializer=rlqs_pb2.RateLimitQuotaUsageReports.SerializeToString,
            response_deserializer=rlqs_pb2.RateLimitQuotaResponse.FromString,
        )(iter([report]))
        return await call.code()


def _credentials(files: Path, name: str) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        (files / "ca.crt").read_bytes(),
        (files / f"{name}.key").read_bytes(),
        (files / f"{name}.crt").read_bytes(),
    )


async def _opened(address: str, files: Path, name: str) -> grpc.StatusCode | None:
    """How a stream as ``name`` is refused; ``None`` when it is let in."""
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=LISTENERS)
    request.node.id, request.node.cluster = "gw-1", "west"
    async with grpc.aio.secure_channel(address, _credentials(files, name)) as channel:
        call = channel.stream_stream(
            METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )(iter([request]))
        try:
            await call.initial_metadata()
        except grpc.aio.AioRpcError as failure:
            return failure.code()
        done = call.done() and await call.code() is not grpc.StatusCode.OK
        return await call.code() if done else None


def test_tls_files_go_together() -> None:
    options = ["agent", "--cluster", "west", "--region", "west", "--xds-cert", "tls.crt"]
    outcome = CliRunner().invoke(app, options)
    assert outcome.exit_code == 2
    assert "go together" in outcome.output
