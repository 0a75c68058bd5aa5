"""The other agents of the cluster: what each tells of its gateways, exchanged through the store.

Decides: when ours is told (at a change, at most every ``TELL_EVERY_S``), and what is believed of
the others while the store is away: what they said last.
Leaves to others: what is told and how it counts (``derive.agents``), who leads (a ``Seat``).
Invariants: what an agent told ends with its lease, so gateways of one that died count no more; our
own gateways are known here whether the store is there or not.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from federation.agent.routing import Routing
from federation.agent.settings import AgentSettings
from federation.aio import Backoff, Latest, any_change, cancel_and_wait, retrying
from federation.derive.agents import configuration, together, told
from federation.model.acks import AckView
from federation.model.facts import AgentView
from federation.ports import Lease, LeaseLost, Put, Store, TemporaryError
from federation.wire.etcd import from_bytes, to_bytes
from federation.wire.etcd_keys import Keys

log = logging.getLogger(__name__)

TELL_EVERY_S = 0.5
"""Each publication makes every gateway outdated for a moment; that is not worth telling."""


class Colleagues:
    """Tells the others, hears them; ``acks`` is what all know together."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        identity: str,
        store: Store,
        keys: Keys,
        routing: Latest[Routing],
        acks: Latest[AckView],
    ) -> None:
        """``acks`` are those of gateways connected here."""
        self._settings = settings
        self._identity = identity
        self._store = store
        self._keys = keys
        self._routing = routing
        self._own = acks
        self._others: Latest[tuple[AgentView, ...]] = Latest(())
        self._configured: tuple[Routing, str] | None = None
        self.acks: Latest[AckView] = Latest(acks.value or AckView())

    def __repr__(self) -> str:
        return f"Colleagues({self._identity}, others={len(self._others.value or ())})"

    async def hear(self) -> None:
        """Keep what the others tell, for ever."""
        cluster = self._settings.cluster
        async with aclosing(self._store.mirror(self._keys.agents(cluster))) as listings:
            async for listing in listings:
                own = self._keys.agent(cluster, self._identity)
                others = [entry for entry in listing.entries if entry.key != own]
                read = (_read(entry.key, entry.value) for entry in others)
                self._others.set(tuple(view for view in read if view is not None))

    async def merge(self) -> None:
        """Keep ``acks`` at what all know, for ever."""
        async with aclosing(any_change(self._own, self._others, self._routing)) as changes:
            async for _ in changes:
                own = self._own.value or AckView()
                self.acks.set(
                    together(own, self._others.value or (), configured=self._published(own))
                )

    async def tell(self) -> None:
        """Tell the others of our gateways, for ever."""
        while True:
            await retrying(
                self._tell_under_lease,
                on=(TemporaryError, LeaseLost),
                backoff=Backoff(max_s=1.0),
                before_wait=self._note,
            )

    async def _tell_under_lease(self) -> None:
        async with self._store.lease(ttl_s=self._settings.heartbeat_ttl_s) as lease:
            lost = asyncio.create_task(lease.lost(), name="agent's lease")
            telling = asyncio.create_task(self._tell_changes(lease), name="tell colleagues")
            try:
                await asyncio.wait({lost, telling}, return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    telling.result()
            finally:
                await cancel_and_wait(telling)
                await cancel_and_wait(lost)

    async def _tell_changes(self, lease: Lease) -> None:
        key = self._keys.agent(self._settings.cluster, self._identity)
        said: AgentView | None = None
        changes = any_change(self._own, self._routing, settle_s=TELL_EVERY_S)
        async with aclosing(changes):
            async for _ in changes:
                own = self._own.value or AckView()
                view = told(self._identity, own, configured=self._published(own))
                if view != said:
                    await self._store.commit([Put(key, to_bytes(view), lease.id)])
                    said = view

    def _published(self, own: AckView) -> str:
        """What our newest publication was made of; empty while it is not known."""
        routing = self._routing.value
        if routing is None or routing.generation != own.generation:
            return ""
        if self._configured is None or self._configured[0] is not routing:
            made_of = configuration(routing.compiled.statuses, routing.inputs.objects.objects)
            self._configured = (routing, made_of)
        return self._configured[1]

    def _note(self, failure: Exception, attempt: int, _wait_s: float) -> None:
        if attempt == 1:
            log.warning("other agents are not told", extra={"reason": str(failure)})


def _read(key: str, value: bytes) -> AgentView | None:
    try:
        return from_bytes(AgentView, value)
    except ValueError as error:
        log.warning("what another agent tells cannot be read", extra={"key": key, "why": error})
        return None
