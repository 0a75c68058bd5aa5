"""A Lease between candidates on a real API server: taken, renewed, given back, lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from federation.adapters.kubernetes import (
    Connection,
    ConnectionSettings,
    KubernetesSeat,
    LeaseSettings,
    connected,
    not_leading,
)
from federation.adapters.kubernetes.connection import ChangedMeanwhile, ResourceAbsent
from federation.adapters.kubernetes.lease import KubernetesTerm
from federation.ports import TemporaryError
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.standalone import until, until_async

pytestmark = pytest.mark.timeout(90)

_names = (f"lease-{number}" for number in itertools.count())
DURATION_S = 3.0


@pytest.fixture
async def connection(kubernetes: KubernetesServer) -> AsyncIterator[Connection]:
    async with connected(ConnectionSettings(kubernetes.kubeconfig)) as found:
        yield found


@pytest.fixture
def settings() -> LeaseSettings:
    return LeaseSettings(
        "default", next(_names), "one", duration_s=DURATION_S, renew_s=0.5, look_s=0.1
    )


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def lead(stack: AsyncExitStack, seat: KubernetesSeat) -> KubernetesTerm:
    async with asyncio.timeout(30):
        return await stack.enter_async_context(seat.campaign())


async def test_one_leads_and_what_it_gives_back_is_taken_at_once(
    connection: Connection, settings: LeaseSettings
) -> None:
    first = KubernetesSeat(connection, settings)
    second = KubernetesSeat(connection, replace(settings, identity="two"))
    async with AsyncExitStack() as others:
        async with AsyncExitStack() as stack:
            one = await lead(stack, first)
            assert first.holds()
            waiting = asyncio.create_task(lead(others, second))
            # Longer than the Lease lasts: it is renewed.
            done, _ = await asyncio.wait([waiting], timeout=2 * DURATION_S)
            assert not done
            assert first.holds()
            left_s = now_s()
        two = await waiting
        assert now_s() - left_s < 1.0
        assert not first.holds()
        assert two.name != one.name
        spec = (await connection.get(settings.path))["spec"]
        assert spec["holderIdentity"] == second.identity
        assert spec["leaseTransitions"] == 1


@pytest.mark.parametrize("renewed", ["2036-01-01T00:00:00.000000Z", "2000-01-01T00:00:00.000000Z"])
async def test_a_silent_holder_is_waited_for_by_our_own_clock(
    connection: Connection, settings: LeaseSettings, renewed: str
) -> None:
    spec = {
        "holderIdentity": "ghost",
        "leaseDurationSeconds": 3,
        "acquireTime": renewed,
        "renewTime": renewed,
        "leaseTransitions": 7,
    }
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": settings.name, "namespace": "default"},
        "spec": spec,
    }
    await connection.post(settings.path.rpartition("/")[0], body)
    began_s = now_s()
    async with AsyncExitStack() as stack:
        await lead(stack, KubernetesSeat(connection, settings))
        assert DURATION_S <= now_s() - began_s < DURATION_S + 3
        assert (await connection.get(settings.path))["spec"]["leaseTransitions"] == 8


async def test_a_lease_that_another_took_is_lost_and_not_given_back(
    connection: Connection, settings: LeaseSettings
) -> None:
    seat = KubernetesSeat(connection, settings)
    async with AsyncExitStack() as stack:
        term = await lead(stack, seat)

        async def taken() -> bool:
            found = await connection.get(settings.path)
            found["spec"]["holderIdentity"] = "usurper"
            try:
                await connection.put(settings.path, found)
            except ChangedMeanwhile:  # it was renewed
                return False
            return True

        await until_async(taken, "another takes the Lease")
        async with asyncio.timeout(10):
            await term.lost()
    assert (await connection.get(settings.path))["spec"]["holderIdentity"] == "usurper"


async def test_a_lease_that_is_deleted_is_made_anew_by_its_holder(
    connection: Connection, settings: LeaseSettings
) -> None:
    seat = KubernetesSeat(connection, settings)
    async with AsyncExitStack() as stack:
        term = await lead(stack, seat)
        await connection.delete(settings.path)

        async def held() -> bool:
            try:
                spec = (await connection.get(settings.path))["spec"]
            except ResourceAbsent:
                return False
            return bool(spec["holderIdentity"] == seat.identity)

        await until_async(held, "the Lease is there again")
        assert not term.ended


@pytest.mark.timeout(120)
async def test_while_the_server_is_away_nothing_is_written_and_the_lead_goes_on(
    own_kubernetes: KubernetesServer, settings: LeaseSettings
) -> None:
    async with connected(ConnectionSettings(own_kubernetes.kubeconfig)) as connection:
        seat = KubernetesSeat(connection, settings)
        fenced = connection.fenced(lambda: not_leading(seat))
        path = "/api/v1/namespaces/default/configmaps"

        def named(name: str) -> dict[str, object]:
            return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}

        with pytest.raises(TemporaryError, match="lease is not held"):
            await fenced.post(path, named("too-early"))
        async with AsyncExitStack() as stack:
            term = await lead(stack, seat)
            await fenced.post(path, named("in-time"))
            own_kubernetes.kill_api()
            await until(lambda: not seat.holds(), "the hold ends by our own clock")
            with pytest.raises(TemporaryError, match="lease is not held"):
                await fenced.delete(f"{path}/in-time")
            await asyncio.to_thread(own_kubernetes.start_api)
            await until(seat.holds, "the hold goes on")
            assert not term.ended
            await fenced.delete(f"{path}/in-time")
