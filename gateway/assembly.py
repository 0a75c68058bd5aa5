"""Which pieces are in force, and the update that brings the core there.

Decides: consistency. A piece comes into force when all that it needs is in force or comes with it;
until then the last good one of its name stays, and what that one needs stays too, even if the
control plane has removed it. So updates in any order never make a route lose its cluster.
Leaves to others: translating (``xds_translate``), applying and its verdicts (``runtime``).
Invariants: pure values in, pure values out; what is in force always refers to what is in force; a
refused piece is not tried again until another one arrives of its name or of one that it needs.

    wanted --needs met--> in force           (waiting while they are not)
    wanted --core says no--> refused         (the last good one stays in force)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.endpoint_changes import endpoint_changes
from gateway.xds_translate import Kind, Piece, PieceId

MAKE_ORDER = (
    Kind.SECRETS,
    Kind.CLUSTERS,
    Kind.ENDPOINTS,
    Kind.ROUTE_TABLES,
    Kind.LISTENERS,
)
"""A piece needs only pieces of kinds before its own."""

BREAK_ORDER = tuple(reversed(MAKE_ORDER))

Pieces = Mapping[PieceId, Piece]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of what is in force: pieces to insert or replace, and names to remove."""

    upserts: tuple[Piece, ...]
    removed: tuple[PieceId, ...]

    def __bool__(self) -> bool:
        return bool(self.upserts or self.removed)


@dataclass(slots=True)
class Assembly:
    """The pieces asked for, in force, and refused. One task owns it."""

    wanted: dict[PieceId, Piece] = field(default_factory=dict)
    in_force: dict[PieceId, Piece] = field(default_factory=dict)
    refused: dict[PieceId, tuple[Piece, str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Assembly(wanted={len(self.wanted)}, in_force={len(self.in_force)}, "
            f"refused={len(self.refused)})"
        )

    def want(self, pieces: Collection[Piece], removed: Iterable[PieceId] = ()) -> None:
        """Take what the control plane asks for now."""
        changed = {piece.id for piece in pieces if self.wanted.get(piece.id) != piece}
        self.wanted.update((piece.id, piece) for piece in pieces)
        for piece_id, (refused, _) in list(self.refused.items()):
            if piece_id in changed or refused.needs & changed:
                del self.refused[piece_id]
        for piece_id in removed:
            self.wanted.pop(piece_id, None)
            self.refused.pop(piece_id, None)

    def refuse(self, piece: Piece, message: str) -> None:
        """Keep ``piece`` out of force; ``message`` says why."""
        self.refused[piece.id] = (piece, message)

    def target(self) -> Pieces:
        """What shall be in force, given what is wanted, refused and in force now."""
        target: dict[PieceId, Piece] = {}
        for kind in MAKE_ORDER:
            for piece in self._of(kind):
                chosen = self._choose(piece, target)
                if chosen is not None:
                    target[piece.id] = chosen
        self._keep_needed(target)
        return target

    def change_to(self, target: Pieces) -> Change:
        """The difference between what is in force and ``target``, in the order of making."""
        upserts = [
            piece for piece_id, piece in target.items() if self.in_force.get(piece_id) != piece
        ]
        removed = [piece_id for piece_id in self.in_force if piece_id not in target]
        return Change(
            tuple(sorted(upserts, key=lambda piece: (MAKE_ORDER.index(piece.id.kind), piece.id))),
            tuple(sorted(removed, key=lambda gone: (BREAK_ORDER.index(gone.kind), gone))),
        )

    def applied(self, change: Change) -> None:
        """Record that the core took ``change``."""
        for piece in change.upserts:
            self.in_force[piece.id] = piece
        for piece_id in change.removed:
            self.in_force.pop(piece_id, None)

    def waiting(self, piece_id: PieceId) -> tuple[PieceId, ...]:
        """What the wanted piece still lacks; empty when it is in force, refused or not wanted."""
        piece = self.wanted.get(piece_id)
        if piece is None or piece_id in self.refused or self.in_force.get(piece_id) == piece:
            return ()
        # What is in force but no longer wanted is kept for others, not for newcomers.
        met = self.in_force.keys() & self.wanted.keys()
        return tuple(sorted(piece.needs - met))

    def _of(self, kind: Kind) -> list[Piece]:
        return [piece for piece_id, piece in self.wanted.items() if piece_id.kind is kind]

    def _choose(self, piece: Piece, target: Pieces) -> Piece | None:
        """The wanted piece if it can be in force, else the last good one of its name."""
        refused = self.refused.get(piece.id)
        if (refused is None or refused[0] != piece) and piece.needs <= target.keys():
            return piece
        return self.in_force.get(piece.id)

    def _keep_needed(self, target: dict[PieceId, Piece]) -> None:
        """Keep in force what pieces of ``target`` need though nobody asks for it any more."""
        todo = list(target.values())
        while todo:
            for need in todo.pop().needs:
                kept = self.in_force.get(need)
                if need not in target and kept is not None:
                    target[need] = kept
                    todo.append(kept)
        for piece_id, piece in self.in_force.items():
            # Endpoints are needed by nobody, but a cluster that is kept keeps its own.
            if piece_id.kind is Kind.ENDPOINTS and piece_id not in target:
                cluster = PieceId(Kind.CLUSTERS, piece_id.cluster)
                if cluster in target and cluster not in self.wanted:
                    target[piece_id] = piece


@dataclass(frozen=True, slots=True)
class Update:
    """What the core is told, and for each entry of each list the pieces that it was made of."""

    body: dict[str, Any]
    owners: Mapping[str, Sequence[tuple[Piece, ...]]]

    def culprits(self, path: str) -> tuple[tuple[Piece, ...], str]:
        """The pieces that a refusal by the core is about, and the path inside them.

        The core's paths are ``LIST[INDEX].field`` in the update, or ``LIST(NAME).field`` for a
        piece that the update does not carry: an assembled update breaks none, so nobody is to
        blame for such a path.
        """
        head, _, rest = path.partition(".")
        list_name, _, index_text = head.partition("[")
        if not index_text.endswith("]") or not index_text[:-1].isdigit():
            return (), path
        owners = self.owners.get(list_name, ())
        index = int(index_text[:-1])
        return (owners[index], rest) if index < len(owners) else ((), path)


def update_for(change: Change, in_force: Pieces, *, version: str) -> Update:
    """The core's update for ``change``: insert or replace by name, and remove."""
    endpoints = endpoint_changes(in_force, change.upserts, change.removed)
    owners: dict[str, Sequence[tuple[Piece, ...]]] = dict(endpoints.owners)
    body: dict[str, Any] = {"version": version, "full": False}
    for kind in MAKE_ORDER:
        if kind is not Kind.ENDPOINTS:
            pieces = [piece for piece in change.upserts if piece.id.kind is kind]
            body[kind] = [piece.body for piece in pieces]
            owners[kind] = [(piece,) for piece in pieces]
    body |= {"endpoints": endpoints.sets, "endpoint_deltas": endpoints.deltas}
    removed = {
        kind: [gone.name for gone in change.removed if gone.kind is kind] for kind in MAKE_ORDER
    }
    body["removed"] = removed | {Kind.ENDPOINTS: endpoints.emptied}
    return Update(body, owners)
