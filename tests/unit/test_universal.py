"""Objects and statuses kept in the store: generations, ages, conflicts, transition times."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from federation.adapters.memory import MemoryStore
from federation.adapters.universal import (
    ApplyOutcome,
    ConflictError,
    UniversalObjects,
    UniversalSource,
    UniversalStatusSink,
)
from federation.model.base import ClusterId
from federation.model.conditions import Condition, ConditionStatus
from federation.model.objects import ApiObject, ObjectKey, Service
from federation.model.status import ObjectStatus
from federation.ports import Put
from federation.wire.etcd_keys import Keys
from federation.wire.manifests import decode_value

KEYS = Keys()
WEST = ClusterId("west")


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1_000_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def service(name: str = "user", port: int = 50051, label: str = "a") -> ApiObject:
    value = decode_value(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "app", "labels": {"v": label}},
            "spec": {"ports": [{"port": port}]},
        },
        origin="test",
    )
    assert isinstance(value, ApiObject)
    return value


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def objects(store: MemoryStore, clock: HandClock) -> UniversalObjects:
    return UniversalObjects(store, KEYS, WEST, clock)


async def test_the_generation_rises_with_the_spec_only(objects: UniversalObjects) -> None:
    outcomes = [
        await objects.apply(service()),
        await objects.apply(service()),
        await objects.apply(service(label="b")),
        await objects.apply(service(label="b", port=50052)),
    ]
    assert [(entry.outcome, entry.object.metadata.generation) for entry in outcomes] == [
        (ApplyOutcome.CREATED, 1),
        (ApplyOutcome.UNCHANGED, 1),
        (ApplyOutcome.CONFIGURED, 1),
        (ApplyOutcome.CONFIGURED, 2),
    ]


async def test_an_object_keeps_its_creation_over_changes(
    objects: UniversalObjects, clock: HandClock
) -> None:
    first = (await objects.apply(service())).object
    clock.time += 60
    second = (await objects.apply(service(port=50052))).object
    assert first.metadata.creation_timestamp == second.metadata.creation_timestamp
    assert first.metadata.creation_timestamp == "2001-09-09T01:46:40Z"
    assert first.creation_order == second.creation_order
    assert first.metadata.uid == second.metadata.uid


async def test_recreation_loses_seniority(objects: UniversalObjects) -> None:
    older = (await objects.apply(service("a"))).object
    await objects.apply(service("b"))
    assert await objects.delete(older.key)
    assert not await objects.delete(older.key)
    await objects.apply(service("a"))
    assert [entry.metadata.name for entry in await objects.list()] == ["b", "a"]


async def test_a_patch_of_an_old_version_is_refused(objects: UniversalObjects) -> None:
    first = (await objects.apply(service())).object
    await objects.apply(service(port=50052))
    with pytest.raises(ConflictError, match="applying Service app/user: it was changed by others"):
        await objects.apply(service(port=50053), resource_version=first.metadata.resource_version)


async def test_writers_at_once_lose_nothing(objects: UniversalObjects) -> None:
    await objects.apply(service())
    await asyncio.gather(*(objects.apply(service(port=50060 + step)) for step in range(5)))
    found = await objects.get(ObjectKey("", "Service", "app", "user"))
    assert found is not None
    assert found.metadata.generation == 6


async def test_the_source_reports_a_bad_object_and_keeps_its_last_good_version(
    store: MemoryStore, objects: UniversalObjects
) -> None:
    stored = (await objects.apply(service())).object
    async with (
        asyncio.timeout(5),
        aclosing(UniversalSource(store, KEYS, WEST).snapshots()) as snapshots,
    ):
        assert list((await anext(snapshots)).objects) == [stored.key]
        await store.commit([Put(KEYS.object(WEST, stored.key), b'{"kind": 1}')])
        broken = await anext(snapshots)
        assert isinstance(broken.objects[stored.key], Service)
        assert broken.synced
        assert "apiVersion" in broken.rejected[stored.key].message
        await store.commit([Put(KEYS.object(WEST, stored.key), b"nonsense")])
        assert "not valid JSON" in (await anext(snapshots)).rejected[stored.key].message


async def test_an_empty_source_is_synced_and_empty(store: MemoryStore) -> None:
    async with aclosing(UniversalSource(store, KEYS, WEST).snapshots()) as snapshots:
        first = await anext(snapshots)
    assert first.synced
    assert not first.objects


def status(value: ConditionStatus, message: str = "") -> ObjectStatus:
    condition = Condition(
        type="Accepted", status=value, reason="Accepted", message=message, observed_generation=1
    )
    return ObjectStatus(observed_generation=1, conditions=(condition,))


async def test_statuses_keep_the_time_of_their_last_transition(
    store: MemoryStore, objects: UniversalObjects, clock: HandClock
) -> None:
    sink = UniversalStatusSink(store, KEYS, WEST, clock)
    key = service().key

    async def written(value: ObjectStatus) -> Condition:
        clock.time += 1
        await sink.write({key: value})
        return (await objects.statuses())[key].conditions[0]

    first = await written(status(ConditionStatus.TRUE))
    second = await written(status(ConditionStatus.TRUE, "another message"))
    third = await written(status(ConditionStatus.FALSE))
    assert second.message == "another message"
    assert second.last_transition_time == first.last_transition_time
    assert third.last_transition_time == "2001-09-09T01:46:43Z"


async def test_an_orphan_that_cannot_be_read_goes_too(store: MemoryStore, clock: HandClock) -> None:
    key = KEYS.status(WEST, ObjectKey("", "Service", "app", "gone"))
    await store.commit([Put(key, b"from another version")])
    await UniversalStatusSink(store, KEYS, WEST, clock).write({})
    assert await store.get(key) is None


async def test_equal_statuses_are_not_written_and_orphans_go(
    store: MemoryStore, objects: UniversalObjects, clock: HandClock
) -> None:
    await UniversalStatusSink(store, KEYS, WEST, clock).write(
        {service("a").key: status(ConditionStatus.TRUE)}
    )
    revision = store.cluster.revision
    clock.time += 5
    sink = UniversalStatusSink(store, KEYS, WEST, clock)
    await sink.write({service("a").key: status(ConditionStatus.TRUE)})
    assert store.cluster.revision == revision
    await sink.write({})
    assert not await objects.statuses()
