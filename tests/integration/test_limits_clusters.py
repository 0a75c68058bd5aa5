"""One rate limit over two clusters through a real Redis; and when it is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

from typer.testing import CliRunner

from federation.cli.main import app
from tests.integration.limits_rig import (
    LIMITED,
    OK,
    RunningGateway,
    agent,
    gateway,
    manifests,
    outcomes,
    until,
)
from tests.native.support import backends
from tests.testkit.etcd import EtcdServer
from tests.testkit.ports import free_port
from tests.testkit.redis import running_redis

LIMIT = "{requestsPerUnit: 200, unit: Day}"
WHOLE = 200
AWAY = "rate limits over clusters go on with the last parts"
AGAIN = "rate limits are shared with the other clusters again"


async def have_shares(gateways: tuple[RunningGateway, ...], share: float) -> bool:
    return all([await it.share() == share for it in gateways])


async def status_says(etcd: EtcdServer, text: str) -> bool:
    """Whether ``fedctl status`` shows ``text``."""
    command = ["--etcd", etcd.endpoint, "status"]
    shown = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert shown.exit_code == 0, shown.output
    return text in shown.output


async def named(gateway: RunningGateway, keys: int) -> bool:
    limit = await gateway.limit()
    return limit is not None and limit["keys_with_shares"] == keys


async def passed(gateways: tuple[RunningGateway, ...], calls: int, key: str) -> list[int]:
    found = await asyncio.gather(*(outcomes(it.address, calls, key) for it in gateways))
    assert all(it[OK] + it[LIMITED] == calls for it in found), found
    return [it[OK] for it in found]


async def test_a_limit_holds_over_clusters_and_outlives_the_store(
    tmp_path: Path, etcd_server: EtcdServer
) -> None:
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("north", "south")}
    with backends("a") as (a,), running_redis() as redis:
        folder = manifests(tmp_path / "manifests", a.address, LIMIT)
        store = ("--ratelimit-redis", redis.url)
        async with (
            agent(etcd_server, folder, ports["north"], *store, cluster="north") as north,
            agent(etcd_server, folder, ports["south"], *store, cluster="south") as south,
            gateway("gw-n", ports["north"], tmp_path, cluster="north") as one,
            gateway("gw-s", ports["south"], tmp_path, cluster="south") as two,
        ):
            both = (one, two)
            await until(lambda: have_shares(both, 0.5), "each cluster has half")
            assert await passed(both, WHOLE, "even") == [WHOLE // 2, WHOLE // 2]

            await until(lambda: named(two, 1), "the key has a part of its own")

            # A key that one cluster alone is asked for moves there, but for a little.
            count = 0

            async def lone() -> bool:
                nonlocal count
                count += (await outcomes(one.address, 20, "lone"))[OK]
                return count >= 0.94 * WHOLE

            await until(lone, "the part follows the demand")
            await until(lambda: named(two, 2), "the other cluster knows of it")
            rest = await passed((two,), WHOLE, "lone")
            assert WHOLE * 0.97 <= count + sum(rest) <= WHOLE

            # Neither open nor closed: both go on with what they had, and say so once.
            redis.kill()
            for it in (north, south):
                await until(lambda it=it: it.said(AWAY), "it says that the store is away")
            assert await passed(both, WHOLE, "away") == [WHOLE // 2, WHOLE // 2]
            assert "rate limit store at 127.0.0.1" in north.said(AWAY)[0]["why"]

            await until(lambda: status_says(etcd_server, f"north: {AWAY}"), "status shows it")

            await asyncio.to_thread(redis.start)
            for it in (north, south):
                await until(lambda it=it: it.said(AGAIN), "it says that the store is back")
            assert sum(await passed(both, WHOLE, "back")) == WHOLE
            assert all(len(it.said(AWAY)) == 1 for it in (north, south))
