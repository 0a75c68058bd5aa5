"""The service that gateways tell their load: Envoy's Load Reporting Service beside xDS.

Decides: how often gateways report, and when one counts no more: when its stream has ended, or it
has been silent for three intervals.
Leaves to others: the port and who is let in (``server``), what a report says (``wire.lrs``), adding
up and telling the federation (the agent).
An agent that stands by for another takes no reports: it turns gateways away, which try the next
one, so the one that leads knows all gateways of the cluster, whichever agent configures them.
Invariants: only the newest report of a gateway is kept; one bad client ends its own stream only.
"""

from __future__ import annotations

import asyncio
import logging

import grpc
from envoy.service.load_stats.v3 import lrs_pb2

from federation.discovery.node import read_node
from federation.discovery.subscription import SubscriptionError
from federation.model.load import GatewayLoad
from federation.model.traffic_report import GatewayTraffic
from federation.wire import lrs

log = logging.getLogger("federation.discovery")

REPORT_EVERY_S = 2.0
SILENT_AFTER_S = 3 * REPORT_EVERY_S
"""A gateway that has said nothing for so long counts no more; its stream ends."""

STREAMS_MAX = 512
"""Gateways that report at once: as many as are configured here. One more is refused."""

NOT_HERE = "this agent does not take load reports: another one of the cluster leads"

_Request = lrs_pb2.LoadStatsRequest
_Context = grpc.aio.ServicerContext[lrs_pb2.LoadStatsRequest, lrs_pb2.LoadStatsResponse]
_CLIENT_LEFT = (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError)
"""What grpcio raises when writing to a call whose client is gone."""


class LoadReports:
    """The newest reports of the gateways of one cluster; belongs to one event loop."""

    def __init__(self, *, cluster: str) -> None:
        self._cluster = cluster
        self._loads: dict[str, tuple[object, GatewayLoad]] = {}
        self._streams = 0
        self._over: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"LoadReports({self._cluster}, gateways={len(self._loads)})"

    def newest(self) -> tuple[GatewayLoad, ...]:
        """The newest report of each gateway that reports, by name."""
        return tuple(self._loads[name][1] for name in sorted(self._loads))

    async def run(self) -> None:
        """Take reports until cancelled: while this agent leads."""
        self._over = asyncio.Event()
        try:
            await asyncio.Event().wait()
        finally:
            over, self._over = self._over, None
            self._loads.clear()
            over.set()

    async def serve(self, _requests: object, context: _Context) -> None:
        """One gateway's stream; the behaviour of the service's one method."""
        over = self._over
        if over is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, NOT_HERE)
            return
        if self._streams >= STREAMS_MAX:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._streams} gateways report already, the most this agent serves",
            )
        self._streams += 1
        stream = object()
        reading = asyncio.create_task(self._read(stream, context), name="load reports")
        ending = asyncio.create_task(over.wait())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            refused = reading.result() if reading.done() else None
        finally:
            self._streams -= 1
            reading.cancel()
            ending.cancel()
            self._loads = {
                name: entry for name, entry in self._loads.items() if entry[0] is not stream
            }
        if over.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, NOT_HERE)
        if refused is not None:
            log.warning("load report refused", extra={"peer": context.peer(), "why": str(refused)})
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refused))

    async def _read(self, stream: object, context: _Context) -> SubscriptionError | None:
        """Take reports until the gateway leaves or is silent; why it was refused, if it was."""
        name, gateway = "", GatewayTraffic(name="")
        while True:
            try:
                async with asyncio.timeout(SILENT_AFTER_S):
                    message = await context.read()
            except TimeoutError:
                log.info("a gateway reports no load any more", extra={"gateway": name})
                return None
            if message is grpc.aio.EOF:
                return None
            assert isinstance(message, _Request)
            if not name:
                try:
                    name = read_node(message.node, cluster=self._cluster).name
                except SubscriptionError as refused:
                    return refused
                gateway = lrs.read_gateway(message.node)
                try:
                    await context.write(lrs.asked(int(REPORT_EVERY_S * 1000)))
                except _CLIENT_LEFT:
                    return None
                log.info("a gateway reports its load", extra={"gateway": name})
            elif message.HasField("node"):
                gateway = lrs.read_gateway(message.node)
            self._loads[name] = (stream, lrs.read_load(message, gateway))
