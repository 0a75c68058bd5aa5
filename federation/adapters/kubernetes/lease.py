"""Which of a cluster's agents leads: a ``coordination.k8s.io`` Lease.

Decides: when the Lease is taken, renewed, given back, and when its holder may not count on it.
Leaves to others: what a leader does (``agent``), fencing in the store (``agent.claim``).
Invariants: clocks of machines are never compared: a Lease is free when nobody has renewed it for
its duration by our own monotonic clock, and our hold ends by the same clock, counted from before
the renewal was sent; every write rests on the version that was read, so of two candidates one
wins; a hold that has run out while the API server was away goes on if nobody has taken it.

    waiting ──free, written──▶ leading ──not renewed in time──▶ lapsed ──renewed──▶ leading
       ▲                          └────────── another holds it ──────┴──▶ lost ─┐
       └────────────────────────────────────────────────────────────────────────┘

The client's own leader election neither gives a Lease back nor survives a lost connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from federation.adapters.kubernetes.connection import (
    ApiServerAway,
    ChangedMeanwhile,
    Connection,
    Json,
    ResourceAbsent,
)
from federation.aio import cancel_and_wait
from federation.ports import PortError

log = logging.getLogger(__name__)

API = "/apis/coordination.k8s.io/v1"
RELEASE_S = 2.0
"""How long giving the Lease back may take; then it runs out by itself."""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """The Lease ``namespace``/``name``; ``identity`` is the Pod's name, for people who look.

    ``duration_s``: how long a silent holder is waited for, so also how long statuses and exports
    wait when an agent dies; ``renew_s``: how often it is renewed; ``look_s``: how often a candidate
    looks, so at most how long a Lease that was given back is nobody's.
    """

    namespace: str
    name: str
    identity: str
    duration_s: float = 6.0
    renew_s: float = 1.5
    look_s: float = 0.5

    @property
    def path(self) -> str:
        """Where the Lease is."""
        return f"{API}/namespaces/{self.namespace}/leases/{self.name}"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a Lease said, and since when (our clock) it has said the same."""

    holder: str
    renewed: str
    duration_s: float
    since_s: float


class KubernetesTerm:
    """One hold of the Lease; implements ``ports.Term``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ended = asyncio.Event()
        self.valid_until_s = 0.0

    def __repr__(self) -> str:
        return f"KubernetesTerm({self._name}, {'ended' if self._ended.is_set() else 'held'})"

    @property
    def name(self) -> str:
        """Unlike the name of any other hold."""
        return self._name

    @property
    def ended(self) -> bool:
        """Whether somebody else was seen to hold the Lease."""
        return self._ended.is_set()

    async def lost(self) -> None:
        """Return when somebody else was seen to hold the Lease."""
        await self._ended.wait()

    def end(self) -> None:
        """Note that somebody else holds it."""
        self._ended.set()


class KubernetesSeat:
    """A candidate for the Lease; implements ``ports.Seat``. One campaign at a time."""

    def __init__(self, connection: Connection, settings: LeaseSettings) -> None:
        self._connection = connection
        self._settings = settings
        # Another process of the same Pod, or under the same name by mistake, is somebody else.
        self._identity = f"{settings.identity}_{uuid4().hex[:8]}"
        self._seen: _Seen | None = None
        self._version: str | None = None
        self._transitions = 0
        self._acquired = ""
        self._term: KubernetesTerm | None = None
        self._problem = ""

    def __repr__(self) -> str:
        state = "waiting" if self._term is None else "leading" if self.holds() else "lapsed"
        return f"KubernetesSeat({self._settings.namespace}/{self._settings.name}, {state})"

    @property
    def identity(self) -> str:
        """The name under which the Lease is held."""
        return self._identity

    def holds(self) -> bool:
        """Whether the Lease is ours now, by our own clock."""
        return self._term is not None and _now_s() < self._term.valid_until_s

    @asynccontextmanager
    async def campaign(self) -> AsyncGenerator[KubernetesTerm, None]:
        """Wait until the Lease is ours; leaving gives it back."""
        term = await self._until_ours()
        keeper = asyncio.create_task(self._keep(term), name="keep the agents' lease")
        try:
            yield term
        finally:
            await cancel_and_wait(keeper)
            self._term = None
            if not term.ended:
                await self._release()

    # Waiting.

    async def _until_ours(self) -> KubernetesTerm:
        while True:
            sent_s = _now_s()
            try:
                async with asyncio.timeout(self._settings.duration_s):
                    taken = await self._look()
            except (PortError, TimeoutError) as error:
                self._tell(error)
                taken = False
            else:
                self._problem = ""
            if taken:
                term = KubernetesTerm(f"{self._identity}.{self._transitions}")
                term.valid_until_s = sent_s + self._settings.duration_s
                self._term = term
                log.info("the agents' lease is ours", extra={"term": term.name})
                return term
            spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
            await asyncio.sleep(self._settings.look_s * spread)

    async def _look(self) -> bool:
        """Read the Lease, and take it if it is free; whether it is ours now."""
        try:
            found = await self._connection.get(self._settings.path)
        except ResourceAbsent:
            self._seen, self._version, self._transitions = None, None, -1
            return await self._take()
        seen = self._note(found)
        if seen.holder == self._identity:  # ours by a write whose answer was lost
            return await self._take(again=True)
        if seen.holder and _now_s() - seen.since_s < seen.duration_s:
            return False
        return await self._take()

    def _note(self, found: Json) -> _Seen:
        """Remember what ``found`` says, with since when it says so."""
        spec = found.get("spec") or {}
        holder, renewed = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
        self._version = str(found["metadata"]["resourceVersion"])
        self._transitions = int(spec.get("leaseTransitions") or 0)
        self._acquired = str(spec.get("acquireTime") or "")
        before = self._seen
        if before is None or (before.holder, before.renewed) != (holder, renewed):
            # A holder that says less than we do is given our time all the same.
            told_s = float(spec.get("leaseDurationSeconds") or 0)
            duration_s = max(told_s, self._settings.duration_s)
            self._seen = before = _Seen(holder, renewed, duration_s, _now_s())
        return before

    async def _take(self, *, again: bool = False) -> bool:
        if not again:
            self._transitions += 1
            self._acquired = _timestamp()
        try:
            await self._write(self._identity)
        except (ChangedMeanwhile, ResourceAbsent):
            return False
        return True

    # Holding.

    async def _keep(self, term: KubernetesTerm) -> None:
        """Renew until somebody else holds the Lease."""
        settings = self._settings
        while True:
            await asyncio.sleep(settings.renew_s)
            sent_s = _now_s()
            try:
                async with asyncio.timeout(settings.duration_s / 2):
                    ours = await self._renew()
            except (PortError, TimeoutError) as error:
                self._tell(error)
                continue
            if not ours:
                term.end()
                holder = self._seen.holder if self._seen is not None else ""
                log.warning("the agents' lease is another's", extra={"holder": holder})
                return
            if self._problem:
                log.info("the agents' lease is renewed again", extra={"term": term.name})
            self._problem = ""
            term.valid_until_s = sent_s + settings.duration_s

    async def _renew(self) -> bool:
        """Write the Lease anew; false when it is another's."""
        try:
            await self._write(self._identity)
        except ResourceAbsent:
            self._version = None  # somebody deleted it: whoever makes it first has it
            await self._write(self._identity)
        except ChangedMeanwhile:
            found = await self._connection.get(self._settings.path)
            if self._note(found).holder != self._identity:
                return False
            await self._write(self._identity)
        return True

    async def _release(self) -> None:
        with suppress(PortError, TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await self._write("")
                log.info("the agents' lease is given back")

    async def _write(self, holder: str) -> None:
        """Put the Lease under ``holder``, at the version known or as a new one."""
        settings = self._settings
        metadata = {"name": settings.name, "namespace": settings.namespace}
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(settings.duration_s)),
            "acquireTime": self._acquired,
            "renewTime": _timestamp(),
            "leaseTransitions": max(0, self._transitions),
        }
        body: Json = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        }
        if self._version is None:
            written = await self._connection.post(settings.path.rpartition("/")[0], body)
        else:
            metadata["resourceVersion"] = self._version
            written = await self._connection.put(settings.path, body)
        self._version = str(written["metadata"]["resourceVersion"])

    def _tell(self, error: Exception) -> None:
        """One line for each change of what is wrong."""
        reason = str(error) or f"no answer in {self._settings.duration_s:g} s"
        if not self._problem:
            log.warning("the agents' lease cannot be had or renewed", extra={"reason": reason})
        self._problem = reason


def not_leading(seat: KubernetesSeat) -> PortError | None:
    """Why nothing may be written to the API server now; ``None`` while the Lease is held."""
    if seat.holds():
        return None
    return ApiServerAway("the agents' lease is not held now; nothing is written without it")


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _timestamp() -> str:
    """For people and other programs; nothing here reads it but to see that it has changed."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
