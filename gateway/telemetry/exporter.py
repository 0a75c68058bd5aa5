"""Sends what is told to one collector.

Decides: what waits, how often and where a batch is tried, and when it is given up.
Leaves to others: what is told and which endpoints the collector has (``sender``), the form of
requests (``otlp``).
Invariants: at most ``QUEUE_BYTES_MAX`` wait and ``IN_FLIGHT`` batches are under way; beyond that
the oldest batch goes and is counted; every record ends as sent or as dropped for a reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from gateway.telemetry import otlp
from gateway.telemetry.otlp import Signal

QUEUE_BYTES_MAX = 4 << 20
"""Waiting for one collector here; as much again can wait in the core."""

IN_FLIGHT = 2
"""Batches under way to one collector at a time."""

DEADLINE_S = 5.0
"""How long a collector may take to answer."""

ATTEMPTS_MAX = 6
RETRY_S_MAX = 30.0
"""After so many tries, or so long, a batch is given up."""

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

QUEUE_FULL = "queue_full"
UNREACHABLE = "unreachable"
REFUSED = "refused"
REJECTED = "rejected"
REMOVED = "removed"
STOPPED = "stopped"
REASONS = (QUEUE_FULL, UNREACHABLE, REFUSED, REJECTED, REMOVED, STOPPED)
"""Why records were dropped: no room; no answer after all tries; an answer that no try changes;
taken in part; no policy names the collector any more; the gateway stops."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one signal, encoded: the fields of a message of one scope, without the scope."""

    signal: Signal
    items: int
    records: bytes = field(repr=False)


@dataclass(slots=True)
class Counts:
    """Records by signal, and those dropped by reason too."""

    sent: Counter[Signal] = field(default_factory=Counter)
    dropped: Counter[tuple[Signal, str]] = field(default_factory=Counter)

    def drop(self, batch: Batch, reason: str) -> None:
        """Count a batch that nobody gets."""
        self.dropped[batch.signal, reason] += batch.items


_Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


class _LaterError(Exception):
    """A try that failed and may be repeated; the message is why."""


class Exporter:
    """One collector's queue and connections."""

    def __init__(
        self, collector: str, *, counts: Counts, envelope: Callable[[], tuple[bytes, bytes]]
    ) -> None:
        """``envelope`` gives resource and scope, see ``otlp.envelope``."""
        self.collector = collector
        self.counts = counts
        self.endpoints: tuple[str, ...] = ()
        self.failing: str | None = None
        self.queued_bytes = 0
        self._envelope = envelope
        self._queue: deque[Batch] = deque()
        self._under_way = 0
        self._end = STOPPED
        self._turn = 0
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._waiting = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        why = f", failing={self.failing}" if self.failing else ""
        return f"Exporter({self.collector}, queued_bytes={self.queued_bytes}{why})"

    def put(self, batch: Batch) -> None:
        """Have ``batch`` sent; what waits longest makes room for it."""
        self._queue.append(batch)
        self.queued_bytes += len(batch.records)
        while self.queued_bytes > QUEUE_BYTES_MAX:
            self.counts.drop(self._take(), QUEUE_FULL)
        if self._queue:
            self._empty.clear()
            self._waiting.set()

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(self._work())
        finally:
            await self._close(())

    async def flush(self) -> None:
        """Wait until nothing waits any more; the caller bounds it."""
        await self._empty.wait()

    def give_up(self, reason: str) -> None:
        """Drop what waits, and what is under way if it does not get there."""
        self._end = reason
        while self._queue:
            self.counts.drop(self._take(), reason)

    def _take(self) -> Batch:
        batch = self._queue.popleft()
        self.queued_bytes -= len(batch.records)
        return batch

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._waiting.clear()
                await self._waiting.wait()
            batch = self._take()
            self._under_way += 1
            done = False
            try:
                await self._send(batch)
                done = True
            finally:
                self._under_way -= 1
                if not done:
                    self.counts.drop(batch, self._end)
                if not self._queue and not self._under_way:
                    self._empty.set()

    async def _send(self, batch: Batch) -> None:
        """Send with tries, and count what came of it."""
        resource, scope = self._envelope()
        body = otlp.request(batch.records, resource=resource, scope=scope)
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(ATTEMPTS_MAX) | stop_after_delay(RETRY_S_MAX),
                wait=wait_random_exponential(multiplier=0.2, max=5.0),
                retry=retry_if_exception_type(_LaterError),
                reraise=True,
            ):
                with attempt:
                    await self._try(batch, body)
        except _LaterError:
            self.counts.drop(batch, UNREACHABLE)
        except grpc.aio.AioRpcError as failure:
            self.failing = _reason(failure)
            self.counts.drop(batch, REFUSED)

    async def _try(self, batch: Batch, body: bytes) -> None:
        """One try at the present endpoint; the next one is another's after a failure."""
        await self._close(self.endpoints)
        if not self.endpoints:
            self.failing = "no endpoint"
            raise _LaterError(self.failing)
        endpoint = self.endpoints[self._turn % len(self.endpoints)]
        call: _Call = self._channel(endpoint).unary_unary(otlp.METHODS[batch.signal])
        try:
            answer = await call(body, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as failure:
            self._turn += 1
            if not otlp.retryable(failure):
                raise
            self.failing = f"{endpoint}: {_reason(failure)}"
            raise _LaterError(self.failing) from failure
        except asyncio.CancelledError:
            # gRPC ends calls of a closed channel so, although nobody cancelled this task: the other
            # worker closed it, as its endpoint is gone.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self.failing = f"{endpoint}: the endpoint is gone"
            raise _LaterError(self.failing) from None
        try:
            lost, why = otlp.rejected(answer)
        except ValueError as failure:
            lost, why = 0, str(failure)  # it was taken, whatever the answer is
        lost = min(lost, batch.items)
        self.failing = f"{endpoint}: rejected {lost} records: {why}" if lost else None
        self.counts.sent[batch.signal] += batch.items - lost
        if lost:
            self.counts.dropped[batch.signal, REJECTED] += lost

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        known = self._channels.get(endpoint)
        if known is None:
            known = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
            self._channels[endpoint] = known
        return known

    async def _close(self, kept: tuple[str, ...]) -> None:
        """Close connections to endpoints that are not ``kept``; the other worker may do so too."""
        for endpoint in self._channels.keys() - set(kept):
            channel = self._channels.pop(endpoint, None)
            if channel is not None:
                await channel.close(grace=DEADLINE_S if kept else None)


def _reason(failure: grpc.aio.AioRpcError) -> str:
    return f"{failure.code().name}: {failure.details()}"
