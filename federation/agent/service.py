"""The agent: one cluster's voice in the federation, and its gateways' source of configuration.

Decides: which loops there are, which of them write and so run only while this agent leads, and when
the agent ends: when its name is another's, or when it is told to.
Leaves to others: each loop's work (siblings), who leads (``leader``, a ``Seat``), sockets and their
servers (``discovery``, ``dns``, composed by ``cli``)::

    source ──▶ objects ─────┬──▶ Publisher* ──▶ facts, gateways ──▶ store
    store ───▶ federation ──┤
       Presence* ◀──▶ store └──▶ Router ──▶ SnapshotSink ──▶ gateways ──▶ acks ──▶ StatusWriter*
                                              * the one that leads; Colleagues exchange the acks

Invariants: nothing is published to gateways before the name is known to be ours or the last good
state was taken from disk; no failure of the store ends the agent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing

from opentelemetry.trace import Tracer

from federation.agent.claim import NameTakenError
from federation.agent.colleagues import Colleagues
from federation.agent.disk import StateDir
from federation.agent.events import EventWriter
from federation.agent.imports import ImportWriter
from federation.agent.infrastructure import InfrastructureWriter
from federation.agent.inputs import Inputs
from federation.agent.leader import Leader, Loop, run_loops
from federation.agent.names import NameResolver
from federation.agent.observe import observe
from federation.agent.presence import Presence
from federation.agent.publisher import Publisher
from federation.agent.routing import Router, Routing, StatusWriter
from federation.agent.settings import AgentSettings
from federation.agent.shared_service import SharedService
from federation.agent.tracing import ChangeTraces
from federation.agent.traffic import TrafficWriter
from federation.aio import Latest
from federation.model.acks import AckView
from federation.model.facts import Member
from federation.model.load import GatewayLoad
from federation.model.objects import ApiObject
from federation.ports import (
    Clock,
    DerivedObjects,
    EventSink,
    GatewayInfrastructure,
    HostNames,
    ObjectSource,
    Seat,
    ServicePorts,
    SnapshotSink,
    StatusSink,
    Store,
)
from federation.telemetry import Sample
from federation.wire.etcd_keys import Keys

log = logging.getLogger(__name__)


class Agent:
    """One run of an agent of a cluster."""

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
        seat: Seat | None = None,
        hosts: HostNames | None = None,
        derived: Mapping[type[ApiObject], DerivedObjects] | None = None,
        infrastructure: GatewayInfrastructure | None = None,
        service_ports: ServicePorts | None = None,
        events: EventSink | None = None,
        degraded: Callable[[], tuple[str, ...]] = tuple,
        leading: Mapping[str, Loop] | None = None,
        loads: Callable[[], Iterable[GatewayLoad]] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """``seat`` says when this agent leads (``None``: it has no colleagues); ``hosts`` resolves
        the names of the load balancer in front of the gateways (``None``: they lead nowhere);
        ``derived`` takes what the cluster is to have besides (``None``: nothing is written),
        ``infrastructure`` the gateways of Gateways, where the settings have a template for them,
        ``service_ports`` the Gateways' ports of the Service in front of shared ones, ``events``
        what people are told at objects; ``degraded`` tells what the cluster does without, for the
        heartbeat; ``leading`` are loops of the same process that run while it leads; ``loads`` are
        the newest of its gateways (``None``: no traffic is told);
        ``tracer`` takes spans of changes (``None``: none are made)."""
        self._settings = settings
        self._degraded = degraded
        self._derived = derived
        self._infrastructure = infrastructure
        self._service_ports = service_ports
        self._events = events
        self._beside = dict(leading or {})
        self._loads = loads
        self._disk = StateDir(settings.state_dir)
        self._store = store
        self._keys = keys
        self._statuses = statuses
        self._connected = acks
        self._clock = clock
        self._ready = asyncio.Event()
        self._instance = ""
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
        self._traces = ChangeTraces(tracer, acks, settings.cluster) if tracer is not None else None
        self._router = Router(
            settings,
            **cells,
            federation=self._inputs.federation,
            sink=snapshots,
            traces=self._traces,
        )
        self._colleagues = (
            Colleagues(
                settings,
                identity=seat.identity,
                store=store,
                keys=keys,
                routing=self._router.routing,
                acks=acks,
            )
            if seat is not None
            else None
        )
        self._acks = self._colleagues.acks if self._colleagues is not None else acks
        self._publisher = Publisher(
            settings,
            store=store,
            keys=keys,
            member=self._member(""),
            clock=clock,
            **cells,
            federation=self._inputs.federation,
            acks=self._acks,
            names=self._names.names if self._names is not None else Latest({}),
        )
        self._leader = Leader(seat, loops=self._leading)

    def __repr__(self) -> str:
        cluster = self._settings.cluster
        return f"Agent({cluster}, {self._leader!r}, {self._router!r}, {self._inputs!r})"

    @property
    def routing(self) -> Latest[Routing]:
        """What is served now, for other servers of the same process (DNS)."""
        return self._router.routing

    @property
    def leading(self) -> Latest[bool]:
        """Whether this is the agent that writes for its cluster."""
        return self._leader.leading

    def observe(self) -> Iterator[Sample]:
        """The gauges of this agent as they are now."""
        return observe(
            self._settings.cluster,
            objects=self._inputs.objects,
            federation=self._inputs.federation,
            routing=self._router.routing,
            acks=self._connected,
            publications=self._router.publications,
        )

    async def run(self) -> None:
        """Run until cancelled.

        Raises ``NameTakenError`` when another instance owns the cluster's name, and
        ``StateDirError`` when the state directory cannot be used.
        """
        self._instance = self._disk.open(self._settings.instance)
        try:
            self._inputs.recall()
            await run_loops(self._loops())
        finally:
            self._inputs.save_last()
            self._disk.close()

    def _member(self, leader: str) -> Member:
        return Member(
            cluster=self._settings.cluster,
            region=self._settings.region,
            instance=self._instance,
            leader=leader,
        )

    def _loops(self) -> dict[str, Loop]:
        """What runs in every agent, whether it leads or not."""
        loops: dict[str, Loop] = {
            "federation": self._inputs.watch_federation,
            "objects": self._inputs.watch_objects,
            "disk": self._start_from_disk,
            "save": self._inputs.save,
            "router": self._route_when_ready,
            "lead": self._leader.run,
        }
        if self._names is not None:
            loops["names"] = self._names.run
        if self._traces is not None:
            loops["traces"] = self._traces.run
        if self._colleagues is not None:
            loops |= {
                "name": self._ready_when_ours,
                "watch exports": self._publisher.watch,
                "hear colleagues": self._colleagues.hear,
                "merge acks": self._colleagues.merge,
                "tell colleagues": self._colleagues.tell,
            }
        return loops

    def _leading(self, term: str) -> dict[str, Loop]:
        """What runs while this agent leads: all that writes to the store or to the cluster."""
        member = self._member(term)
        self._publisher.begin(member)
        self._statuses.forget()
        presence = Presence(
            self._settings,
            store=self._store,
            keys=self._keys,
            member=member,
            observe=self._observe,
            degraded=self._degraded,
            clock=self._clock,
        )
        made = self._gateways_of_gateways()
        shared = self._shared_service() if made is None else None
        writer = StatusWriter(
            objects=self._inputs.objects,
            routing=self._router.routing,
            places=made or shared,
            acks=self._acks,
            sink=self._statuses,
            settle_s=self._settings.settle_s,
        )
        loops: dict[str, Loop] = {
            "presence": presence.run,
            "claim": lambda: self._ready_when_claimed(presence),
            "publisher": lambda: self._publish_when_claimed(presence),
            "statuses": writer.run,
            **self._beside,
        }
        if self._loads is not None:
            loops["traffic"] = TrafficWriter(
                self._settings,
                store=self._store,
                keys=self._keys,
                presence=presence,
                loads=self._loads,
                clock=self._clock,
            ).run
        if self._derived is not None:
            loops["imports"] = ImportWriter(
                self._settings,
                objects=self._inputs.objects,
                federation=self._inputs.federation,
                sinks=self._derived,
            ).run
        if made is not None:
            loops["infrastructure"] = made.run
        if shared is not None:
            loops["service ports"] = shared.run
        if self._events is not None:
            loops["events"] = EventWriter(
                self._settings,
                objects=self._inputs.objects,
                federation=self._inputs.federation,
                statuses=writer.statuses,
                sink=self._events,
                clock=self._clock,
            ).run
        return loops

    def _gateways_of_gateways(self) -> InfrastructureWriter | None:
        template = self._settings.gateway_template
        if template is None or self._infrastructure is None:
            return None
        return InfrastructureWriter(
            template,
            objects=self._inputs.objects,
            routing=self._router.routing,
            sink=self._infrastructure,
        )

    def _shared_service(self) -> SharedService | None:
        service = self._settings.compile.gateway_service
        if service is None:
            return None
        return SharedService(
            service,
            objects=self._inputs.objects,
            routing=self._router.routing,
            acks=self._acks,
            sink=self._service_ports,
        )

    def _observe(self) -> tuple[int, int]:
        federation, acks = self._inputs.federation.value, self._acks.value
        revision = federation.listing.revision if federation is not None else 0
        return revision, len(acks.nodes) if acks is not None else 0

    async def _ready_when_claimed(self, presence: Presence) -> None:
        await presence.claimed.wait()
        self._ready.set()

    async def _publish_when_claimed(self, presence: Presence) -> None:
        await presence.claimed.wait()
        await self._publisher.run()

    async def _ready_when_ours(self) -> None:
        """Serve as soon as the name is known to be our cluster's: another agent claimed it."""
        cluster = self._settings.cluster
        async with aclosing(self._inputs.federation.changes()) as states:
            async for state in states:
                owner = state.view.members.get(cluster)
                if not state.live or owner is None:
                    continue
                if owner.instance != self._instance:
                    raise NameTakenError(
                        f'cluster "{cluster}" has joined already: instance {owner.instance} owns '
                        f"the name, this cluster is {self._instance}. Give it another name"
                    )
                self._ready.set()

    async def _start_from_disk(self) -> None:
        if await self._inputs.fall_back_to_disk():
            self._ready.set()

    async def _route_when_ready(self) -> None:
        await self._ready.wait()
        await self._router.run()
