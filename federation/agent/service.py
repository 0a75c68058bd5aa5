"""The agent: one cluster's voice in the federation, and its gateways' source of configuration.

Decides: which loops run, that each is restarted when it fails, and when the agent ends: when its
name is another's, or when it is told to.
Leaves to others: each loop's work (siblings), sockets and their servers (``discovery``, ``dns``,
composed by ``cli``)::

    source ──▶ objects ─────┬──▶ Publisher ──▶ facts, gateways ──▶ store
    store ───▶ federation ──┤
       Presence ◀──▶ store  └──▶ Router ──▶ SnapshotSink ──▶ gateways ──▶ acks ──▶ StatusWriter

Invariants: nothing is published to gateways before the name is claimed or the last good state was
taken from disk; no failure of the store ends the agent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from federation.agent.claim import NameTakenError
from federation.agent.disk import StateDir
from federation.agent.events import EventWriter
from federation.agent.imports import ImportWriter
from federation.agent.infrastructure import InfrastructureWriter
from federation.agent.inputs import Inputs
from federation.agent.names import NameResolver
from federation.agent.presence import Presence
from federation.agent.publisher import Publisher
from federation.agent.routing import Router, Routing, StatusWriter
from federation.agent.settings import AgentSettings
from federation.agent.shared_service import SharedService
from federation.aio import Latest, supervised
from federation.model.acks import AckView
from federation.model.facts import Member
from federation.model.objects import ApiObject
from federation.ports import (
    Clock,
    DerivedObjects,
    EventSink,
    GatewayInfrastructure,
    HostNames,
    ObjectSource,
    ServicePorts,
    SnapshotSink,
    StatusSink,
    Store,
)
from federation.wire.etcd_keys import Keys

log = logging.getLogger(__name__)

Loop = Callable[[], Awaitable[None]]


class Agent:
    """One run of the agent of a cluster."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        store: Store,
        keys: Keys,
        source: ObjectSource,
        statuses: StatusSink,
        snapshots: SnapshotSink,
        acks: Latest[AckView],
        clock: Clock,
        hosts: HostNames | None = None,
        derived: Mapping[type[ApiObject], DerivedObjects] | None = None,
        infrastructure: GatewayInfrastructure | None = None,
        service_ports: ServicePorts | None = None,
        events: EventSink | None = None,
        degraded: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        """``hosts`` resolves the names of the load balancer in front of the gateways (``None``:
        they lead nowhere); ``derived`` takes what the cluster is to have besides (``None``:
        nothing is written), ``infrastructure`` the gateways of Gateways, where the settings have a
        template for them, ``service_ports`` the Gateways' ports of the Service in front of shared
        ones, ``events`` what people are told at objects; ``degraded`` tells what servers of the
        same process do without, for the heartbeat."""
        self._settings = settings
        self._degraded = degraded
        self._derived = derived
        self._events = events
        self._disk = StateDir(settings.state_dir)
        self._store = store
        self._keys = keys
        self._acks = acks
        self._clock = clock
        self._ready = asyncio.Event()
        self._inputs = Inputs(
            settings, store=store, keys=keys, source=source, disk=self._disk, clock=clock
        )
        cells = {"objects": self._inputs.objects}
        service = settings.compile.gateway_service
        self._names = (
            NameResolver(service, **cells, hosts=hosts)
            if service is not None and hosts is not None
            else None
        )
        self._router = Router(settings, **cells, federation=self._inputs.federation, sink=snapshots)
        self._infrastructure = (
            InfrastructureWriter(
                settings.gateway_template,
                **cells,
                routing=self._router.routing,
                sink=infrastructure,
            )
            if settings.gateway_template is not None and infrastructure is not None
            else None
        )
        self._shared_service = (
            SharedService(
                service, **cells, routing=self._router.routing, acks=acks, sink=service_ports
            )
            if service is not None and self._infrastructure is None
            else None
        )
        self._status_writer = StatusWriter(
            **cells,
            routing=self._router.routing,
            places=self._infrastructure or self._shared_service,
            acks=acks,
            sink=statuses,
            settle_s=settings.settle_s,
        )

    def __repr__(self) -> str:
        return f"Agent({self._settings.cluster}, {self._router!r}, {self._inputs!r})"

    @property
    def routing(self) -> Latest[Routing]:
        """What is served now, for other servers of the same process (DNS)."""
        return self._router.routing

    async def run(self) -> None:
        """Run until cancelled.

        Raises ``NameTakenError`` when another instance owns the cluster's name, and
        ``StateDirError`` when the state directory cannot be used.
        """
        instance = self._disk.open(self._settings.instance)
        try:
            self._inputs.recall()
            await self._run_loops(self._loops(instance))
        finally:
            self._inputs.save_last()
            self._disk.close()

    def _loops(self, instance: str) -> dict[str, Loop]:
        member = Member(
            cluster=self._settings.cluster, region=self._settings.region, instance=instance
        )
        presence = Presence(
            self._settings,
            store=self._store,
            keys=self._keys,
            member=member,
            observe=self._observe,
            degraded=self._degraded,
        )
        publisher = Publisher(
            self._settings,
            store=self._store,
            keys=self._keys,
            member=member,
            clock=self._clock,
            objects=self._inputs.objects,
            federation=self._inputs.federation,
            acks=self._acks,
            names=self._names.names if self._names is not None else Latest({}),
        )
        loops: dict[str, Loop] = {
            "federation": self._inputs.watch_federation,
            "objects": self._inputs.watch_objects,
            "disk": self._start_from_disk,
            "save": self._inputs.save,
            "presence": presence.run,
            "claim": lambda: self._ready_when_claimed(presence),
            "publisher": publisher.run,
            "router": self._route_when_ready,
            "statuses": self._status_writer.run,
        }
        if self._names is not None:
            loops["names"] = self._names.run
        if self._derived is not None:
            loops["imports"] = ImportWriter(
                self._settings,
                objects=self._inputs.objects,
                federation=self._inputs.federation,
                sinks=self._derived,
            ).run
        if self._infrastructure is not None:
            loops["infrastructure"] = self._infrastructure.run
        if self._shared_service is not None:
            loops["service ports"] = self._shared_service.run
        if self._events is not None:
            loops["events"] = EventWriter(
                self._settings,
                objects=self._inputs.objects,
                federation=self._inputs.federation,
                statuses=self._status_writer.statuses,
                sink=self._events,
                clock=self._clock,
            ).run
        return loops

    async def _run_loops(self, loops: dict[str, Loop]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for name, loop in loops.items():
                    work = supervised(name, loop, on_failure=_report, fatal=(NameTakenError,))
                    group.create_task(work, name=name)
        except ExceptionGroup as group:
            refused = group.subgroup(NameTakenError)
            if refused is None:
                raise
            raise _first(refused) from None

    def _observe(self) -> tuple[int, int]:
        federation, acks = self._inputs.federation.value, self._acks.value
        revision = federation.listing.revision if federation is not None else 0
        return revision, len(acks.nodes) if acks is not None else 0

    async def _ready_when_claimed(self, presence: Presence) -> None:
        await presence.claimed.wait()
        self._ready.set()

    async def _start_from_disk(self) -> None:
        if await self._inputs.fall_back_to_disk():
            self._ready.set()

    async def _route_when_ready(self) -> None:
        await self._ready.wait()
        await self._router.run()


def _first(group: ExceptionGroup[NameTakenError]) -> NameTakenError:
    """A single one of what several loops found at the same time."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found


def _report(name: str, failure: Exception, wait_s: float) -> None:
    log.error(
        "a loop of the agent failed and starts again",
        extra={"loop": name, "wait_s": wait_s},
        exc_info=failure,
    )
