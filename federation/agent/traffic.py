"""Tells the federation what this cluster's gateways carry.

Decides: how often (every ``EVERY_S``, while it changes), and that a report which cannot be written
in time is dropped: the next one says more.
Leaves to others: what gateways report (``discovery``), adding up (``derive.traffic``), the lease
and the claim that it is written under (``presence``).
Invariants: nothing waits for it and nothing depends on it; one write at a time; a report ends with
the heartbeat's lease, so that of a cluster that is gone nobody believes that it goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from federation.agent.presence import Hold, Presence
from federation.agent.settings import AgentSettings
from federation.derive.traffic import aggregate
from federation.model.load import GatewayLoad
from federation.model.traffic_report import TrafficReport
from federation.ports import Clock, PortError, Put, Store, StoreRefused
from federation.telemetry import catalogue, count
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import traffic_to_bytes

log = logging.getLogger(__name__)

EVERY_S = 2.0
"""How often a report is written at most; gateways report at the same pace."""

REFUSED_WAIT_S = 30.0
"""Wait after the store has refused a report (the right is missing), which it will again."""


class TrafficWriter:
    """Keeps the report of the cluster while ``run`` runs: while this agent leads."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        store: Store,
        keys: Keys,
        presence: Presence,
        loads: Callable[[], Iterable[GatewayLoad]],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._key = keys.traffic_of(settings.cluster)
        self._presence = presence
        self._loads = loads
        self._clock = clock
        self._said: tuple[TrafficReport, Hold] | None = None
        self._dropping = False

    def __repr__(self) -> str:
        return f"TrafficWriter({self._key}, dropping={self._dropping})"

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            wait_s = await self._tell()
            await asyncio.sleep(wait_s)

    async def _tell(self) -> float:
        """Write what is new, once; how long to wait."""
        hold = self._presence.hold
        if hold is None:
            return EVERY_S
        report = aggregate(
            self._loads(),
            cluster=self._settings.cluster,
            region=self._settings.region,
            at=round(self._clock.now(), 3),
        )
        if self._said is not None and self._said[1] == hold and self._said[0].says_the_same(report):
            return EVERY_S
        self._said = None
        try:
            async with asyncio.timeout(EVERY_S):
                written = await self._store.commit(
                    [Put(self._key, traffic_to_bytes(report), hold.lease.id)], guards=[hold.guard]
                )
        except (PortError, TimeoutError) as failure:
            self._drop(str(failure) or f"no answer within {EVERY_S:g} s")
            return REFUSED_WAIT_S if isinstance(failure, StoreRefused) else EVERY_S
        if written is not None:  # else the claim has gone, and the presence sees to it
            count(catalogue.TRAFFIC_REPORTS, "written")
            self._said = (report, hold)
            self._dropping = False
        return EVERY_S

    def _drop(self, why: str) -> None:
        count(catalogue.TRAFFIC_REPORTS, "dropped")
        if not self._dropping:
            log.warning("reports of live traffic are dropped for now", extra={"reason": why})
        self._dropping = True
