"""Clusters around a quota board: parts by demand, one limit for all, and clusters that are lost."""

from __future__ import annotations

import random

import pytest

from federation.model.quota import Bucket, SharedLimit
from federation.model.snapshot import LimitUnit
from federation.quota import QuotaSettings
from federation.quota.clusters import ClusterParts
from federation.wire import quota_board

SETTINGS = QuotaSettings()
ONE = SharedLimit("one", 1_000, LimitUnit.HOUR, keyed=False)
KEYED = SharedLimit("keyed", 100, LimitUnit.HOUR, keyed=True)
LIMITS = {limit.name: limit for limit in (ONE, KEYED)}
KEY = Bucket("keyed", "ff")


class World:
    """Clusters that exchange pages once a second."""

    def __init__(self, *names: str) -> None:
        self.now_s = 0.0
        self.clusters = {name: ClusterParts(SETTINGS, cluster=name) for name in names}
        self.demand: dict[str, dict[Bucket, int]] = {name: {} for name in names}
        self.used: dict[str, dict[Bucket, int]] = {name: {} for name in names}
        for parts in self.clusters.values():
            parts.begin(LIMITS, len(names))

    def turn(self, *away: str) -> None:
        """One window; those ``away`` neither write nor read."""
        page = {
            name: quota_board.to_bytes(parts.entry(self.demand[name], self.used[name]))
            for name, parts in self.clusters.items()
            if name not in away
        }
        self.now_s += 1
        for name, parts in self.clusters.items():
            if name not in away:
                parts.take(page, LIMITS, self.now_s)

    def parts(self, bucket: Bucket) -> list[int]:
        return [
            parts.parts.get(bucket, parts.parts[Bucket(bucket.limit)])
            for parts in self.clusters.values()
        ]


def test_before_the_first_page_parts_are_even() -> None:
    assert World("east", "west").parts(Bucket("one")) == [500, 500]


def test_parts_follow_the_demand_and_leave_what_was_used() -> None:
    world = World("east", "west")
    world.demand["west"] = {Bucket("one"): 9, KEY: 9}
    world.turn()
    assert world.parts(Bucket("one")) == [50, 950]
    assert world.parts(KEY) == [5, 95]
    assert world.parts(Bucket("keyed", "00")) == [50, 50], "as nobody has named it"
    world.used["west"] = {Bucket("one"): 950}
    world.demand = {"east": {Bucket("one"): 9}, "west": {}}
    world.turn()
    assert world.parts(Bucket("one")) == [25, 975], "what was used stays, half of the rest too"


def test_a_cluster_that_is_away_keeps_its_part_for_a_while() -> None:
    world = World("east", "west")
    world.turn()
    world.demand["west"] = {Bucket("one"): 9}
    world.turn("east")
    assert world.parts(Bucket("one")) == [500, 500], "it may go on with it"
    for _ in range(int(SETTINGS.hold_s)):
        world.turn("east")
    assert world.parts(Bucket("one"))[1] == 1_000
    world.turn()
    assert sum(world.parts(Bucket("one"))) == 1_000


def test_an_entry_that_cannot_be_read_is_none() -> None:
    for raw in (b"", b"[]", b'{"one": 3}', b'{"one": {"": [1, 2]}}', b'{"one": {"": [1, 2, -3]}}'):
        assert quota_board.from_bytes(raw) is None
    entry = World("west").clusters["west"].entry({KEY: 7}, {KEY: 3})
    assert quota_board.from_bytes(quota_board.to_bytes(entry)) == entry


@pytest.mark.parametrize("seed", range(20))
def test_parts_never_sum_to_more_than_the_limit(seed: int) -> None:
    """Of clusters that read every page, whatever is asked of whom."""
    rng = random.Random(seed)
    world = World("a", "b", "c")
    buckets = [Bucket("one"), *(Bucket("keyed", str(key)) for key in range(4))]
    for _ in range(60):
        for name in world.clusters:
            world.demand[name] = {b: rng.randrange(1_000) for b in buckets if rng.random() < 0.5}
            world.used[name] = {
                bucket: rng.randrange(1 + part)
                for bucket in buckets
                if (part := world.clusters[name].parts.get(bucket, 0)) and rng.random() < 0.5
            }
        world.turn()
        for bucket in buckets:
            assert sum(world.parts(bucket)) <= LIMITS[bucket.limit].requests, (seed, bucket)
