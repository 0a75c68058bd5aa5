"""Active health checks: asks endpoints by the gRPC health protocol, and tells the core the result.

Decides: when an endpoint counts as healthy or not: after as many equal results in a row as the
cluster's plan asks for. An endpoint not checked yet is left as it is.
Leaves to others: what a bad result means for balancing (the core).
Invariants: at most ``CONCURRENT_MAX`` checks run at once, each bounded by its time-out; peers'
gateways are not checked (their liveness is their connection's).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2

from gateway.xds_translate import HealthPlan, Kind, Piece, PieceId

CONCURRENT_MAX = 64
"""Checks at once, so that thousands of endpoints are no burst. Each keeps one connection open."""

_CHECK = "/grpc.health.v1.Health/Check"
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """One endpoint to check."""

    cluster: str
    address: str


def targets(in_force: Mapping[PieceId, Piece]) -> dict[Target, HealthPlan]:
    """What is to be checked, given the configuration in force."""
    plans = {
        piece_id.name: piece.health
        for piece_id, piece in in_force.items()
        if piece_id.kind is Kind.CLUSTERS and piece.health is not None
    }
    found: dict[Target, HealthPlan] = {}
    for piece_id, piece in in_force.items():
        if piece_id.kind is not Kind.ENDPOINTS or (plan := plans.get(piece_id.cluster)) is None:
            continue
        for locality in piece.body["localities"]:
            for endpoint in locality["endpoints"]:
                if not endpoint["peer"]:
                    found[Target(piece_id.cluster, endpoint["address"])] = plan
    return found


@dataclass(slots=True)
class Streak:
    """Equal results in a row, and the verdict they have led to (``None``: none yet)."""

    healthy: bool | None = None
    _last: bool | None = None
    _count: int = 0

    def add(self, *, passed: bool, plan: HealthPlan) -> bool | None:
        """Count one result; returns the verdict if it changed."""
        self._count = self._count + 1 if passed is self._last else 1
        self._last = passed
        # A new endpoint that passes is healthy at once; it fails only by the whole threshold.
        needed = plan.healthy_threshold if passed else plan.unhealthy_threshold
        if passed is self.healthy or self._count < (
            1 if passed and self.healthy is None else needed
        ):
            return None
        self.healthy = passed
        return passed


class HealthChecker:
    """Runs one checking task for each target; ``update`` says which targets there are."""

    def __init__(self, set_health: Callable[[str, str, bool], None]) -> None:
        self._set_health = set_health
        self._slots = asyncio.Semaphore(CONCURRENT_MAX)
        self._wanted: dict[Target, HealthPlan] = {}
        self._news = asyncio.Event()
        self._verdicts: dict[Target, bool] = {}

    def __repr__(self) -> str:
        bad = sum(not healthy for healthy in self._verdicts.values())
        return f"HealthChecker(targets={len(self._wanted)}, unhealthy={bad})"

    @property
    def verdicts(self) -> Mapping[Target, bool]:
        """The verdicts so far."""
        return self._verdicts

    def update(self, wanted: Mapping[Target, HealthPlan]) -> None:
        """Check ``wanted`` from now on; targets that stay keep their streaks."""
        if wanted != self._wanted:
            self._wanted = dict(wanted)
            self._news.set()

    async def run(self) -> None:
        """Check for ever."""
        running: dict[Target, tuple[HealthPlan, asyncio.Task[None]]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                for target in [
                    t for t, (plan, _) in running.items() if self._wanted.get(t) != plan
                ]:
                    running.pop(target)[1].cancel()
                    self._verdicts.pop(target, None)
                for target, plan in self._wanted.items():
                    if target not in running:
                        running[target] = (plan, group.create_task(self._check(target, plan)))
                await self._news.wait()
                self._news.clear()

    async def _check(self, target: Target, plan: HealthPlan) -> None:
        streak = Streak()
        interval_s = plan.interval_ms / 1000
        # Checks of many endpoints are spread over the interval instead of coming in one burst.
        await asyncio.sleep(interval_s * random.random())  # noqa: S311 - spreads, hides nothing
        async with grpc.aio.insecure_channel(target.address, options=_OPTIONS) as channel:
            check = channel.unary_unary(
                _CHECK,
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            request = health_pb2.HealthCheckRequest(service=plan.service)
            while True:
                async with self._slots:
                    passed = await _passes(check, request, plan)
                streak.add(passed=passed, plan=plan)
                if streak.healthy is not None:
                    # Told each time: the core forgets an endpoint that leaves it for a moment.
                    self._verdicts[target] = streak.healthy
                    self._set_health(target.cluster, target.address, streak.healthy)
                await asyncio.sleep(interval_s)


async def _passes(
    check: grpc.aio.UnaryUnaryMultiCallable[
        health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    ],
    request: health_pb2.HealthCheckRequest,
    plan: HealthPlan,
) -> bool:
    try:
        answer = await check(request, timeout=plan.timeout_ms / 1000, metadata=plan.metadata)
    except grpc.aio.AioRpcError as failure:
        # A server without the health service is alive and says so: it passes, as in gRPC clients.
        return failure.code() is grpc.StatusCode.UNIMPLEMENTED
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
