"""The service that gateways report to: Envoy's Rate Limit Quota Service beside xDS.

Decides: when limits are divided, who is told what, that a lost stream is a gateway that goes on.
Leaves to others: the port it is served on and who is let in (``cli`` puts it beside ``discovery``),
the book (``ledger``), the other clusters (a ``QuotaBoard``, if there is one).
An agent that stands by for another divides nothing: it turns gateways away, which try the next one.
Invariants: a gateway that is told nothing goes on with its last share; so does this cluster with
its part while the board is away; one bad client ends its own stream only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

import grpc
from envoy.service.rate_limit_quota.v3 import rlqs_pb2

from federation.model.quota import SharedLimit
from federation.ports import PortError, QuotaBoard
from federation.quota.clusters import ClusterParts
from federation.quota.ledger import Ledger
from federation.quota.settings import QuotaSettings
from federation.wire import quota_board, rlqs

log = logging.getLogger("federation.quota")

GATEWAY_METADATA = "x-federation-gateway"
"""Request metadata in which a gateway says its name; without it its address stands for it."""

LAST_PARTS = "rate limits over clusters go on with the last parts"
"""What is said while the board is away."""

NOT_HERE = "this agent does not divide the cluster's rate limits: another one leads"

_Reports = rlqs_pb2.RateLimitQuotaUsageReports
_Context = grpc.aio.ServicerContext[
    rlqs_pb2.RateLimitQuotaUsageReports, rlqs_pb2.RateLimitQuotaResponse
]
_CLIENT_LEFT = (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError)
"""What grpcio raises when writing to a call whose client is gone."""


class _Over(Exception):  # noqa: N818 - a fact more than an error
    """Limits are divided here no more."""


class QuotaService:
    """Divides the shared limits of one cluster; belongs to the event loop that it runs on."""

    def __init__(
        self, settings: QuotaSettings, *, cluster: str, board: QuotaBoard | None = None
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._board = board
        self._parts = ClusterParts(settings, cluster=cluster)
        self._board_away: str | None = None
        self._ledger = Ledger(settings)
        self._streams: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()
        self._dividing = False

    def __repr__(self) -> str:
        return f"QuotaService({self._ledger!r}, streams={len(self._streams)})"

    def degraded(self) -> tuple[str, ...]:
        """What this cluster does without at present."""
        if self._board_away is None:
            return ()
        return (f"{LAST_PARTS}: {self._board_away}",)

    def set_limits(self, limits: Iterable[SharedLimit], *, clusters: int = 1) -> None:
        """Divide these from now on; with a board they are shared by so many clusters."""
        self._ledger.set_limits(limits)
        if self._board is not None:
            self._parts.begin(self._ledger.limits, clusters)
            self._ledger.set_parts(self._parts.parts)
        self._changed.set()

    async def follow_board(self) -> None:
        """Tell the other clusters and take this one's parts, for ever; returns without a board."""
        clock = asyncio.get_running_loop().time
        while self._board is not None:
            began_s = clock()
            if self._ledger.limits:
                await self._exchange(self._board)
            await asyncio.sleep(max(0.0, began_s + self._settings.board_every_s - clock()))

    async def _exchange(self, board: QuotaBoard) -> None:
        now_s = asyncio.get_running_loop().time()
        entry = self._parts.entry(self._ledger.demand(now_s), self._ledger.used())
        try:
            page = await board.exchange(self._cluster, quota_board.to_bytes(entry))
        except PortError as failure:
            if self._board_away is None:
                log.warning(LAST_PARTS, extra={"why": str(failure)})
            self._board_away = str(failure)
            return
        if self._board_away is not None:
            log.info("rate limits are shared with the other clusters again")
        self._board_away = None
        before = self._parts.parts
        self._parts.take(page.entries, self._ledger.limits, now_s)
        if self._parts.parts != before:
            self._ledger.set_parts(self._parts.parts)
            self._changed.set()

    async def run(self) -> None:
        """Divide whenever something was reported, for ever; gateways are let in meanwhile."""
        self._dividing = True
        try:
            await self._divide()
        finally:
            self._dividing = False
            for wake in self._streams.values():
                wake.set()

    async def _divide(self) -> None:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._settings.settle_s)
        while True:
            self._changed.clear()
            self._ledger.divide(clock())
            for wake in self._streams.values():
                wake.set()
            await asyncio.sleep(self._settings.step_s)
            with contextlib.suppress(TimeoutError):
                # Demand fades and gateways are given up without any report.
                async with asyncio.timeout(self._settings.idle_step_s):
                    await self._changed.wait()

    async def serve(self, _requests: object, context: _Context) -> None:
        """One gateway's stream; the behaviour of the service's one method."""
        name = _name(context)
        if not self._dividing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, NOT_HERE)
        if name not in self._streams and len(self._streams) >= self._settings.streams_max:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{len(self._streams)} gateways report already, the most this agent serves",
            )
        wake = self._streams[name] = asyncio.Event()
        self._ledger.join(name)
        self._changed.set()
        log.info("a gateway reports its rate limits", extra={"gateway": name})
        refused, left, over = "", False, False
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(name, wake, context))
                refused, left = await self._read(name, context)
                writer.cancel()
        except* _Over:
            over = True
        finally:
            self._end(name, wake, left=left)
        if over:
            await context.abort(grpc.StatusCode.UNAVAILABLE, NOT_HERE)
        if refused:
            log.warning("a gateway's report was refused", extra={"gateway": name, "why": refused})
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refused)

    async def _read(self, name: str, context: _Context) -> tuple[str, bool]:
        """Take reports; why the last was refused, or whether the gateway took its leave."""
        clock = asyncio.get_running_loop().time
        while True:
            message = await context.read()
            if message is grpc.aio.EOF:
                return "", True
            assert isinstance(message, _Reports)
            try:
                usages = rlqs.read_reports(message)
            except rlqs.ReportError as error:
                return str(error), False
            self._ledger.report(name, usages, clock())
            self._changed.set()

    async def _write(self, name: str, wake: asyncio.Event, context: _Context) -> None:
        while True:
            await wake.wait()
            wake.clear()
            if not self._dividing:
                raise _Over
            message = rlqs.response(self._ledger.news(name), self._ledger.limits)
            if message.bucket_action:
                try:
                    await context.write(message)
                except _CLIENT_LEFT:
                    return

    def _end(self, name: str, wake: asyncio.Event, *, left: bool) -> None:
        if self._streams.get(name) is not wake:
            return  # the gateway is back on another stream already
        del self._streams[name]
        if left:
            self._ledger.leave(name)
        else:
            self._ledger.vanish(name, asyncio.get_running_loop().time())
        self._changed.set()
        log.info("a gateway reports no more", extra={"gateway": name, "left": left})


def _name(context: _Context) -> str:
    metadata = dict(context.invocation_metadata() or ())
    name = metadata.get(GATEWAY_METADATA) or context.peer()
    return name if isinstance(name, str) else name.decode(errors="replace")
