"""Load reports: tells the agent what this gateway carries and where it goes.

Decides: what is told (Envoy's Load Reporting Service; latencies as named metrics, one for each
bucket) and that nothing waits for it: while the agent is away nothing is kept, and the next report
begins anew.
Leaves to others: counting (the core), adding up (the agent), how often (the agent says it).
Invariants: traffic and configuration go on whatever becomes of reports; a report is bounded: beyond
``PLACES_MAX`` the quietest places are added up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from envoy.config.endpoint.v3 import load_report_pb2
from envoy.service.load_stats.v3 import lrs_pb2

from gateway.runtime import Core
from gateway.settings import GatewaySettings
from gateway.xds_client import AgentAway, agent_channel
from gateway.xds_session import node_message

log = logging.getLogger("gateway.load")

METHOD = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"

LATENCY_METRIC = "latency_us."
"""Before the upper bound of a bucket in microseconds; what is above the last counts in it."""

RETRY_S = 2.0
"""Wait before the agent, or another one of the cluster's, is tried again."""

INTERVAL_S_MIN, INTERVAL_S_MAX = 0.5, 60.0
"""Bounds of the interval, whatever the agent says."""

PLACES_MAX = 2_000
"""Places told one by one in a report, about half a megabyte."""

_Call = grpc.aio.StreamStreamCall[lrs_pb2.LoadStatsRequest, lrs_pb2.LoadStatsResponse]

_Place = tuple[str, str, str, int]
"""Cluster of the configuration, member cluster, region, priority."""


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counts of one place: totals, or what came in an interval."""

    began: int = 0
    succeeded: int = 0
    failed: int = 0
    open: int = 0
    latency: tuple[int, ...] = ()

    @property
    def busy(self) -> int:
        """How much it is about."""
        return self.began + self.succeeded + self.failed + self.open

    def since(self, before: _Counts | None) -> _Counts:
        """What came since ``before``; a place that was forgotten meanwhile counts from zero."""
        if before is None or self.began < before.began:
            return self
        earlier = before.latency
        return _Counts(
            self.began - before.began,
            self.succeeded - before.succeeded,
            self.failed - before.failed,
            self.open,
            tuple(now - then for now, then in zip(self.latency, earlier, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class _Loads:
    """The core's word at one moment."""

    at: float
    calls_open: int
    connections: int
    bounds_us: tuple[int, ...]
    places: dict[_Place, _Counts]


class LoadReporter:
    """Reports for one gateway. ``facts`` is what it says about itself besides."""

    def __init__(
        self, settings: GatewaySettings, core: Core, *, facts: Callable[[], dict[str, Any]]
    ) -> None:
        self._settings = settings
        self._core = core
        self._facts = facts
        self._leaving = asyncio.Event()
        self._away: str | None = None
        self._turn = 0

    def __repr__(self) -> str:
        return f"LoadReporter({self._settings.name}, away={self._away!r})"

    async def run(self) -> None:
        """Report until ``leave``."""
        while not self._leaving.is_set():
            try:
                await self._session()
            except (grpc.aio.AioRpcError, AgentAway, asyncio.InvalidStateError) as failure:
                self._lost(failure)
            await self._wait(RETRY_S)

    def leave(self) -> None:
        """End the stream: this gateway's load counts no more."""
        self._leaving.set()

    async def _wait(self, wait_s: float) -> None:
        """Wait, but not longer than until this gateway leaves."""
        await asyncio.wait([leaving := asyncio.ensure_future(self._leaving.wait())], timeout=wait_s)
        leaving.cancel()

    async def _session(self) -> None:
        """One stream, until it ends."""
        turn, self._turn = self._turn, self._turn + 1
        async with agent_channel(self._settings, turn) as channel:
            call: _Call = channel.stream_stream(
                METHOD,
                request_serializer=lrs_pb2.LoadStatsRequest.SerializeToString,
                response_deserializer=lrs_pb2.LoadStatsResponse.FromString,
            )()
            await call.write(lrs_pb2.LoadStatsRequest(node=self._node(None)))
            leaving = asyncio.create_task(self._leaving.wait())
            answer = asyncio.ensure_future(call.read())
            try:
                await self._converse(call, answer, leaving)
            finally:
                leaving.cancel()

    async def _converse(
        self,
        call: _Call,
        answer: asyncio.Future[Any],
        leaving: asyncio.Task[bool],
    ) -> None:
        """Report as often as the agent asked last, until the stream ends or this gateway leaves."""
        before: _Loads | None = None
        every_s = 0.0
        try:
            while True:
                due_s = None if before is None else before.at + every_s - time.monotonic()
                await asyncio.wait(
                    {answer, leaving},
                    timeout=None if due_s is None else max(0.0, due_s),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if leaving.done():
                    await call.done_writing()
                    return
                if answer.done():
                    asked = answer.result()
                    if asked is grpc.aio.EOF:
                        return
                    every_s = _interval_s(asked)
                    if before is None:
                        before = self._loads()
                        self._is_back()
                    answer = asyncio.ensure_future(call.read())
                elif before is not None:
                    now = self._loads()
                    message = lrs_pb2.LoadStatsRequest(node=self._node(now))
                    message.cluster_stats.extend(cluster_stats(now, before))
                    await call.write(message)
                    before = now
        finally:
            answer.cancel()

    def _is_back(self) -> None:
        if self._away is not None:
            log.info("load is reported again", extra={"agent": self._settings.agent})
        self._away = None

    def _loads(self) -> _Loads:
        told = json.loads(self._core.loads())
        return _Loads(
            time.monotonic(),
            told["calls_open"],
            told["connections"],
            tuple(told["latency_bounds_us"]),
            {
                (it["cluster"], it["cluster_id"], it["region"], it["priority"]): _Counts(
                    it["began"], it["succeeded"], it["failed"], it["open"], tuple(it["latency"])
                )
                for it in told["places"]
            },
        )

    def _node(self, loads: _Loads | None) -> Any:
        node = node_message(self._settings)
        facts = self._facts()
        if loads is not None:
            facts |= {"calls_open": loads.calls_open, "connections": loads.connections}
        node.metadata.update({"traffic": facts})
        return node

    def _lost(self, failure: Exception) -> None:
        if isinstance(failure, grpc.aio.AioRpcError):
            why = f"{failure.code().name}: {failure.details()}"
        else:
            why = str(failure) or "the stream ended"
        if self._away is None:
            log.info(
                "load is not reported for now", extra={"agent": self._settings.agent, "why": why}
            )
        self._away = why


def _interval_s(asked: lrs_pb2.LoadStatsResponse) -> float:
    wanted = asked.load_reporting_interval
    every_s = float(wanted.seconds + wanted.nanos / 1e9)
    return min(max(every_s, INTERVAL_S_MIN), INTERVAL_S_MAX)


def cluster_stats(now: _Loads, before: _Loads) -> list[load_report_pb2.ClusterStats]:
    """What came between two moments, by cluster; places where nothing goes on are left out."""
    elapsed_ms = max(1, round((now.at - before.at) * 1000))
    since = {place: counts.since(before.places.get(place)) for place, counts in now.places.items()}
    busy = sorted(
        ((place, counts) for place, counts in since.items() if counts.busy),
        key=lambda item: (-item[1].busy, item[0]),
    )
    told = [*busy[:PLACES_MAX], *_added_up(busy[PLACES_MAX:])]
    clusters: dict[str, load_report_pb2.ClusterStats] = {}
    for place, counts in told:
        cluster = place[0]
        if (stats := clusters.get(cluster)) is None:
            stats = clusters[cluster] = load_report_pb2.ClusterStats(cluster_name=cluster)
            stats.load_report_interval.FromMilliseconds(elapsed_ms)
        if place[1]:
            stats.upstream_locality_stats.append(_locality(place, counts, now.bounds_us))
        else:
            stats.total_dropped_requests += counts.failed
    return list(clusters.values())


def _added_up(quiet: Iterable[tuple[_Place, _Counts]]) -> list[tuple[_Place, _Counts]]:
    """Places under the first part of their clusters' names, which says what kind they are of."""
    groups: defaultdict[_Place, list[_Counts]] = defaultdict(list)
    for (cluster, *where), counts in quiet:
        kind = cluster.partition("/")[0]
        groups[(f"{kind}/", *where)].append(counts)  # type: ignore[index]
    return [
        (
            place,
            _Counts(
                sum(it.began for it in members),
                sum(it.succeeded for it in members),
                sum(it.failed for it in members),
                sum(it.open for it in members),
                tuple(map(sum, zip(*(it.latency for it in members), strict=True))),
            ),
        )
        for place, members in sorted(groups.items())
    ]


def _locality(
    place: _Place, counts: _Counts, bounds_us: Sequence[int]
) -> load_report_pb2.UpstreamLocalityStats:
    _, cluster_id, region, priority = place
    stats = load_report_pb2.UpstreamLocalityStats(
        priority=priority,
        total_issued_requests=counts.began,
        total_successful_requests=counts.succeeded,
        total_error_requests=counts.failed,
        total_requests_in_progress=counts.open,
    )
    stats.locality.region, stats.locality.zone = region, cluster_id
    for bound_us, count in zip((*bounds_us, bounds_us[-1]), counts.latency, strict=True):
        if count:
            stats.load_metric_stats.add(
                metric_name=f"{LATENCY_METRIC}{bound_us}", num_requests_finished_with_metric=count
            )
    return stats
