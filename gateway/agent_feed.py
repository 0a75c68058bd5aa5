"""Configuration from the agent by xDS, with the last good one on disk under it.

Decides: what a gateway serves when it starts: the last good configuration if there is one, until
the agent has sent a complete one; and how it says so.
Leaves to others: the stream (``xds_client``), the file (``last_good``), shares of rate limits
(``quota``), what it carries (``load_stats``).
Invariants: a file that cannot be used never keeps the gateway from starting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from gateway import last_good
from gateway.load_stats import LoadReporter
from gateway.quota import QuotaClient
from gateway.runtime import Runtime
from gateway.settings import GatewaySettings
from gateway.shell import FeedState, supervised
from gateway.status import State
from gateway.xds_client import XdsClient
from gateway.xds_session import held_resources
from gateway.xds_translate import TYPE_OF_KIND

log = logging.getLogger("gateway.feed")


class AgentFeed:
    """Feeds a runtime from the agent."""

    def __init__(
        self,
        settings: GatewaySettings,
        runtime: Runtime,
        *,
        admin: Callable[[], str] = lambda: "",
    ) -> None:
        """``admin`` tells where the admin endpoint listens, for those who look for it."""
        self._admin = admin
        self._settings = settings
        self._runtime = runtime
        self._client = XdsClient(settings, runtime, on_synced=self._synced, admin=admin)
        self._quota = QuotaClient(settings, runtime.core)
        self._load = LoadReporter(settings, runtime.core, facts=self._facts)
        self._writer = last_good.LastGoodWriter(
            settings.state_dir, lambda: held_resources(self._runtime), cluster=settings.cluster
        )
        self._confirmed_at: float | None = None
        self._ever_synced = False
        self._booted = False
        self._failed: set[str] = set()

    async def boot(self) -> None:
        """Serve the last good configuration, if there is one."""
        try:
            stored = await asyncio.to_thread(
                last_good.load, self._settings.state_dir, cluster=self._settings.cluster
            )
        except last_good.LastGoodError as failure:
            log.warning("last good configuration not used", extra={"why": str(failure)})
            return
        if stored is None:
            return
        await self._runtime.replace(
            {
                kind: [r for r in stored.resources if r.resource.type_url == type_url]
                for kind, type_url in TYPE_OF_KIND.items()
            }
        )
        self._confirmed_at = stored.written_at
        self._booted = True
        log.info("serving from snapshot", extra={"resources": len(stored.resources)})

    async def run(self) -> None:
        """Follow the agent and keep the file, for ever."""
        async with asyncio.TaskGroup() as group:
            # Each for itself: what breaks rate limits must not end the configuration.
            group.create_task(supervised("xds", self._client.run))
            group.create_task(supervised("last good", self._writer.run))
            group.create_task(supervised("quota", self._quota.run))
            group.create_task(supervised("load", self._load.run))

    async def leave(self) -> None:
        """Take leave of the agent, so that it advertises this gateway no longer."""
        self._load.leave()
        await self._client.leave()
        await self._quota.leave()

    def changed(self) -> None:
        """Have the file written, once the agent has confirmed a complete configuration.

        A listener that could be opened after all is asked for again, so that its refusal ends.
        """
        if self._ever_synced:
            self._writer.changed()
        failed = {name for name, error in self._runtime.listeners.items() if error}
        opened = self._failed & self._runtime.listeners.keys() - failed
        self._failed = failed
        if opened:
            self._client.ask_again(opened)

    def state(self) -> FeedState:
        """In sync, or how old the configuration is and why."""
        contact = self._client.contact
        heard_at = contact.last_heard_at or self._confirmed_at
        age_s = None if heard_at is None else round(time.time() - heard_at, 3)
        reasons = (contact.error, self._writer.error, self._quota.why)
        why = "; ".join(text for text in reasons if text) or None
        if contact.synced:
            return FeedState(State.IN_SYNC, 0.0, why)
        if self._ever_synced:
            return FeedState(State.AGENT_AWAY, age_s, why)
        state = State.SERVING_FROM_SNAPSHOT if self._booted else State.STARTING
        return FeedState(state, age_s, why)

    def _facts(self) -> dict[str, Any]:
        """What this gateway says about itself beside its load."""
        state = self.state()
        return {
            "state": state.state.value,
            "config_version": self._runtime.version,
            "config_age_s": state.age_s or 0.0,
            "admin": self._admin(),
        }

    def _synced(self) -> None:
        log.info("in sync with the agent", extra={"version": self._runtime.version})
        self._ever_synced = True
        self._writer.changed()
