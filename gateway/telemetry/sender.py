"""From the core's records to collectors.

Decides: which collectors there are now, how often the core is asked for what it has recorded, and
what happens to the rest when a policy goes or the gateway stops.
Leaves to others: recording (the core), one collector's queue (``exporter``).
Invariants: while no listener names a collector nothing runs; a collector that is slow, dead or
refuses costs bounded memory (``exporter``), and never holds up the core, a drain, or a stop by more
than ``FLUSH_S``; records are taken from the core whether or not their collector can have them, so
that one collector never starves another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from gateway.telemetry import otlp
from gateway.telemetry.exporter import REMOVED, STOPPED, Batch, Counts, Exporter
from gateway.telemetry.otlp import Signal
from gateway.xds_translate import Kind, Piece, PieceId

log = logging.getLogger("gateway.telemetry")

PULL_S = 0.2
"""How often the core is asked; its own rings hold megabytes."""

BATCH_BYTES = 1 << 20
"""Bytes taken at once. Collectors take 4 MiB in a message unless told otherwise."""

PULLS_MAX = 16
"""Batches taken in a row before anything else gets its turn."""

FLUSH_S = 1.0
"""How long what waits may still be sent when a policy goes, or the gateway stops."""

FORMER_MAX = 64
"""Collectors that nobody names any more whose numbers are kept; then the oldest goes."""


class Source(Protocol):
    """What is asked of the core."""

    def take_telemetry(self, max_bytes: int) -> list[tuple[str, str, int, bytes]]:
        """Spans and log records that wait: collector, kind, how many, encoded."""
        ...


METRICS_EVERY_S = 15.0
"""How often metrics are sent, as often as they are commonly scraped."""

Measure = Callable[[], Awaitable[bytes]]
"""Gives metrics as a ``ScopeMetrics`` message without its scope."""


def collectors(in_force: Mapping[PieceId, Piece]) -> dict[str, tuple[str, ...]]:
    """The collectors that listeners in force name, with the addresses that calls may go to."""
    named = {
        name
        for piece_id, piece in in_force.items()
        if piece_id.kind is Kind.LISTENERS and (told := piece.body.get("telemetry")) is not None
        for name in _named(told)
    }
    found: dict[str, list[str]] = {name: [] for name in sorted(named)}
    for piece_id, piece in in_force.items() if named else ():
        if piece_id.kind is Kind.ENDPOINTS and piece_id.cluster in found:
            for locality in piece.body["localities"]:
                found[piece_id.cluster] += [
                    endpoint["address"]
                    for endpoint in locality["endpoints"]
                    if endpoint["health"] == "healthy" and not endpoint["peer"]
                ]
    return {name: tuple(sorted(addresses)) for name, addresses in found.items()}


def _named(told: Mapping[str, Any]) -> list[str]:
    tracing = told["tracing"]
    sinks = (entry["sink"].get("otlp") for entry in told["access_logs"])
    return [*([tracing["collector"]] if tracing else ()), *filter(None, sinks)]


class TelemetrySender:
    """Sends for one gateway."""

    def __init__(
        self,
        source: Source,
        *,
        resource: Callable[[], Mapping[str, str]],
        measure: Measure | None = None,
    ) -> None:
        """``resource`` gives the attributes of the resource; without ``measure`` no metrics."""
        self._source = source
        self._measure = measure
        self._resource = resource
        self._wanted: Mapping[str, tuple[str, ...]] = {}
        self._exporters: dict[str, tuple[Exporter, asyncio.Task[None]]] = {}
        self._counts: dict[str, Counts] = {}
        self._changed = asyncio.Event()
        self._some = asyncio.Event()

    def __repr__(self) -> str:
        return f"TelemetrySender({', '.join(self._exporters) or 'nothing to send'})"

    def update(self, in_force: Mapping[PieceId, Piece]) -> None:
        """Take note of the configuration in force."""
        wanted = collectors(in_force)
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    def state(self) -> list[dict[str, Any]]:
        """What became of the records of each collector; also of those that are former ones."""
        return [self._state(name, counts) for name, counts in sorted(self._counts.items())]

    def _state(self, name: str, counts: Counts) -> dict[str, Any]:
        dropped: dict[str, dict[str, int]] = {}
        for (signal, reason), items in list(counts.dropped.items()):
            dropped.setdefault(str(signal), {})[reason] = items
        running = self._exporters.get(name)
        exporter = running[0] if running is not None else None
        return {
            "collector": name,
            "named": name in self._wanted,
            "endpoints": list(exporter.endpoints) if exporter else [],
            "queued_bytes": exporter.queued_bytes if exporter else 0,
            "failing": exporter.failing if exporter else None,
            "sent": {str(signal): items for signal, items in list(counts.sent.items())},
            "dropped": dropped,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send until the end of the block, and then for ``FLUSH_S`` what is left."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            if self._exporters:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_S):
                        await self._flush()
            task.cancel()
            await asyncio.wait([task])

    async def _flush(self) -> None:
        self._pull()
        await asyncio.gather(*(exporter.flush() for exporter, _ in self._exporters.values()))

    async def _run(self) -> None:
        while True:
            try:
                await self._serve()
            except Exception:  # what fails here costs records, never traffic
                log.exception("telemetry failed", extra={"again_in_s": FLUSH_S})
                await asyncio.sleep(FLUSH_S)

    async def _serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                if self._measure is not None:
                    group.create_task(self._push_metrics(self._measure))
                while True:
                    self._follow(group)
                    if self._exporters:
                        self._pull()
                    await self._wait()
        finally:
            for exporter, _ in self._exporters.values():
                exporter.give_up(STOPPED)
            self._exporters.clear()

    async def _wait(self) -> None:
        """Until there is something to do: without collectors, until there are some."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PULL_S if self._exporters else None):
                await self._changed.wait()
        self._changed.clear()

    async def _push_metrics(self, measure: Measure) -> None:
        """To all collectors there are; one push counts as one item."""
        while True:
            await self._some.wait()
            try:
                records = await measure()
            except Exception:  # spans and log records go on
                log.exception("measuring failed", extra={"again_in_s": METRICS_EVERY_S})
            else:
                for exporter, _ in self._exporters.values():
                    exporter.put(Batch(Signal.METRICS, 1, records))
            await asyncio.sleep(METRICS_EVERY_S)

    def _follow(self, group: asyncio.TaskGroup) -> None:
        """Have an exporter for each collector that is wanted, and none for others."""
        for name in [name for name in self._exporters if name not in self._wanted]:
            self._pull()
            group.create_task(self._retire(*self._exporters.pop(name)))
        if self._wanted:
            self._some.set()
        else:
            self._some.clear()
        for name, endpoints in self._wanted.items():
            if name not in self._exporters:
                exporter = Exporter(name, counts=self._counts_of(name), envelope=self._envelope)
                self._exporters[name] = exporter, group.create_task(exporter.run())
            self._exporters[name][0].endpoints = endpoints

    async def _retire(self, exporter: Exporter, task: asyncio.Task[None]) -> None:
        """End an exporter, with what waits if that is soon sent."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await exporter.flush()
        exporter.give_up(REMOVED)
        task.cancel()

    def _pull(self) -> None:
        for _ in range(PULLS_MAX):
            taken = self._source.take_telemetry(BATCH_BYTES)
            for collector, kind, items, records in taken:
                batch = Batch(Signal(kind), items, records)
                running = self._exporters.get(collector)
                if running is not None:
                    running[0].put(batch)
                else:
                    self._counts_of(collector).drop(batch, REMOVED)
            if not taken:
                return

    def _counts_of(self, name: str) -> Counts:
        if name not in self._counts:
            former = [other for other in self._counts if other not in self._wanted]
            for other in former[: max(0, len(former) - FORMER_MAX + 1)]:
                del self._counts[other]
            self._counts[name] = Counts()
        return self._counts[name]

    def _envelope(self) -> tuple[bytes, bytes]:
        attributes = self._resource()
        return otlp.envelope(attributes, attributes.get("service.version", ""))
