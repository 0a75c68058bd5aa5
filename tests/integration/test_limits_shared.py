"""One rate limit over two gateways of a cluster, through its agent; and when the agent is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

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

LIMIT = "{requestsPerUnit: 200, unit: Day}"
WHOLE = 200
LONE_SHARE = 0.95
"""Of two gateways, that of the one which alone is asked."""


async def have_shares(gateways: tuple[RunningGateway, ...], share: float) -> bool:
    return all([await it.share() == share for it in gateways])


async def passed(gateways: tuple[RunningGateway, ...], calls: int, key: str) -> list[int]:
    found = await asyncio.gather(*(outcomes(it.address, calls, key) for it in gateways))
    assert all(it[OK] + it[LIMITED] == calls for it in found), found
    return [it[OK] for it in found]


async def test_a_limit_holds_over_gateways_and_outlives_the_agent(
    tmp_path: Path, etcd_server: EtcdServer
) -> None:
    xds = f"127.0.0.1:{free_port()}"
    with backends("a") as (a,):
        folder = manifests(tmp_path / "manifests", a.address, LIMIT)
        async with gateway("gw-1", xds, tmp_path) as one, gateway("gw-2", xds, tmp_path) as two:
            both = (one, two)
            async with agent(etcd_server, folder, xds) as first:
                await until(lambda: have_shares(both, 0.5), "each has half")
                assert sum(await passed(both, WHOLE, "even")) == WHOLE

                # A key that one gateway alone is asked for moves there, but for a little.
                count = 0

                async def lone() -> bool:
                    nonlocal count
                    count += (await outcomes(one.address, 20, "lone"))[OK]
                    return count >= LONE_SHARE * WHOLE

                await until(lone, "the share follows the demand")
                assert count == LONE_SHARE * WHOLE
                assert await passed((two,), WHOLE, "lone") == [WHOLE - count]
                await first.kill()

            # Neither open nor closed: each goes on with what it had, and says so once.
            text = "shared rate limits go on with their last shares"
            for it in both:
                await until(lambda it=it: it.program.said(text), "it says that the agent is away")
            assert await passed(both, WHOLE, "away") == [WHOLE // 2, WHOLE // 2]
            assert text in (await one.get("/ready"))["why"]

            async with agent(etcd_server, folder, xds):
                shared = "rate limits shared by the agent"
                for it in both:
                    await until(lambda it=it: len(it.program.said(shared)) == 2, "it is back")
                await until(lambda: have_shares(both, 0.5), "each has half again")
                assert sum(await passed(both, WHOLE, "back")) == WHOLE
                assert await passed(both, WHOLE, "away") == [0, 0], "what had passed counts still"
                assert all(len(it.program.said(text)) == 1 for it in both)
                assert text not in ((await one.get("/ready"))["why"] or "")


async def test_a_gateway_that_leaves_gives_its_share_to_the_others(
    tmp_path: Path, etcd_server: EtcdServer
) -> None:
    xds = f"127.0.0.1:{free_port()}"
    with backends("a") as (a,):
        folder = manifests(tmp_path / "manifests", a.address, LIMIT)
        async with (
            agent(etcd_server, folder, xds, cluster="solo"),
            gateway("gw-1", xds, tmp_path, cluster="solo") as one,
        ):
            async with gateway("gw-2", xds, tmp_path, cluster="solo") as two:
                await until(lambda: have_shares((one, two), 0.5), "each has half")
                two.program.process.terminate()
                await until(lambda: have_shares((one,), 1.0), "one has all", within_s=8)
            assert await passed((one,), 2 * WHOLE, "all") == [WHOLE]
