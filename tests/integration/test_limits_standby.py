"""Shared rate limits of a cluster with two agents: the one that leads divides them, alone."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from envoy.service.rate_limit_quota.v3 import rlqs_pb2

from federation.aio import cancel_and_wait
from federation.cli.agent_limits import beside_discovery
from federation.discovery import DiscoveryServer, DiscoverySettings
from federation.model.base import ClusterId
from federation.model.snapshot import Snapshot
from federation.quota import QuotaService, QuotaSettings
from federation.wire import rlqs
from federation.wire.xds import Renderer
from tests.testkit.standalone import until

pytestmark = pytest.mark.timeout(60)


async def test_an_agent_that_stands_by_turns_reports_away() -> None:
    quota = QuotaService(QuotaSettings(), cluster="west")
    server: DiscoveryServer[Snapshot] = DiscoveryServer(
        DiscoverySettings(cluster=ClusterId("west"), address="127.0.0.1:0"),
        render=Renderer(),
        beside=[beside_discovery(quota)],
    )
    await server.start()
    reports = rlqs_pb2.RateLimitQuotaUsageReports.SerializeToString
    answers = rlqs_pb2.RateLimitQuotaResponse.FromString
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            method = channel.stream_stream(
                f"/{rlqs.SERVICE}/{rlqs.METHOD}",
                request_serializer=reports,
                response_deserializer=answers,
            )
            turned_away = method()
            assert await turned_away.code() is grpc.StatusCode.UNAVAILABLE
            assert "another one leads" in await turned_away.details()
            dividing = asyncio.create_task(quota.run())
            await until(lambda: "streams=0" in repr(quota), "it divides")
            let_in = method()
            await until(lambda: "streams=1" in repr(quota), "the gateway is let in")
            await cancel_and_wait(dividing)
            assert await let_in.code() is grpc.StatusCode.UNAVAILABLE
            assert "another one leads" in await let_in.details()
    finally:
        await server.stop()
