"""The endpoints of clusters in an update: whole sets, or only what changed.

Decides: which of the two a cluster's change is. A set whose change is a small part of it travels as
that part; to write and read all of 100,000 endpoints for one that moved would take seconds.
Leaves to others: which pieces are in force (``gateway.assembly``).
Invariants: pure; a set may stand in several pieces (shards), which count together; of an address
that two of them have, as while shards are cut anew, the last one's word holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.xds_translate import Kind, Piece, PieceId

DELTA_PART_MAX = 4
"""A change of more than one in so many endpoints is sent as a whole set, which costs no more."""

_Key = tuple[str, str, int]
"""What tells localities of a cluster apart: member cluster, region, priority."""
_Places = dict[str, tuple[_Key, dict[str, Any]]]
"""Endpoints by address, each with its locality."""
_Weights = dict[_Key, int]


class EndpointChanges:
    """What an update says about endpoints: its ``endpoints``, ``endpoint_deltas`` and removals.

    ``owners`` has, for each entry of these lists, the pieces that it was made of.
    """

    def __init__(self) -> None:
        self.sets: list[dict[str, Any]] = []
        self.deltas: list[dict[str, Any]] = []
        self.emptied: list[str] = []
        self.owners: dict[str, list[tuple[Piece, ...]]] = {"endpoints": [], "endpoint_deltas": []}

    def add(self, cluster: str, before: Sequence[Piece], after: Sequence[Piece]) -> None:
        """Bring ``cluster`` from the pieces ``before`` to those ``after``."""
        if not after:
            if before:
                self.emptied.append(cluster)
            return
        delta = _delta(cluster, before, after) if before else None
        known = {id(piece) for piece in before}
        owners = tuple(piece for piece in after if id(piece) not in known)
        if delta is None:
            self.sets.append(_whole(cluster, after))
            self.owners["endpoints"].append(owners)
        elif delta["localities"] or delta["removed"]:
            self.deltas.append(delta)
            self.owners["endpoint_deltas"].append(owners)


def endpoint_changes(
    in_force: Mapping[PieceId, Piece], upserts: Iterable[Piece], removed: Iterable[PieceId]
) -> EndpointChanges:
    """What ``upserts`` and ``removed`` mean for the endpoints of clusters."""
    new = {piece.id: piece for piece in upserts if piece.id.kind is Kind.ENDPOINTS}
    gone = {piece_id for piece_id in removed if piece_id.kind is Kind.ENDPOINTS}
    touched = {piece_id.cluster for piece_id in (*new, *gone)}
    changes = EndpointChanges()
    if not touched:
        return changes
    before: defaultdict[str, list[Piece]] = defaultdict(list)
    for piece_id, piece in in_force.items():
        if piece_id.kind is Kind.ENDPOINTS and piece_id.cluster in touched:
            before[piece_id.cluster].append(piece)
    for cluster in sorted(touched):
        after = {piece.id: piece for piece in before[cluster] if piece.id not in gone}
        after.update((piece_id, piece) for piece_id, piece in new.items() if _of(piece_id, cluster))
        ordered = [after[piece_id] for piece_id in sorted(after)]
        changes.add(cluster, sorted(before[cluster], key=lambda piece: piece.id), ordered)
    return changes


def _of(piece_id: PieceId, cluster: str) -> bool:
    return piece_id.cluster == cluster


def _whole(cluster: str, pieces: Sequence[Piece]) -> dict[str, Any]:
    if len(pieces) == 1:
        return pieces[0].body
    places, weights = _places(pieces), _weights(pieces)
    return {"cluster": cluster, "localities": _localities(places, weights, weights)}


def _delta(cluster: str, before: Sequence[Piece], after: Sequence[Piece]) -> dict[str, Any] | None:
    """The change from ``before`` to ``after``; ``None`` if a whole set is no dearer."""
    old, new = _differing(before, after)
    was, now = _places(old), _places(new)
    moved = {address: place for address, place in now.items() if was.get(address) != place}
    gone = sorted(was.keys() - now.keys())
    if (len(moved) + len(gone)) * DELTA_PART_MAX > sum(map(_size, after)):
        return None
    old_weights, weights = _weights(before), _weights(after)
    changed = [key for key, weight in weights.items() if old_weights.get(key) != weight]
    keys = dict.fromkeys([*changed, *(key for key, _ in moved.values())])
    return {
        "cluster": cluster,
        "localities": _localities(moved, weights, keys),
        "removed": gone,
    }


def _differing(
    before: Sequence[Piece], after: Sequence[Piece]
) -> tuple[Sequence[Piece], Sequence[Piece]]:
    """The pieces to compare: those that are not the same, unless the cut itself has changed."""
    if [piece.id for piece in before] != [piece.id for piece in after]:
        return before, after
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old is not new]
    return [old for old, _ in pairs], [new for _, new in pairs]


def _key(locality: Mapping[str, Any]) -> _Key:
    return locality["cluster_id"], locality["region"], locality["priority"]


def _size(piece: Piece) -> int:
    return sum(len(locality["endpoints"]) for locality in piece.body["localities"])


def _places(pieces: Iterable[Piece]) -> _Places:
    return {
        endpoint["address"]: (_key(locality), endpoint)
        for piece in pieces
        for locality in piece.body["localities"]
        for endpoint in locality["endpoints"]
    }


def _weights(pieces: Iterable[Piece]) -> _Weights:
    return {
        _key(locality): locality["weight"]
        for piece in pieces
        for locality in piece.body["localities"]
    }


def _localities(places: _Places, weights: _Weights, keys: Iterable[_Key]) -> list[dict[str, Any]]:
    endpoints: defaultdict[_Key, list[dict[str, Any]]] = defaultdict(list)
    for key, endpoint in places.values():
        endpoints[key].append(endpoint)
    return [
        {
            "cluster_id": key[0],
            "region": key[1],
            "priority": key[2],
            "weight": weights[key],
            "endpoints": endpoints[key],
        }
        for key in keys
    ]
