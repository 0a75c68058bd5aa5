"""Objects read from a real API server, while it is well, killed, frozen and refusing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from federation.adapters.kubernetes import (
    Connection,
    ConnectionSettings,
    KubernetesSource,
    KubernetesSourceSettings,
    connected,
)
from federation.adapters.kubernetes.reflector import ReflectorSettings
from federation.model.objects import ConfigMap, Namespace, ObjectSnapshot, Service
from tests.testkit.kubernetes import KubernetesServer

DEADLINE_S = 30.0
QUICK = ReflectorSettings(
    page_size=3, watch_s=2, silence_s=4.0, absent_s=0.2, backoff_s_first=0.05, backoff_s_max=0.5
)
SETTINGS = KubernetesSourceSettings(kinds=(Service, Namespace, ConfigMap), reflector=QUICK)

Snapshots = AsyncGenerator[ObjectSnapshot, None]


@asynccontextmanager
async def connection_to(server: KubernetesServer) -> AsyncIterator[Connection]:
    async with connected(ConnectionSettings(server.kubeconfig)) as connection:
        yield connection


async def create_namespace(connection: Connection, name: str) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await connection.post("/api/v1/namespaces", body)


def config(name: str, **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def until(snapshots: Snapshots, holds: Callable[[ObjectSnapshot], bool]) -> ObjectSnapshot:
    async with asyncio.timeout(DEADLINE_S):
        async for snapshot in snapshots:
            if holds(snapshot):
                return snapshot
    raise AssertionError("the source ended")


def values(snapshot: ObjectSnapshot, namespace: str) -> dict[str, str]:
    return {
        entry.metadata.name: (entry.data or {}).get("value", "")
        for entry in snapshot.of(ConfigMap)
        if entry.metadata.namespace == namespace
    }


async def test_pages_changes_and_deletions(kubernetes: KubernetesServer) -> None:
    async with connection_to(kubernetes) as connection:
        await create_namespace(connection, "paged")
        path = "/api/v1/namespaces/paged/configmaps"
        for number in range(7):
            await connection.post(path, config(f"c{number}", value="old"))
        source = KubernetesSource(connection, SETTINGS)
        snapshots = source.snapshots()
        first = await until(snapshots, lambda _: True)
        assert values(first, "paged") == {f"c{number}": "old" for number in range(7)}
        await connection.apply(f"{path}/c0", config("c0", value="new"), manager="test")
        await connection.delete(f"{path}/c1")
        wanted = {"c0": "new"} | {f"c{number}": "old" for number in range(2, 7)}
        await until(snapshots, lambda snapshot: values(snapshot, "paged") == wanted)
        await snapshots.aclose()


@pytest.mark.timeout(180)
async def test_a_killed_server_takes_nothing_and_is_taken_up_again(
    own_kubernetes: KubernetesServer,
) -> None:
    async with connection_to(own_kubernetes) as connection:
        path = "/api/v1/namespaces/default/configmaps"
        await connection.post(path, config("kept", value="1"))
        source = KubernetesSource(connection, SETTINGS)
        snapshots = source.snapshots()
        await until(snapshots, lambda s: values(s, "default") == {"kept": "1"})
        own_kubernetes.kill_api()
        away = await until(snapshots, lambda _: len(source.problems()) == 3)
        assert values(away, "default") == {"kept": "1"}
        own_kubernetes.start_api()
        await connection.post(path, config("later", value="2"))
        both = {"kept": "1", "later": "2"}
        await until(snapshots, lambda s: values(s, "default") == both and not source.problems())
        await snapshots.aclose()


@pytest.mark.timeout(180)
async def test_a_watch_that_is_silently_dead_is_noticed(own_kubernetes: KubernetesServer) -> None:
    async with connection_to(own_kubernetes) as connection:
        source = KubernetesSource(connection, SETTINGS)
        snapshots = source.snapshots()
        await until(snapshots, lambda snapshot: len(snapshot.of(Namespace)) > 0)
        own_kubernetes.freeze_api()
        try:
            silent = await until(snapshots, lambda _: bool(source.problems()))
            assert len(silent.of(Namespace)) > 0
            assert "silent for 4 s" in "".join(source.problems().values())
        finally:
            own_kubernetes.thaw_api()
        await until(snapshots, lambda _: not source.problems())
        await snapshots.aclose()
