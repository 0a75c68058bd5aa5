"""What every ``Store`` promises, run against memory and against a real etcd."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.adapters.memory import MemoryCluster, MemoryStore
from federation.ports import (
    Absent,
    CreatedAt,
    Delete,
    LeaseLost,
    Listing,
    Put,
    Store,
    Unchanged,
)
from tests.testkit.etcd import EtcdServer

_prefixes = itertools.count()


@pytest.fixture
def prefix() -> str:
    return f"/contract-{next(_prefixes)}/"


@pytest.fixture(params=["memory", "etcd"])
async def stores(
    request: pytest.FixtureRequest, etcd_server: EtcdServer
) -> AsyncIterator[tuple[Store, Store]]:
    """Two clients of the same store."""
    pair: tuple[Store, Store]
    if request.param == "memory":
        cluster = MemoryCluster()
        pair = MemoryStore(cluster, name="one"), MemoryStore(cluster, name="two")
    else:
        settings = EtcdSettings(endpoints=(etcd_server.endpoint,))
        pair = EtcdStore(settings), EtcdStore(settings)
    yield pair
    for store in pair:
        await store.close()


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    return stores[0]


@pytest.fixture
def other(stores: tuple[Store, Store]) -> Store:
    return stores[1]


async def until(store: Store, prefix: str, keys: set[str]) -> Listing:
    """The first listing with exactly these keys (relative to the prefix)."""
    async with asyncio.timeout(10), aclosing(store.mirror(prefix)) as listings:
        async for listing in listings:
            if {entry.key.removeprefix(prefix) for entry in listing.entries} == keys:
                return listing
    raise AssertionError("the mirror ended")


async def test_a_missing_key_reads_as_none(store: Store, prefix: str) -> None:
    assert await store.get(f"{prefix}nothing") is None


async def test_a_put_is_read_back_with_its_revisions(store: Store, prefix: str) -> None:
    first = await store.commit([Put(f"{prefix}a", b"1")])
    second = await store.commit([Put(f"{prefix}a", b"2")])
    entry = await store.get(f"{prefix}a")
    assert entry is not None
    assert first is not None
    assert second is not None
    assert (entry.value, entry.create_revision, entry.mod_revision) == (b"2", first, second)
    assert second > first
    assert not entry.leased


async def test_a_recreated_key_loses_its_seniority(store: Store, prefix: str) -> None:
    await store.commit([Put(f"{prefix}a", b"")])
    between = await store.commit([Put(f"{prefix}b", b"")])
    await store.commit([Delete(f"{prefix}a")])
    await store.commit([Put(f"{prefix}a", b"")])
    entry = await store.get(f"{prefix}a")
    assert entry is not None
    assert between is not None
    assert entry.create_revision > between


async def test_list_is_sorted_and_keeps_to_the_prefix(store: Store, prefix: str) -> None:
    await store.commit([Put(f"{prefix}x/{name}", name.encode()) for name in "cab"])
    await store.commit([Put(f"{prefix}xy", b"")])
    listing = await store.list(f"{prefix}x/")
    assert [entry.value for entry in listing.entries] == [b"a", b"b", b"c"]


async def test_a_long_list_is_complete(store: Store, prefix: str) -> None:
    names = [f"{prefix}{number:05}" for number in range(2_500)]
    for start in range(0, len(names), 128):
        await store.commit([Put(name, b"") for name in names[start : start + 128]])
    listing = await store.list(prefix)
    assert [entry.key for entry in listing.entries] == names


async def test_a_failed_guard_writes_nothing(store: Store, prefix: str) -> None:
    await store.commit([Put(f"{prefix}a", b"1")])
    outcome = await store.commit(
        [Put(f"{prefix}a", b"2"), Put(f"{prefix}b", b"2")], guards=[Absent(f"{prefix}a")]
    )
    assert outcome is None
    listing = await store.list(prefix)
    assert [entry.value for entry in listing.entries] == [b"1"]


async def test_guards_compare_revisions(store: Store, prefix: str) -> None:
    key = f"{prefix}a"
    created = await store.commit([Put(key, b"1")], guards=[Absent(key)])
    assert created is not None
    changed = await store.commit([Put(key, b"2")], guards=[Unchanged(key, created)])
    assert changed is not None
    assert await store.commit([Put(key, b"3")], guards=[Unchanged(key, created)]) is None
    assert await store.commit([Put(key, b"3")], guards=[CreatedAt(key, created)]) is not None
    assert await store.commit([Put(key, b"4")], guards=[CreatedAt(key, changed)]) is None


async def test_too_many_writes_are_refused_before_they_are_sent(store: Store, prefix: str) -> None:
    with pytest.raises(ValueError, match="129 writes in one commit; at most 128"):
        await store.commit([Put(f"{prefix}{number}", b"") for number in range(129)])
    with pytest.raises(ValueError, match="each key once"):
        await store.commit([Put(f"{prefix}a", b""), Delete(f"{prefix}a")])


async def test_deleting_nothing_is_no_error(store: Store, prefix: str) -> None:
    assert await store.commit([Delete(f"{prefix}nothing")]) is not None


async def test_a_mirror_starts_with_what_is_there_even_if_empty(store: Store, prefix: str) -> None:
    assert (await until(store, prefix, set())).entries == ()


async def test_a_mirror_follows_changes_of_another_client(
    store: Store, other: Store, prefix: str
) -> None:
    async with asyncio.timeout(10), aclosing(store.mirror(prefix)) as listings:
        assert (await anext(listings)).entries == ()
        revision = await other.commit([Put(f"{prefix}a", b"1")])
        listing = await anext(listings)
        assert [entry.value for entry in listing.entries] == [b"1"]
        assert listing.revision == revision
        await other.commit([Delete(f"{prefix}a")])
        assert (await anext(listings)).entries == ()


async def test_a_commit_is_seen_whole(store: Store, other: Store, prefix: str) -> None:
    async with asyncio.timeout(10), aclosing(store.mirror(prefix)) as listings:
        await anext(listings)
        await other.commit([Put(f"{prefix}{number}", b"") for number in range(50)])
        assert len((await anext(listings)).entries) == 50


async def test_a_slow_reader_of_a_mirror_skips_to_the_newest(
    store: Store, other: Store, prefix: str
) -> None:
    async with asyncio.timeout(10), aclosing(store.mirror(prefix)) as listings:
        await anext(listings)
        for number in range(20):
            await other.commit([Put(f"{prefix}a", str(number).encode())])
        await until(store, prefix, {"a"})
        seen = 0
        async for listing in listings:
            seen += 1
            if listing.entries[0].value == b"19":
                break
        assert seen < 20


async def test_a_change_beside_the_prefix_is_silent(
    store: Store, other: Store, prefix: str
) -> None:
    async with asyncio.timeout(10), aclosing(store.mirror(f"{prefix}in/")) as listings:
        await anext(listings)
        await other.commit([Put(f"{prefix}out", b"")])
        await other.commit([Put(f"{prefix}in/a", b"")])
        assert [entry.key for entry in (await anext(listings)).entries] == [f"{prefix}in/a"]


async def test_a_lease_takes_its_keys_along(store: Store, other: Store, prefix: str) -> None:
    async with store.lease(ttl_s=5) as lease:
        await store.commit([Put(f"{prefix}a", b"", lease.id), Put(f"{prefix}b", b"")])
        listing = await until(other, prefix, {"a", "b"})
        assert [entry.leased for entry in listing.entries] == [True, False]
    await until(other, prefix, {"b"})


async def test_a_lease_is_kept_alive_beyond_its_time(store: Store, prefix: str) -> None:
    async with store.lease(ttl_s=2) as lease:
        await store.commit([Put(f"{prefix}a", b"", lease.id)])
        lost = asyncio.ensure_future(lease.lost())
        done, _ = await asyncio.wait({lost}, timeout=4)
        lost.cancel()
        assert not done
        assert await store.get(f"{prefix}a") is not None


async def test_writing_under_an_ended_lease_fails_by_name(store: Store, prefix: str) -> None:
    async with store.lease(ttl_s=5) as lease:
        pass
    with pytest.raises(LeaseLost, match="the lease has ended"):
        await store.commit([Put(f"{prefix}a", b"", lease.id)])


async def test_leadership_passes_on_and_its_term_grows(
    store: Store, other: Store, prefix: str
) -> None:
    election = f"{prefix}election"
    async with asyncio.timeout(20):
        async with store.campaign(election, identity="one", ttl_s=5) as first:
            second = other.campaign(election, identity="two", ttl_s=5)
            waiting = asyncio.ensure_future(second.__aenter__())
            await until(store, f"{election}/", await _candidates(store, election, 2))
            assert not waiting.done()
            fenced = [CreatedAt(first.key, first.term)]
            assert await store.commit([Put(f"{prefix}a", b"")], guards=fenced) is not None
        successor = await waiting
        assert successor.term > first.term
        assert await store.commit([Put(f"{prefix}a", b"")], guards=fenced) is None
        await second.__aexit__(None, None, None)


async def test_leadership_is_lost_when_its_key_is_removed(
    store: Store, other: Store, prefix: str
) -> None:
    async with (
        asyncio.timeout(20),
        store.campaign(f"{prefix}election", identity="one", ttl_s=5) as leader,
    ):
        lost = asyncio.ensure_future(leader.lost())
        await other.commit([Delete(leader.key)])
        await lost


async def _candidates(store: Store, election: str, count: int) -> set[str]:
    """The keys of the election once there are ``count``."""
    async with aclosing(store.mirror(f"{election}/")) as listings:
        async for listing in listings:
            if len(listing.entries) == count:
                return {entry.key.removeprefix(f"{election}/") for entry in listing.entries}
    raise AssertionError("the mirror ended")
