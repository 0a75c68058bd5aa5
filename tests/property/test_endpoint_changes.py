"""What an update says of endpoints brings a core to what is in force, however sets are cut."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoint_changes import endpoint_changes
from gateway.xds_translate import Kind, Piece, PieceId

Key = tuple[str, str, int]
Places = dict[str, tuple[Key, dict[str, Any]]]

KEYS = st.sampled_from([("west", "us-west", 0), ("east", "us-east", 1), ("east", "us-east", 2)])
ENDPOINT = st.fixed_dictionaries({"health": st.sampled_from(["healthy", "draining"])})
SETS = st.dictionaries(st.integers(0, 24), st.tuples(KEYS, ENDPOINT), max_size=25)
WEIGHTS = st.fixed_dictionaries(
    {key: st.integers(1, 2) for key in (("west", "us-west", 0), ("east", "us-east", 1))}
)
STEPS = st.lists(st.tuples(SETS, WEIGHTS, st.sampled_from([1, 1, 1, 2, 4])), max_size=6)


def cut(
    members: dict[int, tuple[Key, dict[str, str]]], weights: dict[Key, int], shards: int
) -> dict[PieceId, Piece]:
    """The pieces that an agent would send; a shard without endpoints is one without localities."""
    pieces = {}
    for shard in range(shards):
        localities: dict[Key, dict[str, Any]] = {}
        for number, (key, endpoint) in members.items():
            if number % shards != shard:
                continue
            head = dict(zip(("cluster_id", "region", "priority"), key, strict=True))
            place = localities.setdefault(
                key, head | {"weight": weights.get(key, 1), "endpoints": []}
            )
            place["endpoints"].append({"address": f"10.0.0.{number}:80", **endpoint})
        name = "c" if shards == 1 else f"c#{shard}.{shards}"
        body = {"cluster": "c", "localities": list(localities.values())}
        pieces[PieceId(Kind.ENDPOINTS, name)] = Piece(PieceId(Kind.ENDPOINTS, name), body)
    return pieces


class ModelCore:
    """Endpoints of one cluster as the core keeps them."""

    def __init__(self) -> None:
        self.places: Places = {}
        self.weights: dict[Key, int] = {}

    def take(self, localities: list[dict[str, Any]]) -> None:
        for locality in localities:
            key = (locality["cluster_id"], locality["region"], locality["priority"])
            self.weights[key] = locality["weight"]
            for endpoint in locality["endpoints"]:
                self.places[endpoint["address"]] = (key, endpoint)

    def seen(self) -> tuple[Places, dict[Key, int]]:
        used = {key for key, _ in self.places.values()}
        return self.places, {key: weight for key, weight in self.weights.items() if key in used}


@given(STEPS)
def test_sets_and_changes_lead_to_what_is_in_force(
    steps: list[tuple[dict[int, Any], dict[Key, int], int]],
) -> None:
    in_force: dict[PieceId, Piece] = {}
    core = ModelCore()
    for members, weights, shards in steps:
        wanted = cut(members, weights, shards)
        upserts = [piece for piece in wanted.values() if in_force.get(piece.id) != piece]
        removed = [piece_id for piece_id in in_force if piece_id not in wanted]
        changes = endpoint_changes(in_force, upserts, removed)
        assert len(changes.sets) + len(changes.deltas) + len(changes.emptied) <= 1
        for whole in changes.sets:
            core.places, core.weights = {}, {}
            core.take(whole["localities"])
        for delta in changes.deltas:
            named = [it["address"] for place in delta["localities"] for it in place["endpoints"]]
            assert len({*named, *delta["removed"]}) == len(named) + len(delta["removed"])
            for address in delta["removed"]:
                del core.places[address]
            core.take(delta["localities"])
        in_force = {**{i: p for i, p in in_force.items() if i not in removed}}
        in_force.update((piece.id, piece) for piece in upserts)
        expected = ModelCore()
        for piece in wanted.values():
            expected.take(piece.body["localities"])
        assert core.seen() == expected.seen()


def test_one_endpoint_of_many_travels_alone() -> None:
    members = {number: (("west", "us-west", 0), {"health": "healthy"}) for number in range(200)}
    before = cut(members, {}, 4)
    after = cut(members | {7: (("west", "us-west", 0), {"health": "draining"})}, {}, 4)
    upserts = [piece for piece in after.values() if before[piece.id] != piece]
    changes = endpoint_changes(before, upserts, [])
    (delta,) = changes.deltas
    assert [len(place["endpoints"]) for place in delta["localities"]] == [1]
    assert changes.owners["endpoint_deltas"] == [tuple(upserts)]
    assert len(upserts) == 1


def test_what_is_no_shard_is_a_name() -> None:
    names = {"a": "a", "a#3.64": "a", "a#b": "a#b", "a#": "a#", "a#1.2.3": "a#1.2.3"}
    for name, cluster in names.items():
        assert PieceId(Kind.ENDPOINTS, name).cluster == cluster
