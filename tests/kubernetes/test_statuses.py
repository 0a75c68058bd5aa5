"""Statuses written to a real API server with the Gateway API's released CRDs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from federation.adapters.clock import SystemClock
from federation.adapters.kubernetes import (
    Connection,
    ConnectionSettings,
    KubernetesSource,
    KubernetesSourceSettings,
    KubernetesStatusSink,
    connected,
)
from federation.adapters.kubernetes.repairs import FIRST_WAIT_S
from federation.aio import cancel_and_wait
from federation.model.conditions import Condition, ConditionStatus
from federation.model.objects import GRPCRoute, ObjectKey
from federation.model.objects.route import ParentReference
from federation.model.status import ObjectStatus, ParentStatus
from federation.ports import TemporaryError
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.standalone import until_async

CONTROLLER = "federation.dev/gateway-controller"
GROUP = "gateway.networking.k8s.io"
ROUTES = f"/apis/{GROUP}/v1/namespaces/default/grpcroutes"
_names = (f"route-{number}" for number in itertools.count())


@pytest.fixture
async def connection(kubernetes: KubernetesServer) -> AsyncIterator[Connection]:
    async with connected(ConnectionSettings(kubernetes.kubeconfig)) as found:
        yield found


def route(name: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": name},
        "spec": {"parentRefs": [{"name": "gw"}]},
    }


def accepted(message: str = "", *, holds: bool = True) -> ObjectStatus:
    condition = Condition(
        type="Accepted",
        status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
        reason="Accepted" if holds else "NoMatchingParent",
        message=message,
        observed_generation=1,
    )
    parent = ParentStatus(
        parent_ref=ParentReference(name="gw"),
        controller_name=CONTROLLER,
        conditions=(condition,),
    )
    return ObjectStatus(observed_generation=1, parents=(parent,))


def key(name: str) -> ObjectKey:
    return ObjectKey(GROUP, "GRPCRoute", "default", name)


async def test_entries_of_other_controllers_stay(connection: Connection) -> None:
    name = next(_names)
    await connection.post(ROUTES, route(name))
    other = {
        "parentRef": {"name": "theirs"},
        "controllerName": "example.com/other",
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "reason": "Accepted",
                "message": "",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    body = {**route(name), "status": {"parents": [other]}}
    await connection.apply(f"{ROUTES}/{name}/status", body, manager="other")
    sink = KubernetesStatusSink(connection, SystemClock(), controller=CONTROLLER)
    await sink.write({key(name): accepted("ours")})
    parents = (await connection.get(f"{ROUTES}/{name}"))["status"]["parents"]
    assert [entry["controllerName"] for entry in parents] == ["example.com/other", CONTROLLER]
    assert parents[1]["conditions"][0]["observedGeneration"] == 1
    await sink.write({})
    parents = (await connection.get(f"{ROUTES}/{name}"))["status"]["parents"]
    assert [entry["controllerName"] for entry in parents] == ["example.com/other"]


async def test_entries_go_where_nobody_elses_stand_beside_them(connection: Connection) -> None:
    """A route that names no Gateway of ours any more: its status must keep the list itself."""
    name = next(_names)
    await connection.post(ROUTES, route(name))
    sink = KubernetesStatusSink(connection, SystemClock(), controller=CONTROLLER)
    await sink.write({key(name): accepted()})
    await sink.write({key(name): ObjectStatus(observed_generation=2)})
    stored = await connection.get(f"{ROUTES}/{name}")
    assert stored["status"] == {"parents": []}
    await sink.write({})
    again = await connection.get(f"{ROUTES}/{name}")
    assert again["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]


async def test_an_object_made_anew_gets_its_status(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what was deleted and made again the agent clears the status, then writes it."""
    name = next(_names)
    await connection.post(ROUTES, route(name))
    sink = KubernetesStatusSink(connection, SystemClock(), controller=CONTROLLER)
    await sink.write({key(name): accepted()})
    await connection.delete(f"{ROUTES}/{name}")
    await connection.post(ROUTES, route(name))
    await sink.write({})
    await sink.write({key(name): accepted()})
    stored = await connection.get(f"{ROUTES}/{name}")
    assert [entry["controllerName"] for entry in stored["status"]["parents"]] == [CONTROLLER]
    assert not caplog.records


async def test_an_equal_status_is_not_written(connection: Connection) -> None:
    name = next(_names)
    await connection.post(ROUTES, route(name))

    async def version() -> str:
        return str((await connection.get(f"{ROUTES}/{name}"))["metadata"]["resourceVersion"])

    first = KubernetesStatusSink(connection, SystemClock(), controller=CONTROLLER)
    await first.write({key(name): accepted()})
    before = await version()
    # Another process, which has written nothing yet, reads what is there.
    second = KubernetesStatusSink(connection, SystemClock(), controller=CONTROLLER)
    for sink in (first, second, second):
        await sink.write({key(name): accepted()})
    assert await version() == before
    await second.write({key(name): accepted("another message")})
    assert await version() != before


async def test_the_time_moves_only_with_the_status(connection: Connection) -> None:
    name = next(_names)
    await connection.post(ROUTES, route(name))

    async def since() -> str:
        status = (await connection.get(f"{ROUTES}/{name}"))["status"]
        return str(status["parents"][0]["conditions"][0]["lastTransitionTime"])

    class Later(SystemClock):
        def now(self) -> float:
            return super().now() + 3600

    first = KubernetesStatusSink(connection, SystemClock(), controller=CONTROLLER)
    await first.write({key(name): accepted()})
    began = await since()
    later = KubernetesStatusSink(connection, Later(), controller=CONTROLLER)
    await later.write({key(name): accepted("reworded")})
    assert await since() == began
    await later.write({key(name): accepted(holds=False)})
    assert await since() != began


async def test_one_bad_object_stops_no_other(connection: Connection) -> None:
    good = next(_names)
    await connection.post(ROUTES, route(good))
    sink = KubernetesStatusSink(connection, SystemClock(), controller=CONTROLLER)
    refused = accepted("x" * 40_000)  # longer than the CRD lets a message be
    bad = next(_names)
    await connection.post(ROUTES, route(bad))
    await sink.write({key(bad): refused, key("not-there"): accepted(), key(good): accepted()})
    assert (await connection.get(f"{ROUTES}/{good}"))["status"]["parents"]


async def test_writers_at_once_lose_nothing(connection: Connection) -> None:
    name = next(_names)
    await connection.post(ROUTES, route(name))
    sinks = [
        KubernetesStatusSink(connection, SystemClock(), controller=f"example.com/c{number}")
        for number in range(3)
    ]

    async def write(number: int) -> None:
        status = accepted()
        controller = f"example.com/c{number}"
        parent = status.parents[0].model_copy(update={"controller_name": controller})
        await sinks[number].write({key(name): status.model_copy(update={"parents": (parent,)})})

    await asyncio.gather(*(write(number) for number in range(3)))
    parents = (await connection.get(f"{ROUTES}/{name}"))["status"]["parents"]
    assert {entry["controllerName"] for entry in parents} == {f"example.com/c{n}" for n in range(3)}


async def test_rights_that_are_missing_are_waited_for(
    kubernetes: KubernetesServer, connection: Connection
) -> None:
    name = next(_names)
    await connection.post(ROUTES, route(name))
    stranger = ConnectionSettings(kubernetes.write_kubeconfig("stranger", "no-such-token"))
    async with connected(stranger) as denied:
        sink = KubernetesStatusSink(denied, SystemClock(), controller=CONTROLLER)
        with pytest.raises(TemporaryError, match=r"1 of 1 statuses were not written: .*401"):
            await sink.write({key(name): accepted()})


async def test_what_another_overwrites_is_written_again(connection: Connection) -> None:
    """By a watch, with nothing to write of our own; only our entries."""
    name = next(_names)
    await connection.post(ROUTES, route(name))
    sink = KubernetesStatusSink(connection, SystemClock(), controller=CONTROLLER)
    settings = KubernetesSourceSettings(kinds=(GRPCRoute,))
    source = KubernetesSource(connection, settings, saw=sink.saw)

    async def watch() -> None:
        async for _ in source.snapshots():
            pass

    async def parents() -> dict[str, Any]:
        stored = (await connection.get(f"{ROUTES}/{name}")).get("status") or {}
        return {entry["controllerName"]: entry["conditions"] for entry in stored.get("parents", [])}

    async def vandalise(*others: dict[str, Any]) -> None:
        current = await connection.get(f"{ROUTES}/{name}")
        await connection.put(
            f"{ROUTES}/{name}/status", {**current, "status": {"parents": list(others)}}
        )

    tasks = [asyncio.create_task(watch()), asyncio.create_task(sink.repair())]
    try:
        await sink.write({key(name): accepted("ours")})
        before = (await parents())[CONTROLLER]
        other = {
            "parentRef": {"name": "theirs"},
            "controllerName": "example.com/other",
            "conditions": [{**before[0], "message": "theirs"}],
        }
        await vandalise(other)

        async def there() -> bool:
            return CONTROLLER in await parents()

        await until_async(there, "ours is there again")
        mended = await parents()
        assert mended[CONTROLLER][0]["message"] == "ours"
        assert mended["example.com/other"][0]["message"] == "theirs"
        # Somebody who does it again and again is answered at a bounded pace.
        began = asyncio.get_running_loop().time()
        for _ in range(2):
            await vandalise(other)
            await until_async(there, "ours is there again")
        assert asyncio.get_running_loop().time() - began > FIRST_WAIT_S + 2 * FIRST_WAIT_S - 0.5
    finally:
        for task in tasks:
            await cancel_and_wait(task)
