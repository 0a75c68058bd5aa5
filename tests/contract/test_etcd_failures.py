"""What the etcd adapter does when etcd dies, goes deaf, compacts, or comes back older."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from aetcd import rpc

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.adapters.memory import MemoryCluster, MemoryStore
from federation.ports import Listing, Put, StoreUnavailable
from tests.testkit.etcd import EtcdServer, running_etcd
from tests.testkit.ports import free_port


@pytest.fixture
def etcd() -> Iterator[EtcdServer]:
    with running_etcd() as server:
        yield server


def store_at(*endpoints: str, relist_every_s: float = 60.0) -> EtcdStore:
    return EtcdStore(EtcdSettings(endpoints=endpoints, relist_every_s=relist_every_s))


def values(listing: Listing) -> list[bytes]:
    return [entry.value for entry in listing.entries]


async def started(server: EtcdServer) -> None:
    await asyncio.to_thread(server.start)


async def test_a_dead_etcd_is_named_at_once() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    store = store_at(endpoint)
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match=f"reading /a: etcd at {endpoint} is away"):
        await store.get("/a")
    assert time.monotonic() - begun < 2.5
    await store.close()


async def test_the_next_endpoint_is_tried(etcd: EtcdServer) -> None:
    store = store_at(f"127.0.0.1:{free_port()}", etcd.endpoint)
    with pytest.raises(StoreUnavailable):
        await store.get("/a")
    assert await store.get("/a") is None
    await store.close()


async def test_a_mirror_goes_on_after_etcd_was_away(etcd: EtcdServer) -> None:
    reader, writer = store_at(etcd.endpoint), store_at(etcd.endpoint)
    async with asyncio.timeout(40), aclosing(reader.mirror("/")) as listings:
        await writer.commit([Put("/a", b"1")])
        async for listing in listings:
            if listing.entries:
                break
        etcd.kill()
        coming = asyncio.ensure_future(anext(listings))
        done, _ = await asyncio.wait({coming}, timeout=1.5)
        assert not done, "silence of the store is no news"
        await started(etcd)
        back = time.monotonic()
        await eventually_put(writer, "/a", b"2")
        assert values(await coming) == [b"2"]
        assert time.monotonic() - back < 3
    await reader.close()
    await writer.close()


async def test_a_frozen_etcd_is_noticed_and_survived(etcd: EtcdServer) -> None:
    reader, writer = store_at(etcd.endpoint), store_at(etcd.endpoint)
    async with asyncio.timeout(40), aclosing(reader.mirror("/")) as listings:
        await anext(listings)
        etcd.freeze()
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable, match="is away"):
            await writer.get("/a")
        assert time.monotonic() - begun < 3
        etcd.thaw()
        await eventually_put(writer, "/a", b"1")
        assert values(await anext(listings)) == [b"1"]
    await reader.close()
    await writer.close()


@pytest.mark.parametrize("ttl_s", [3.0, 4.0])
async def test_a_lease_is_given_up_in_its_time_when_etcd_is_deaf(
    etcd: EtcdServer, ttl_s: float
) -> None:
    store = store_at(etcd.endpoint)
    async with asyncio.timeout(20), store.lease(ttl_s=ttl_s) as lease:
        etcd.freeze()
        begun = time.monotonic()
        await lease.lost()
        # A refresh that is under way when the time is over does not prolong it.
        assert time.monotonic() - begun < ttl_s + 0.5
        etcd.thaw()
    await store.close()


async def test_a_mirror_lists_anew_after_compaction(etcd: EtcdServer) -> None:
    reader, writer = store_at(etcd.endpoint), store_at(etcd.endpoint)
    async with asyncio.timeout(40), aclosing(reader.mirror("/in/")) as listings:
        await writer.commit([Put("/in/a", b"1")])
        while values(await anext(listings)) != [b"1"]:
            pass
        # Cut the reader off by closing its link, move on, and compact what it has missed.
        etcd.kill()
        await started(etcd)
        await eventually_put(writer, "/in/a", b"2")
        revision = await eventually_put(writer, "/in/a", b"3")
        await writer._connection.call(rpc.CompactionRequest(revision=revision), "compacting")
        while values(await anext(listings)) != [b"3"]:
            pass
    await reader.close()
    await writer.close()


async def test_lost_events_are_found_by_comparison(
    etcd: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    reader = store_at(etcd.endpoint, relist_every_s=0.5)
    writer = store_at(etcd.endpoint)
    await writer.commit([Put("/a", b"1")])
    await writer.commit([Put("/b", b"1")])
    async with asyncio.timeout(20), aclosing(reader.mirror("/")) as listings:
        first = await anext(listings)
        running = next(task for task in asyncio.all_tasks() if task.get_name() == "mirror /")
        copy = running.get_coro().cr_frame.f_locals["self"]
        del copy._entries["/a"]  # what a lost event leaves behind
        copy._publish()
        while (await anext(listings)).entries != first.entries:
            pass
    assert "events were lost" in caplog.text
    await reader.close()
    await writer.close()


async def test_a_store_that_went_backwards_is_not_believed() -> None:
    cluster = MemoryCluster()
    reader, writer = MemoryStore(cluster), MemoryStore(cluster)
    backup = cluster.backup()
    async with asyncio.timeout(5), aclosing(reader.mirror("/")) as listings:
        await writer.commit([Put("/a", b"1")])
        assert values(await anext(listings)) == [b"1"]
        cluster.restore(backup)
        coming = asyncio.ensure_future(anext(listings))
        done, _ = await asyncio.wait({coming}, timeout=0.2)
        assert not done
        coming.cancel()
        await asyncio.wait({coming})


async def test_an_etcd_that_went_backwards_is_not_believed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running_etcd() as old, running_etcd() as new:
        writer, fresh = store_at(old.endpoint), store_at(new.endpoint)
        for number in range(20):
            await writer.commit([Put("/a", str(number).encode())])
        await fresh.commit([Put("/a", b"restored")])
        reader = store_at(old.endpoint, new.endpoint)
        async with asyncio.timeout(20), aclosing(reader.mirror("/")) as listings:
            assert values(await anext(listings)) == [b"19"]
            old.kill()
            coming = asyncio.ensure_future(anext(listings))
            while not any("older than" in getattr(r, "reason", "") for r in caplog.records):
                assert not coming.done()
                await asyncio.wait({coming}, timeout=0.05)
            coming.cancel()
            await asyncio.wait({coming})
        for store in (writer, fresh, reader):
            await store.close()


async def eventually_put(store: EtcdStore, key: str, value: bytes) -> int:
    """Write, over the time in which etcd is still coming back."""
    while True:
        try:
            revision = await store.commit([Put(key, value)])
        except StoreUnavailable:
            await asyncio.sleep(0.02)  # the pace of the retries; the test's deadline bounds them
            continue
        assert revision is not None
        return revision
