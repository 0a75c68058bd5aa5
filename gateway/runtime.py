"""The gateway's configuration: what arrived, what of it is in force, and what is not and why.

Decides: that one bad resource is refused alone and its last good version stays; that pieces are
applied together when they fit together.
Leaves to others: transport (``xds_client``), consistency (``assembly``), traffic (the core).
Invariants: the core is called by one task at a time; every resource that arrived is in force,
refused with a message, or waiting for something it needs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from envoy.service.discovery.v3 import discovery_pb2

from gateway.assembly import Assembly, Change, Update, update_for
from gateway.errors import SnapshotRejected
from gateway.reach import with_own_routes
from gateway.xds_translate import Kind, Piece, PieceId, UnsupportedFieldError, translate
from gateway.xds_translate.telemetry import resolve_environment

log = logging.getLogger("gateway.runtime")

IDENTITY = PieceId(Kind.SECRETS, "federation/identity")
TRUST_BUNDLE = PieceId(Kind.SECRETS, "federation/trust-bundle")
OWN_SECRETS = frozenset({IDENTITY, TRUST_BUNDLE})
"""Secrets that a gateway brings along as files; the control plane only names them."""

LISTENER_RETRIED = "free the port or choose another; it is tried again every few seconds"
"""What to do about a listener that the core cannot open (the shell tries again)."""


class Core(Protocol):
    """What the shell asks of the native core (see ``gateway._native``)."""

    def start(self) -> None:
        """Start the workers."""
        ...

    def apply(self, update: bytes) -> bytes:
        """Apply an update; the reply lists the listeners. Raises ``SnapshotRejected``."""
        ...

    def set_health(self, cluster: str, address: str, healthy: bool) -> None:
        """Tell the result of active health checks."""
        ...

    def take_limit_demand(self, keys_max: int, all: bool) -> bytes:  # noqa: A002
        """Take what was asked of global rate limits, as a JSON list."""
        ...

    def set_limit_shares(self, shares: bytes) -> None:
        """Set this gateway's shares of global rate limits, a JSON list."""
        ...

    def set_known_methods(self, methods: bytes) -> None:
        """Name methods that reflection knows, a JSON list."""
        ...

    def take_telemetry(self, max_bytes: int) -> list[tuple[str, str, int, bytes]]:
        """Take spans and log records: (collector, ``traces`` or ``logs``, items, message)."""
        ...

    def reopen_logs(self) -> None:
        """Open files of access logs again."""
        ...

    def set_tap(self, filter: bytes | None) -> None:  # noqa: A002
        """Show live calls that fit a filter, a JSON object, or no more."""
        ...

    def take_tap(self, max: int) -> bytes:  # noqa: A002
        """Take live calls as lines of JSON."""
        ...

    def drain(self, grace_ms: int) -> None:
        """Begin to drain everything."""
        ...

    def drained(self) -> bool:
        """Whether the drain is over."""
        ...

    def stop(self) -> None:
        """End the workers."""
        ...

    def stats(self) -> bytes:
        """Counters as JSON."""
        ...

    def loads(self) -> bytes:
        """Tries by where they go, as JSON."""
        ...

    def events(self, max: int) -> bytes:  # noqa: A002
        """State changes since the last call, as a JSON list."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of some resources: messages of those refused, needs of those waiting."""

    refused: Mapping[str, str]
    waiting: Mapping[str, tuple[PieceId, ...]]


@dataclass(slots=True)
class Runtime:
    """Owns the core's configuration. ``on_change`` is told when what is in force has changed.

    ``environment`` is where tags of spans come from that are variables.
    """

    core: Core
    has_identity: bool = False
    has_own_services: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    on_change: Callable[[], None] = lambda: None
    assembly: Assembly = field(default_factory=Assembly)
    listeners: dict[str, str | None] = field(default_factory=dict)
    version: int = 0
    _untranslated: dict[PieceId, str] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __repr__(self) -> str:
        return f"Runtime(version={self.version}, {self.assembly})"

    @property
    def in_force(self) -> Mapping[PieceId, Piece]:
        """The pieces in force."""
        return self.assembly.in_force

    async def accept(
        self, kind: Kind, resources: Iterable[discovery_pb2.Resource], removed: Iterable[str] = ()
    ) -> None:
        """Take resources of one type that the control plane sends, and names it has removed."""
        gone = [PieceId(kind, name) for name in removed]
        pieces = [piece for r in resources if (piece := self._translate(kind, r)) is not None]
        for piece_id in gone:
            self._untranslated.pop(piece_id, None)
        async with self._lock:
            self.assembly.want(pieces, gone)
            await self._settle()

    async def replace(self, resources: Mapping[Kind, Collection[discovery_pb2.Resource]]) -> None:
        """Take ``resources`` as everything the control plane says, in one change."""
        pieces = [
            piece
            for kind, entries in resources.items()
            for resource in entries
            if (piece := self._translate(kind, resource)) is not None
        ]
        named = {PieceId(kind, r.name) for kind, entries in resources.items() for r in entries}
        self._untranslated = {i: why for i, why in self._untranslated.items() if i in named}
        async with self._lock:
            wanted = self.assembly.wanted.items()
            gone = [i for i, piece in wanted if piece.origin is not None and i not in named]
            self.assembly.want(pieces, gone)
            await self._settle()

    async def put(self, pieces: Collection[Piece]) -> None:
        """Take pieces made on this side of the wire (identity files)."""
        async with self._lock:
            self.assembly.want(pieces)
            await self._settle()

    async def retry_listeners(self) -> None:
        """Have the core try again to open listeners that it could not open."""
        async with self._lock:
            if any(self.listeners.values()):
                before = dict(self.listeners)
                nothing = Change((), ())
                update = update_for(nothing, self.in_force, version=str(self.version + 1))
                await self._apply(nothing, update)
                if self.listeners != before:
                    self.on_change()

    def verdict(self, kind: Kind, names: Iterable[str]) -> Verdict:
        """What became of the newest resources of these names."""
        refused: dict[str, str] = {}
        waiting: dict[str, tuple[PieceId, ...]] = {}
        for name in names:
            piece_id = PieceId(kind, name)
            if (message := self._refusal(piece_id)) is not None:
                refused[name] = message
            elif needs := self.assembly.waiting(piece_id):
                waiting[name] = needs
        return Verdict(refused, waiting)

    def refusals(self) -> dict[PieceId, str]:
        """Everything refused at present."""
        ids = {
            *self._untranslated,
            *self.assembly.refused,
            *(PieceId(Kind.LISTENERS, name) for name, error in self.listeners.items() if error),
        }
        return {i: message for i in sorted(ids) if (message := self._refusal(i)) is not None}

    def _refusal(self, piece_id: PieceId) -> str | None:
        if piece_id in self._untranslated:
            return self._untranslated[piece_id]
        if piece_id in self.assembly.refused:
            return self.assembly.refused[piece_id][1]
        if piece_id.kind is Kind.LISTENERS and piece_id in self.assembly.wanted:
            error = self.listeners.get(piece_id.name)
            return f"{error}; {LISTENER_RETRIED}" if error else None
        return None

    def _translate(self, kind: Kind, resource: discovery_pb2.Resource) -> Piece | None:
        piece_id = PieceId(kind, resource.name)
        self._untranslated.pop(piece_id, None)
        known = self.assembly.wanted.get(piece_id)
        if known is not None and known.origin is not None and known.origin == resource:
            return known
        try:
            piece = translate(kind, resource.name, resource.resource)
            piece = piece if self.has_identity else _without_identity(piece)
            piece = resolve_environment(piece, self.environment)
            if self.has_own_services and kind is Kind.ROUTE_TABLES:
                piece = with_own_routes(piece)
        except UnsupportedFieldError as refusal:
            self._untranslated[piece_id] = str(refusal)
            return None
        return dataclasses.replace(piece, origin=resource)

    async def _settle(self) -> None:
        """Bring the core to what is wanted, leaving out what it refuses, one piece a round."""
        while change := self.assembly.change_to(self.assembly.target()):
            update = update_for(change, self.in_force, version=str(self.version + 1))
            try:
                await self._apply(change, update)
            except SnapshotRejected as rejection:
                self._leave_out(change, update, rejection)
                continue
            self.assembly.applied(change)
            self.on_change()
            return  # the target is reached: nothing that could change it has happened since

    async def _apply(self, change: Change, update: Update) -> None:
        encoded = json.dumps(update.body).encode()
        reply = json.loads(await asyncio.to_thread(self.core.apply, encoded))
        self.version += 1
        self.listeners = {entry["name"]: entry["error"] for entry in reply["listeners"]}
        log.debug(
            "configuration applied",
            extra={
                "version": self.version,
                "upserts": len(change.upserts),
                "removed": len(change.removed),
            },
        )

    def _leave_out(self, change: Change, update: Update, rejection: SnapshotRejected) -> None:
        found, path = update.culprits(rejection.path)
        guilty = found or change.upserts
        for piece in guilty:
            message = f"{path}: {rejection.message}" if path else rejection.message
            self.assembly.refuse(piece, message)
            log.error("resource refused", extra={"resource": str(piece.id), "why": message})
        if not guilty:  # a removal alone broke something: the assembly is inconsistent, a bug
            raise rejection


def _without_identity(piece: Piece) -> Piece:
    """``piece`` for a gateway without identity files: it can neither call peers nor be called."""
    if not piece.needs & OWN_SECRETS:
        return piece
    if piece.id.kind is not Kind.CLUSTERS:
        raise UnsupportedFieldError(
            "transport_socket",
            "needs this gateway's identity, and it was started without one "
            "(--identity-cert, --identity-key, --trust-bundle)",
        )
    return dataclasses.replace(
        piece, body=piece.body | {"peer_tls": None}, needs=piece.needs - OWN_SECRETS
    )
