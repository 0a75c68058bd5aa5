"""The gateway process around the native core: starts, feeds, watches, drains and stops it.

Decides: the order of starting and stopping. At a stop the feed ends first (so the agent learns that
this gateway is leaving and tells its peers), then the core drains, then it stops. A core that gave
up after many panics is such a stop, and an error at the end, so that whoever started it does again.
Leaves to others: where configuration comes from (a ``Feed``), traffic (the core).
Invariants: a part that fails is reported and started again, and stops no other; no Python runs
while a request passes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from gateway import health, identity
from gateway.admin import EVENTS_MAX, Admin
from gateway.errors import GaveUp
from gateway.metrics import Reading, expiries
from gateway.metrics.otlp import metric_records
from gateway.own_services import OwnServices
from gateway.reach import OWN_CLUSTER, own_pieces
from gateway.reflection_files import Method
from gateway.runtime import Core, Runtime
from gateway.settings import IdentityFiles
from gateway.status import State, Status, release
from gateway.telemetry import TelemetrySender
from gateway.telemetry.otlp import SERVICE_NAME

log = logging.getLogger("gateway.shell")

EVENTS_POLL_S = 0.25
"""How often the core's events are collected; its own ring holds 4096."""

LISTENERS_RETRY_S = 5.0
"""How often a port that could not be opened is tried again: whoever holds it may go."""

DRAINED_POLL_S = 0.05
RESTART_MAX_S = 5.0
"""Longest wait before a failed part is started again."""


@dataclass(frozen=True, slots=True)
class FeedState:
    """What a feed says about the configuration it gave."""

    state: State
    age_s: float | None = None
    why: str | None = None


class Feed(Protocol):
    """Where the configuration comes from."""

    async def boot(self) -> None:
        """Give what is there at once, before anything else starts."""
        ...

    async def run(self) -> None:
        """Give what changes, for ever."""
        ...

    async def leave(self) -> None:
        """Tell whoever feeds us that this gateway is leaving; ends within a second."""
        ...

    def changed(self) -> None:
        """Told after what is in force has changed."""
        ...

    def state(self) -> FeedState:
        """How current the configuration is."""
        ...


@dataclass(frozen=True, slots=True)
class ShellSettings:
    """What the shell needs besides its feed."""

    name: str
    cluster: str
    admin: str
    identity: IdentityFiles | None
    drain_grace_s: float
    region: str = ""
    """Of its cluster; empty: unknown."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where tags of spans that are variables come from."""


class Shell:
    """One gateway."""

    def __init__(self, settings: ShellSettings, *, core: Core) -> None:
        self._settings = settings
        self._core = core
        self.runtime = Runtime(
            core,
            has_identity=settings.identity is not None,
            environment=settings.environment,
        )
        self.events: deque[Mapping[str, Any]] = deque(maxlen=EVENTS_MAX)
        self.admin = Admin(self, address=settings.admin)
        self._draining = asyncio.Event()
        self._started_at_s = time.time()
        self.telemetry = TelemetrySender(core, resource=self._resource, measure=self._metrics)
        self.own = OwnServices(
            lambda: self.runtime.in_force, core.stats, self._draining, self._name_methods
        )
        self._health = health.HealthChecker(core.set_health)
        self._feed: Feed | None = None
        self._stop = asyncio.Event()
        self._gave_up: Mapping[str, Any] | None = None
        self._reload = asyncio.Event()
        self._configuring: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"Shell({self._settings.name}, {self.status().state}, {self.runtime!r})"

    # What the admin endpoint asks.

    def status(self) -> Status:
        """The one state of this gateway."""
        feed = self._feed.state() if self._feed else FeedState(State.STARTING)
        return Status(
            name=self._settings.name,
            cluster=self._settings.cluster,
            region=self._settings.region,
            state=State.DRAINING if self._draining.is_set() else feed.state,
            version=self.runtime.version,
            age_s=feed.age_s,
            listeners=dict(self.runtime.listeners),
            refused={str(i): message for i, message in self.runtime.refusals().items()},
            why=feed.why,
        )

    def stats(self) -> Mapping[str, Any]:
        """The core's counters."""
        stats: dict[str, Any] = json.loads(self._core.stats())
        numbers = stats.setdefault("numbers", {})
        numbers["reflection_left_out"] = self.own.reflection.left_out
        # The own one is of this process, and nobody's business.
        endpoints = stats.get("endpoints", ())
        stats["endpoints"] = [it for it in endpoints if it["cluster"] != OWN_CLUSTER]
        clusters = stats.get("clusters", ())
        stats["clusters"] = [it for it in clusters if it["name"] != OWN_CLUSTER]
        stats["exports"] = self.telemetry.state()
        return stats

    def _resource(self) -> Mapping[str, str]:
        """Who tells what is told, by OpenTelemetry's names."""
        settings = self._settings
        return {
            "service.name": SERVICE_NAME,
            "service.namespace": "federation",
            "service.instance.id": f"{settings.cluster}/{settings.name}",
            "service.version": release(),
            "federation.cluster": settings.cluster,
            "cloud.region": settings.region,
        }

    async def _metrics(self) -> bytes:
        """What a scrape shows, as OTLP."""
        status, ends = self.status(), expiries(self.runtime.in_force)

        def records() -> bytes:
            reading = Reading(self.stats(), status, ends)
            return metric_records(reading, started_at_s=self._started_at_s, at_s=time.time())

        return await asyncio.to_thread(records)

    def identity_files(self) -> IdentityFiles | None:
        """The identity that this gateway shows its peers, if it has one."""
        return self._settings.identity

    def begin_drain(self) -> None:
        """Take no new work; open streams may go on for the grace period."""
        if not self._draining.is_set():
            self._draining.set()
            for part in self._configuring:
                part.cancel()
            log.info("draining", extra={"grace_s": self._settings.drain_grace_s})
            self._core.drain(int(self._settings.drain_grace_s * 1000))

    def stop(self) -> None:
        """Ask ``run`` to drain and return."""
        self._stop.set()

    def _name_methods(self, methods: Sequence[Method]) -> None:
        """Give methods that reflection knows labels of their own in metrics."""
        self._core.set_known_methods(json.dumps([asdict(it) for it in methods]).encode())

    # Running.

    async def run(self, feed: Feed) -> None:
        """Serve until ``stop`` or a signal, then drain.

        Raises what keeps it from starting, and ``GaveUp`` when the core drained itself.
        """
        self._feed = feed
        self._stop_on_signals()
        self._core.start()
        try:
            if self._settings.identity is not None:
                await self.runtime.put(identity.load(self._settings.identity))
            self.runtime.has_own_services = True
            await self.runtime.put(own_pieces(await self.own.start()))
            await feed.boot()
            self.runtime.on_change = self._changed
            self._changed()
            await self.admin.start()
            log.info(
                "gateway started",
                extra={"gateway": self._settings.name, "admin": self.admin.address},
            )
            async with self.telemetry.running():
                await self._serve(feed)
                await self._drained()
        finally:
            await self.admin.stop()
            await self.own.stop()
            await asyncio.to_thread(self._core.stop)
            log.info("gateway stopped", extra={"gateway": self._settings.name})
        if self._gave_up is not None:
            raise GaveUp(
                f"drained after {self._gave_up['panics']} panics, each a bug (see the log): "
                "has to be started again"
            )

    async def _serve(self, feed: Feed) -> None:
        async with asyncio.TaskGroup() as group:
            watching = [
                group.create_task(supervised("health", self._health.run)),
                group.create_task(supervised("events", self._collect_events)),
            ]
            fed = group.create_task(supervised("feed", feed.run))
            group.create_task(self._leave(feed, fed))
            # These end when draining begins.
            self._configuring = [
                group.create_task(supervised("listeners", self._retry_listeners)),
                group.create_task(supervised("reload", self._reload_on_request)),
            ]
            files = self._settings.identity
            if files is not None:
                watch = supervised("identity", lambda: identity.watch(files, self.runtime.put))
                self._configuring.append(group.create_task(watch))
            await self._stop.wait()
            self.begin_drain()
            for part in watching:
                part.cancel()

    async def _leave(self, feed: Feed, fed: asyncio.Task[None]) -> None:
        """End the feed when draining begins; the agent is told, so that peers dial no more."""
        await self._draining.wait()
        await feed.leave()
        fed.cancel()

    async def _reload_on_request(self) -> None:
        """Read files again at once, when SIGHUP asks for it; what stands is not touched."""
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._core.reopen_logs()
            files = self._settings.identity
            try:
                if files is not None:
                    await self.runtime.put(identity.load(files))
            except identity.IdentityError as failure:
                log.warning("identity not reloaded", extra={"why": str(failure)})
            else:
                log.info("reloaded", extra={"identity": files is not None})
            await self.runtime.retry_listeners()

    async def _retry_listeners(self) -> None:
        while True:
            await asyncio.sleep(LISTENERS_RETRY_S)
            await self.runtime.retry_listeners()

    async def _drained(self) -> None:
        deadline = time.monotonic() + self._settings.drain_grace_s + 1
        # The core ends its drain by itself; there is nothing to be woken by.
        while not self._core.drained() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(DRAINED_POLL_S)

    async def _collect_events(self) -> None:
        while True:
            for event in json.loads(self._core.events(EVENTS_MAX)):
                self.events.append({"at": time.time(), **event})
                log.info("core event", extra={"core": event})
                if event["event"] == "gave_up":
                    self._gave_up = event
                    self.stop()
            await asyncio.sleep(EVENTS_POLL_S)

    def _changed(self) -> None:
        self._health.update(health.targets(self.runtime.in_force))
        self.telemetry.update(self.runtime.in_force)
        if self._feed is not None:
            self._feed.changed()

    def _stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)


async def supervised(name: str, part: Callable[[], Awaitable[None]]) -> None:
    """Run ``part``; report its failure and start it again after a bounded wait."""
    wait_s = 0.1
    while True:
        try:
            await part()
        except Exception:  # a supervisor's purpose: one broken part must not end the traffic
            log.exception("part failed", extra={"part": name, "again_in_s": wait_s})
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RESTART_MAX_S)
        else:
            return
