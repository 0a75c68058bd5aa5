"""Ports: what the services need from the outside, as Protocols; ``adapters`` implement them.

Decides: the vocabulary between services and adapters, and what each call promises.
Leaves to others: every implementation; ``cli`` alone chooses among them.
Invariants: no foreign type or exception crosses a port; temporary and permanent failures are
different exceptions; everything that waits can be cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from federation.model.base import ServiceName
from federation.model.events import ObjectEvent
from federation.model.infrastructure import MadeObject, ServedPort
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot
from federation.model.snapshot import Snapshot
from federation.model.status import ObjectStatus


class PortError(Exception):
    """Base of what adapters raise."""


class TemporaryError(PortError):
    """The other side is away or busy; the same call may succeed later."""


class StoreUnavailable(TemporaryError):  # noqa: N818 - reads as a fact where it is caught
    """The store cannot be reached or has no quorum; the message names its addresses."""


class StoreRefused(PortError):  # noqa: N818
    """The store answered and said no (too large, not permitted); the same call fails again."""


class LeaseLost(PortError):  # noqa: N818
    """The lease under a key ended before its owner did; what it guarded is no longer held."""


MAX_WRITES = 128
"""Writes in one ``Store.commit``: etcd's default limit of operations in one transaction."""


class Clock(Protocol):
    """Time, injected so that tests move it."""

    def now(self) -> float:
        """Unix time in seconds; for display and for drains' ramps, never for precedence."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow; for time-outs and rates."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of the store. Revisions are etcd's: store-wide, totally ordered, assigned by it."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    leased: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A prefix at one store revision, sorted by key."""

    revision: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Put:
    """Write ``value`` at ``key``; under ``lease`` if given (a lease's id)."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove ``key``; nothing happens if it is not there."""

    key: str


@dataclass(frozen=True, slots=True)
class Absent:
    """Guard of a transaction: ``key`` does not exist."""

    key: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Guard of a transaction: ``key`` is still at ``mod_revision``."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class CreatedAt:
    """Guard of a transaction: ``key`` exists and was created at ``create_revision`` (fencing)."""

    key: str
    create_revision: int


Guard = Absent | Unchanged | CreatedAt
Write = Put | Delete


class Lease(Protocol):
    """A lease that its adapter keeps alive until it is left or lost."""

    @property
    def id(self) -> int:
        """The store's identifier, for ``Put.lease``."""
        ...

    async def lost(self) -> None:
        """Return when the lease has ended against our will."""
        ...


class Leadership(Protocol):
    """Leadership held in an election. ``term`` fences: it is the create_revision of ``key``."""

    @property
    def key(self) -> str:
        """The election key held; guard writes with ``CreatedAt(key, term)``."""
        ...

    @property
    def term(self) -> int:
        """Grows with every new leader of the same election."""
        ...

    async def lost(self) -> None:
        """Return when leadership has ended against our will."""
        ...


class Term(Protocol):
    """A time of leading the agents of a cluster."""

    @property
    def name(self) -> str:
        """Unlike any other term's: what is written in the store is fenced by it."""
        ...

    async def lost(self) -> None:
        """Return when another agent was seen to lead; silence ends no term."""
        ...


class Seat(Protocol):
    """Which of a cluster's agents leads: one at a time."""

    @property
    def identity(self) -> str:
        """This agent's name, unlike that of any other process."""
        ...

    def campaign(self) -> AbstractAsyncContextManager[Term]:
        """Wait until we lead, for as long as it takes; leaving gives the lead back."""
        ...


class Store(Protocol):
    """A consistent key-value store with leases, watches and elections (etcd, or memory)."""

    async def get(self, key: str) -> Entry | None:
        """The entry at ``key``. Raises ``StoreUnavailable``."""
        ...

    async def list(self, prefix: str) -> Listing:
        """All entries under ``prefix`` at one revision. Raises ``StoreUnavailable``."""
        ...

    async def commit(self, writes: Sequence[Write], *, guards: Sequence[Guard] = ()) -> int | None:
        """Apply all writes at once if all guards hold.

        Returns the store revision of the write, or ``None`` if a guard failed and nothing was
        written. At most 128 writes and one write for each key (etcd's limits for one transaction),
        else ``ValueError``. Raises ``LeaseLost`` when a ``Put`` names a lease that has ended, and
        ``StoreUnavailable``; the outcome is then unknown and the caller reads back.
        """
        ...

    def mirror(self, prefix: str) -> AsyncGenerator[Listing, None]:
        """The prefix now and after every change, as complete immutable listings, for ever.

        Changes that arrive together come as one listing; a slow reader skips to the newest. The
        adapter resumes from the last revision after a lost connection, lists anew after compaction
        and periodically against lost events, and yields nothing while the store is away. A store
        whose revision has gone backwards (restored from an old backup) is not believed: the mirror
        keeps waiting and logs it. Close it (``contextlib.aclosing``) when reading ends early.
        """
        ...

    def lease(self, *, ttl_s: float, lasting: bool = False) -> AbstractAsyncContextManager[Lease]:
        """Hold a lease; leaving revokes it, or lets a ``lasting`` one run out.

        Raises ``StoreUnavailable`` on entering.
        """
        ...

    def campaign(
        self, election: str, *, identity: str, ttl_s: float
    ) -> AbstractAsyncContextManager[Leadership]:
        """Wait until we lead ``election`` (a key prefix); leaving resigns.

        Raises ``StoreUnavailable`` on entering, also when the candidacy ends while waiting.
        """
        ...

    async def close(self) -> None:
        """Release connections; mirrors and leases end."""
        ...


@dataclass(frozen=True, slots=True)
class Changed:
    """One change of one key: ``None`` stands for its absence, before (created) or after (deleted).

    ``known`` is false where what was there before has been compacted away.
    """

    key: str
    revision: int
    before: bytes | None
    after: bytes | None
    known: bool = True


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes up to ``revision``, in order. ``past``: they were made before anybody looked.

    ``gap``: what came before them is not known (compacted, or too long ago); ``since`` is the first
    revision that these can be of.
    """

    revision: int
    entries: tuple[Changed, ...]
    past: bool = False
    gap: bool = False
    since: int = 0


class StoreHistory(Protocol):
    """A store that remembers changes for a while (etcd: until it is compacted)."""

    def history(self, prefix: str, *, revisions_max: int) -> AsyncGenerator[Changes, None]:
        """Changes below ``prefix``, the last ``revisions_max`` revisions first, then for ever.

        Yields nothing while the store is away.
        """
        ...


class ObjectSource(Protocol):
    """Where a cluster's objects come from: Kubernetes, universal (the store) or a folder."""

    def snapshots(self) -> AsyncGenerator[ObjectSnapshot, None]:
        """Complete snapshots, newest first to a slow reader; the first one only when synced.

        A bad object is reported inside the snapshot (``ObjectSnapshot.rejected``) and stops no
        other.
        """
        ...

    def accept_loss(self) -> None:
        """Believe that what is missing is meant to be gone, where that was doubted: an operator
        says so. Seen in the next snapshot."""
        ...


class StatusSink(Protocol):
    """Where statuses of objects are written back."""

    def forget(self) -> None:
        """Believe nothing of what was written before: another agent has written since."""
        ...

    async def write(self, statuses: Mapping[ObjectKey, ObjectStatus]) -> None:
        """Bring the stored statuses to ``statuses``; unchanged ones are not written.

        Sets ``last_transition_time`` where a condition's status changed. Raises ``TemporaryError``.
        """
        ...


class DerivedObjects(Protocol):
    """Objects that follow from the federation's state and are kept in the cluster by us alone."""

    async def write(self, objects: Mapping[ObjectKey, ApiObject]) -> bool:
        """Bring the objects that are ours to ``objects``; what is not among them is deleted.

        One of the same name that is somebody else's is left as it is. False when some were refused:
        they will be again as long as they are the same. Raises ``TemporaryError`` after all were
        tried.
        """
        ...


class HostNames(Protocol):
    """The names of hosts, as the machine's resolver knows them."""

    async def addresses(self, name: str) -> Sequence[str]:
        """The IP addresses of ``name``, at least one. Raises ``TemporaryError``."""
        ...


class GatewayInfrastructure(Protocol):
    """Deployments, Services and ServiceAccounts of Gateways that have gateways of their own."""

    async def write(
        self, wanted: Mapping[ObjectKey, Sequence[MadeObject]], *, kept: Collection[ObjectKey]
    ) -> Mapping[ObjectKey, str]:
        """Bring what is ours to ``wanted``, by Gateway; what could not be made, by Gateway.

        What belongs to none of ``wanted`` and ``kept`` is deleted; what somebody else made is left
        as it is and told. Raises ``TemporaryError`` when nothing can be read.
        """
        ...


class ServicePorts(Protocol):
    """The ports that we add to a Service which is somebody else's."""

    async def write(
        self, service: ServiceName, ports: Sequence[ServedPort], *, uid: str | None
    ) -> None:
        """Bring the ports of ``service`` that are ours to ``ports``; the others stay.

        Raises ``PortError``, also when the Service is no longer the one of that ``uid``.
        """
        ...


class EventSink(Protocol):
    """Where people are told what happened to an object."""

    async def write(self, event: ObjectEvent) -> None:
        """Tell ``event``; one told before is counted, or left alone if it is ``known``.

        Raises ``TemporaryError``. One that is refused is dropped.
        """
        ...


class SnapshotSink(Protocol):
    """Who serves compiled snapshots to the gateways."""

    def publish(self, snapshot: Snapshot) -> int:
        """Serve ``snapshot`` from now on; returns its generation. An equal one changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class BoardPage:
    """What clusters wrote in one window of time that is over; windows count up by one."""

    window: int
    entries: Mapping[str, bytes]


class QuotaBoard(Protocol):
    """Where agents of all clusters tell each other what is asked of shared rate limits (Redis).

    Nothing on it is worth keeping: an empty board is filled again within two windows.
    """

    async def exchange(self, cluster: str, value: bytes) -> BoardPage:
        """Write ``value`` for ``cluster`` into the present window; the window before it.

        All who ask in one window are given the same page. Raises ``StoreUnavailable`` and
        ``StoreRefused``.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
