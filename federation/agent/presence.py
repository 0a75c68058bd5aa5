"""The heartbeat: the sign of life of the cluster's agent, under a lease.

Decides: when a claim and a lease are taken anew, and that an agent is not alive which can write but
does not hear: its own heartbeats come back to it by the watch that all its knowledge comes by, and
while they do not, it gives the heartbeat up.
Leaves to others: the claim's rules (``claim``), what readers conclude (``Stale``, no more).
Invariants: nothing is written without the claim; losing the store ends the heartbeat and nothing
else; leaving revokes the lease, so an agent that was stopped shows as stale at once. Where other
agents of the cluster can go on, it runs out instead, and theirs takes its place before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from federation.agent.claim import Claim, claim
from federation.agent.settings import AgentSettings
from federation.aio import Backoff, cancel_and_wait, retrying
from federation.model.facts import Heartbeat, Member
from federation.ports import (
    Clock,
    Guard,
    Lease,
    LeaseLost,
    Put,
    Store,
    StoreUnavailable,
    TemporaryError,
)
from federation.telemetry import catalogue, gauge
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys

log = logging.getLogger(__name__)

RETRY_WAIT_S_MAX = 1.0
"""Longest wait before the store is asked again after a loss."""

DEAF_AFTER_S = 10.0
"""A heartbeat that has not come back after this time never will: the watch itself notices a lost
connection within 3 s, and the longest compilation takes a few."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What a present agent writes under: its heartbeat's lease, guarded by its claim."""

    guard: Guard
    lease: Lease


class Presence:
    """Keeps claim and heartbeat; ``hold`` is there while both are."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        store: Store,
        keys: Keys,
        member: Member,
        observe: Callable[[], tuple[int, int]],
        degraded: Callable[[], tuple[str, ...]],
        clock: Clock,
    ) -> None:
        """``observe`` tells the newest revision seen and the number of connected gateways;
        ``degraded`` what the cluster does without; ``clock`` is shown to those who compare."""
        self._settings = settings
        self._store = store
        self._keys = keys
        self._member = member
        self._observe = observe
        self._degraded = degraded
        self._clock = clock
        self._state = "starting"
        self._unheard: tuple[int, float] | None = None
        self.claimed = asyncio.Event()
        self.hold: Hold | None = None

    def __repr__(self) -> str:
        return f"Presence({self._member.cluster}, {self._state})"

    async def run(self) -> None:
        """Be present for ever. Raises ``NameTakenError`` when the name is another's, and
        ``OvertakenError`` when another agent of the cluster leads."""
        backoff = Backoff(max_s=RETRY_WAIT_S_MAX)
        while True:
            await retrying(
                self._be_present,
                on=(TemporaryError, LeaseLost),
                backoff=backoff,
                before_wait=lambda failure, _tries, _wait: self._enter("away", str(failure)),
            )

    async def _be_present(self) -> None:
        """Claim, hold a lease, beat until the lease or the claim is lost."""
        shared = bool(self._member.leader)
        held = await claim(
            self._store,
            self._keys,
            self._member,
            overtake=not (shared and self.claimed.is_set()),
        )
        self.claimed.set()
        await self._until_hearing()
        ttl_s = self._settings.heartbeat_ttl_s
        async with self._store.lease(ttl_s=ttl_s, lasting=shared) as lease:
            lost = asyncio.create_task(lease.lost(), name="heartbeat lease")
            try:
                while not lost.done() and await self._beat(held, lease):
                    self.hold = Hold(held.guard, lease)
                    await asyncio.wait({lost}, timeout=self._settings.heartbeat_every_s)
            finally:
                self.hold = None
                await cancel_and_wait(lost)
        if self._state != "deaf":
            self._enter("away", "the lease or the claim was lost")

    async def _until_hearing(self) -> None:
        """Wait while a heartbeat of ours has not come back."""
        # At the pace of heartbeats, which tell what is observed here in any case.
        while self._unheard is not None and self._observe()[0] < self._unheard[0]:  # noqa: ASYNC110
            await asyncio.sleep(self._settings.heartbeat_every_s)
        self._unheard = None

    def _deaf(self, revision: int) -> bool:
        """Whether a heartbeat that was written long ago is not among what has been seen."""
        if self._unheard is None:
            return False
        written, at_s = self._unheard
        if revision >= written:
            self._unheard = None
            return False
        return asyncio.get_running_loop().time() - at_s > DEAF_AFTER_S

    async def _beat(self, held: Claim, lease: Lease) -> bool:
        """One heartbeat; false when the claim has gone, or we hear nothing.

        A store that is away is waited for.
        """
        revision, gateways = self._observe()
        if self._deaf(revision):
            self._enter("deaf", f"nothing has been heard from the store since revision {revision}")
            return False
        beat = Heartbeat(
            cluster=self._member.cluster,
            instance=self._member.instance,
            seen_revision=revision,
            version=self._settings.version,
            gateways_connected=gateways,
            degraded=self._degraded(),
            sent_ms=int(self._clock.now() * 1000),
        )
        key = self._keys.heartbeat(self._member.cluster)
        try:
            written = await self._store.commit(
                [Put(key, to_bytes(beat), lease.id)], guards=[held.guard]
            )
        except StoreUnavailable as error:
            self._enter("away", str(error))
            self._unheard = None  # nobody hears anything now
            return True
        if written is None:
            return False
        self._unheard = self._unheard or (written, asyncio.get_running_loop().time())
        self._enter("present", "")
        return True

    def _enter(self, state: str, reason: str) -> None:
        """One line for each change of state."""
        if state != self._state:
            self._state = state
            gauge(catalogue.PRESENT, float(state == "present"))
            level = logging.INFO if state == "present" else logging.WARNING
            log.log(level, "heartbeat is %s", state, extra={"reason": reason})
