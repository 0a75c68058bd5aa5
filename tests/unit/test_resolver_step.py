"""One step of the leading resolver: which writes follow from a view."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import Drain, DrainTargetKind
from federation.model.facts import ExportFact, Heartbeat, Member, ServicePort
from federation.model.view import FederationView
from federation.ports import MAX_WRITES, Delete, Put, Write
from federation.resolver import ResolverSettings
from federation.resolver.service import BATCH_BYTES_MAX, batches
from federation.resolver.step import Leader, Step, Stored, step
from federation.wire.etcd import checksum
from federation.wire.etcd_keys import Keys

KEYS = Keys()
USERS = ServiceName(namespace="app", name="user-service")
WEST = ClusterId("us-west-1")
LEADER = Leader(term=5, identity="one")


def world(*services: ServiceName) -> FederationView:
    return FederationView(
        members={WEST: Member(cluster=WEST, region=Region(WEST), instance="i")},
        heartbeats={WEST: Heartbeat(cluster=WEST, instance="i", seen_revision=1, version="1")},
        exports={
            service: {
                WEST: ExportFact(
                    cluster=WEST,
                    region=Region(WEST),
                    service=service,
                    ports=(ServicePort(port=9090),),
                    ready=1,
                    total=1,
                    capacity=1,
                )
            }
            for service in services
        },
    )


def next_step(view: FederationView, last: Step | None = None, *, now_ms: int = 0) -> Step:
    stored = last.after if last else Stored.of(view)
    before = last.resolution if last else None
    return step(view, stored=stored, before=before, leader=LEADER, keys=KEYS, now_ms=now_ms)


def test_the_manifest_is_the_last_write_and_seals_what_is_stored() -> None:
    found = next_step(world(USERS))
    first, last = found.writes
    assert isinstance(first, Put)
    assert first.key == KEYS.resolved(USERS)
    assert last.key == KEYS.resolved_manifest
    manifest = found.after.manifest
    assert manifest is not None
    assert (manifest.term, manifest.count, manifest.epoch) == (5, 1, 1)
    assert manifest.checksum == checksum({first.key: first.value})


def test_applying_twice_changes_nothing() -> None:
    first = next_step(world(USERS))
    again = next_step(world(USERS), first)
    assert again.writes == ()
    assert again.wait_ms is None


def test_only_what_changed_is_written() -> None:
    orders = ServiceName(namespace="app", name="orders")
    first = next_step(world(USERS))
    second = next_step(world(USERS, orders), first)
    assert [write.key for write in second.writes] == [
        KEYS.resolved(orders),
        KEYS.resolved_manifest,
    ]
    third = next_step(world(USERS), second)
    assert third.writes[0] == Delete(KEYS.resolved(orders))


def test_silence_is_noted_and_changes_no_service() -> None:
    first = next_step(world(USERS))
    silent = next_step(replace(world(USERS), heartbeats={}), first, now_ms=7_000)
    assert [write.key for write in silent.writes] == [KEYS.resolved_manifest]
    later = next_step(replace(world(USERS), heartbeats={}), silent, now_ms=9_000)
    assert later.writes == ()
    assert later.after.manifest is not None
    assert [entry.since_ms for entry in later.after.manifest.silent] == [7_000]


def test_an_expired_drain_is_deleted_together_with_the_turn_of_its_state() -> None:
    drain = Drain(
        name=WEST,
        target_kind=DrainTargetKind.REGION,
        target=WEST,
        over_ms=0,
        grace_ms=0,
        expires_ms=1_000,
    )
    view = replace(world(USERS), drains={drain.name: drain})
    started = next_step(view)
    assert started.wait_ms == 1_000
    ended = next_step(view, started, now_ms=1_000)
    assert [write.key for write in ended.writes[:2]] == [
        KEYS.drain(drain.name),
        KEYS.drain_state(drain.name),
    ]
    assert ended.after.drain_states[drain.name].returning


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"identity": ""}, "identity must not be empty"),
        ({"identity": "x", "lease_ttl_s": 0.5}, "lease_ttl_s must be between 1 and 60"),
        ({"identity": "x", "coalesce_s": 2.0}, "coalesce_s must be between 0 and 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResolverSettings(**settings)


def test_commits_are_bounded_by_number_and_by_size() -> None:
    small = [Put(f"k{n}", b"x") for n in range(MAX_WRITES + 1)]
    assert [len(batch) for batch in batches(small)] == [MAX_WRITES, 1]
    half = b"x" * (BATCH_BYTES_MAX // 2)
    large: list[Write] = [
        Put("a", half),
        Put("b", half),
        Delete("c"),
        Put("d", half * 3),
        Put("e", b""),
    ]
    found = list(batches(large))
    assert [[write.key for write in batch] for batch in found] == [["a", "b", "c"], ["d"], ["e"]]
    assert list(batches([])) == []
