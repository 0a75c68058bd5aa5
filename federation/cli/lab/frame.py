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
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

from pydantic import ValidationError

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.cli.lab.client import ClientFigures
from federation.cli.lab.faults import partitioned
from federation.cli.lab.plan import GatewayPlan, LabPlan
from federation.model.resolved import FULL_SHARE_BP, ClusterShare
from federation.model.view import FederationView
from federation.ports import PortError
from federation.wire.etcd import view_from
from federation.wire.etcd_keys import Keys

ANSWER_TIMEOUT_S = 0.5
FIGURES_AGE_S_MAX = 4.0


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


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything a frame shows."""

    leader: str = "none"
    members: tuple[tuple[str, str], ...] = ()
    clients: Mapping[str, ClientFigures] = field(default_factory=dict)
    shares: tuple[ShareFigures, ...] = ()
    drains: tuple[str, ...] = ()
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

    def collect(self) -> Frame:
        """Ask everybody."""
        troubles = [f"{region} is cut off (partition)" for region in partitioned(self._plan)]
        planned = [g for cluster in self._plan.clusters for g in cluster.gateways]
        gateways = tuple(self._pool.map(self._gateway, planned))
        try:
            view = self._loop.run_until_complete(self._view())
        except PortError as error:
            return Frame(
                clients=self._clients(),
                gateways=gateways,
                troubles=(*troubles, f"etcd is away: {error}"),
            )
        return Frame(
            leader=_leader(view),
            members=tuple(
                (str(name), "live" if name in view.heartbeats else "stale")
                for name in sorted(view.members)
            ),
            clients=self._clients(),
            shares=_shares(view),
            drains=_drains(view),
            gateways=gateways,
            troubles=(*troubles, *_quarantines(view)),
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
            down = _down(_get_json(f"http://{gateway.admin}/events"))
        except OSError:
            return GatewayFigures(name=gateway.name, state="does not answer")
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


def _down(events: list[dict[str, Any]]) -> tuple[str, ...]:
    """Endpoints that the newest events leave down or ejected."""
    state: dict[str, str] = {}
    for event in events:
        kind, address = event.get("event"), str(event.get("address"))
        if kind in ("ejection", "endpoint_down"):
            state[address] = "ejected" if kind == "ejection" else "down"
        elif kind in ("uneject", "endpoint_up"):
            state.pop(address, None)
    return tuple(f"{address} {word}" for address, word in sorted(state.items()))


def _leader(view: FederationView) -> str:
    manifest = view.resolved_manifest
    return "none" if manifest is None else f"{manifest.resolver} (term {manifest.term})"


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


def _drains(view: FederationView) -> tuple[str, ...]:
    lines = []
    for name, drain in sorted(view.drains.items()):
        state = view.drain_states.get(name)
        of = f" of {drain.service}" if drain.service else ""
        if state is None:
            lines.append(f"{drain.target}{of}: not started yet")
        else:
            left = state.remaining_bp * 100 / FULL_SHARE_BP
            lines.append(f"{drain.target}{of}: {state.phase}, {left:.0f} % of its share left")
    return tuple(lines)


def _quarantines(view: FederationView) -> list[str]:
    return [
        f"{cluster}: Quarantined: {manifest.quarantine.reason}"
        for cluster, manifest in sorted(view.manifests.items())
        if manifest.quarantine is not None
    ]
