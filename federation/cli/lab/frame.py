"""One frame of the lab's view: figures of clients, gateways and the federation at one moment.

Decides: what is asked of whom, and how it becomes figures.
Leaves to others: how a frame looks (``view``).
Invariants: a part that does not answer within half a second becomes a line of ``troubles`` and
never holds the view up.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.request import urlopen

from pydantic import ValidationError

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.cli.lab.client import ClientFigures
from federation.cli.lab.faults import partitioned
from federation.cli.lab.plan import GatewayPlan, LabPlan
from federation.derive.explain import drain_words
from federation.model.drain import drain_object_name
from federation.model.resolved import FULL_SHARE_BP, ClusterShare
from federation.model.view import FederationView
from federation.ports import PortError
from federation.wire.etcd import view_from
from federation.wire.etcd_keys import Keys

ANSWER_TIMEOUT_S = 0.5
FIGURES_AGE_S_MAX = 4.0
SILENT = "does not answer"


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """A gateway: its own word on its configuration, and what it has been doing."""

    name: str
    state: str
    is_current: bool = False
    calls_open: int = 0
    tries_per_s: float = 0.0
    retries: int = 0
    ejections: int = 0
    down: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShareFigures:
    """The share of one cluster in a service's calls from one region, in basis points."""

    service: str
    source: str
    cluster: str
    asked_bp: int
    weight_bp: int
    failover: str
    reason: str

    def from_anywhere(self) -> ShareFigures:
        """The same share without the region it is from."""
        return replace(self, source="")


@dataclass(frozen=True, slots=True)
class DrainFigures:
    """A drain of a region or cluster, of one service there or (``None``) of all.

    ``asked_by`` is the object that asks for it, as arguments of ``fedctl delete``; empty: nobody's.
    """

    target: str
    service: str | None
    progress: str
    asked_by: str = ""

    @property
    def undo(self) -> str:
        """The command that takes it back."""
        if self.asked_by:
            return f"fedctl delete {self.asked_by}"
        return f"fedctl undrain {self.target}" + (
            f" --service {self.service}" if self.service else ""
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything a frame shows. ``etcd_away`` says why etcd could not be read, if it could not."""

    regions: tuple[str, ...] = ()
    on_kubernetes: bool = False
    leader: str = "no resolver leads"
    members: tuple[tuple[str, str], ...] = ()
    etcd_away: str = ""
    cut_off: tuple[str, ...] = ()
    clients: Mapping[str, ClientFigures] = field(default_factory=dict)
    shares: tuple[ShareFigures, ...] = ()
    drains: tuple[DrainFigures, ...] = ()
    gateways: tuple[GatewayFigures, ...] = ()
    troubles: tuple[str, ...] = ()


class Collector:
    """Collects frames of one lab; remembers counters between frames to show rates."""

    def __init__(self, plan: LabPlan) -> None:
        self._plan = plan
        self._loop = asyncio.new_event_loop()
        self._store = EtcdStore(
            EtcdSettings(endpoints=(plan.etcd,), call_timeout_s=ANSWER_TIMEOUT_S)
        )
        self._keys = Keys()
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="admin")
        self._tries: dict[str, tuple[float, int]] = {}
        self._names = names_of_addresses(plan)

    def collect(self) -> Frame:
        """Ask everybody."""
        planned = [g for cluster in self._plan.clusters for g in cluster.gateways]
        seen = Frame(
            regions=tuple(str(cluster.region) for cluster in self._plan.clusters),
            on_kubernetes=self._plan.programs is not None,
            cut_off=tuple(partitioned(self._plan)),
            clients=self._clients(),
            gateways=tuple(self._pool.map(self._gateway, planned)),
        )
        try:
            view = self._loop.run_until_complete(self._view())
        except PortError as error:
            return replace(seen, leader="leader unknown", etcd_away=str(error))
        return replace(
            seen,
            leader=_leader(view),
            members=tuple(
                (str(name), "live" if name in view.heartbeats else "stale")
                for name in sorted(view.members)
            ),
            shares=_shares(view),
            drains=_drains(view),
            troubles=tuple(_quarantines(view)),
        )

    async def _view(self) -> FederationView:
        listing = await self._store.list(self._keys.state)
        return view_from(self._keys, listing.revision, listing.entries).view

    def _clients(self) -> dict[str, ClientFigures]:
        found = {}
        for cluster in self._plan.clusters:
            path = self._plan.directory / f"client-{cluster.name}.json"
            try:
                if time.time() - path.stat().st_mtime < FIGURES_AGE_S_MAX:
                    figures = ClientFigures.model_validate_json(path.read_bytes())
                    found[str(cluster.region)] = figures
            except (FileNotFoundError, ValidationError):
                continue
        return found

    def _gateway(self, gateway: GatewayPlan) -> GatewayFigures:
        try:
            stats = _get_json(f"http://{gateway.admin}/stats")
            down = down_in(_get_json(f"http://{gateway.admin}/events"), self._names)
        except OSError:
            return GatewayFigures(name=gateway.name, state=SILENT)
        own, numbers = stats["gateway"], stats["core"]["numbers"]
        age_s = own["age_s"]
        age = "" if age_s is None else f", confirmed {age_s:.0f} s ago"
        return GatewayFigures(
            name=gateway.name,
            state=f"{own['state']} v{own['version']}{age if own['state'] != 'InSync' else ''}",
            is_current=own["state"] == "InSync",
            calls_open=numbers["calls_open"],
            tries_per_s=self._rate(gateway.name, numbers["upstream_tries"]),
            retries=numbers["retries"] + numbers["transparent_retries"],
            ejections=numbers["ejections"],
            down=down,
        )

    def _rate(self, name: str, total: int) -> float:
        now = time.monotonic()
        then, before = self._tries.get(name, (now, total))
        self._tries[name] = (now, total)
        return max(total - before, 0) / (now - then) if now > then else 0.0


def _get_json(url: str) -> Any:
    with urlopen(url, timeout=ANSWER_TIMEOUT_S) as answer:
        return json.load(answer)


def names_of_addresses(plan: LabPlan) -> dict[str, str]:
    """What people call the addresses that a gateway sends calls to."""
    gateways = {g.eastwest: g.name for cluster in plan.clusters for g in cluster.gateways}
    names = dict(gateways)
    for cluster in plan.clusters:
        for route in cluster.relay.routes:
            if route.target in gateways:
                names[route.listen] = gateways[route.target]
        for endpoint in cluster.demo.endpoints:
            port = endpoint.address.rsplit(":", 1)[-1]
            names[endpoint.address] = f"{endpoint.service}:{port}"
    return names


def down_in(events: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> tuple[str, ...]:
    """Endpoints that the events, oldest first, leave down or ejected.

    Being down and being ejected end apart: an endpoint that answers again stays ejected for its
    time.
    """
    down, ejected = set[str](), set[str]()
    changes = {
        "endpoint_down": down.add,
        "endpoint_up": down.discard,
        "ejection": ejected.add,
        "uneject": ejected.discard,
    }
    for event in events:
        if (change := changes.get(str(event.get("event")))) is not None:
            change(str(event.get("address")))
    return tuple(
        f"{names.get(address, address)} {'down' if address in down else 'ejected'}"
        for address in sorted(down | ejected, key=lambda found: names.get(found, found))
    )


def _leader(view: FederationView) -> str:
    manifest = view.resolved_manifest
    if manifest is None:
        return "no resolver leads"
    return f"{manifest.resolver} leads (term {manifest.term})"


def _shares(view: FederationView) -> tuple[ShareFigures, ...]:
    return tuple(
        _share(str(service), str(source.region), share)
        for service, resolved in sorted(view.resolved.items(), key=lambda item: str(item[0]))
        for source in resolved.sources
        for share in source.shares
    )


def _share(service: str, source: str, share: ClusterShare) -> ShareFigures:
    tiers = (", ".join(m.cluster for m in tier.members) for tier in share.failover)
    return ShareFigures(
        service=service,
        source=source,
        cluster=share.cluster,
        asked_bp=share.weight_asked_bp,
        weight_bp=share.weight_bp,
        failover=" › ".join(tiers),
        reason="; ".join(dict.fromkeys(reason.code.value for reason in share.reasons)),
    )


def _drains(view: FederationView) -> tuple[DrainFigures, ...]:
    found = []
    for name, drain in sorted(view.drains.items()):
        state = view.drain_states.get(name)
        progress = "not started yet"
        if state is not None:
            left = state.remaining_bp * 100 / FULL_SHARE_BP
            progress = f"{drain_words(state)}, {left:.0f} % of its share left"
        service = None if drain.service is None else str(drain.service)
        asked_by = ""
        if drain.cluster is not None:
            asked_by = f"drain {drain_object_name(drain)} --cluster {drain.cluster}"
        found.append(DrainFigures(drain.target, service, progress, asked_by))
    return tuple(found)


def _quarantines(view: FederationView) -> list[str]:
    return [
        f"{cluster}: Quarantined: {manifest.quarantine.reason}"
        for cluster, manifest in sorted(view.manifests.items())
        if manifest.quarantine is not None
    ]
