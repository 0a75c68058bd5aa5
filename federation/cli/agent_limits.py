"""Shared rate limits of an agent: its newest routing tells the service what to divide.

Decides: a gateway's share before it is told one, and where the service stands: beside xDS.
Leaves to others: dividing (``quota``), the port and who is let in (``discovery``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from envoy.service.rate_limit_quota.v3 import rlqs_pb2

from federation.agent import Agent
from federation.aio import cancel_and_wait, supervised
from federation.cli.context import CommandError
from federation.cli.exit_codes import ExitCode
from federation.discovery import SideService
from federation.quota import QuotaService
from federation.wire import rlqs

if TYPE_CHECKING:
    from federation.adapters.redis import RedisBoard

log = logging.getLogger("federation.quota")

FIRST_SHARE_PPM = 250_000
"""A gateway that starts while its agent is away knows of no share. A cluster has a few gateways: a
quarter neither opens the limit nor closes it."""


def open_board(url: str | None) -> RedisBoard | None:
    """The board at ``url``. Raises ``CommandError`` when it is no URL of Redis."""
    if url is None:
        return None
    from federation.adapters.redis import RedisBoard, RedisUrlError

    try:
        return RedisBoard(url)
    except RedisUrlError as error:
        raise CommandError(f"--ratelimit-redis: {error}", ExitCode.USAGE) from error


def beside_discovery(quota: QuotaService) -> SideService:
    """The service as the xDS server serves it."""
    return SideService(
        service=rlqs.SERVICE,
        method=rlqs.METHOD,
        serve=quota.serve,
        request=rlqs_pb2.RateLimitQuotaUsageReports,
        response=rlqs_pb2.RateLimitQuotaResponse,
    )


@asynccontextmanager
async def follow_limits(quota: QuotaService, agent: Agent) -> AsyncGenerator[None, None]:
    """Tell ``quota`` the limits that ``agent`` serves, until left; it divides where it leads."""

    async def follow() -> None:
        async with aclosing(agent.routing.changes()) as routings:
            async for routing in routings:
                limits = rlqs.shared_limits(routing.compiled.snapshot)
                quota.set_limits(limits, clusters=len(routing.inputs.view.members))

    name = "quota limits"
    task = asyncio.create_task(supervised(name, follow, on_failure=_report), name=name)
    try:
        yield
    finally:
        await cancel_and_wait(task)


def _report(name: str, failure: Exception, wait_s: float) -> None:
    log.error(
        "dividing rate limits failed and starts again",
        extra={"loop": name, "wait_s": wait_s},
        exc_info=failure,
    )
