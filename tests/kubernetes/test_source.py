"""Objects read from a real API server, while it is well, killed, frozen and refusing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from federation.adapters.kubernetes import (
    Connection,
    ConnectionSettings,
    KubernetesSource,
    KubernetesSourceSettings,
    connected,
)
from federation.adapters.kubernetes.reflector import ReflectorSettings
from federation.cli.lab.kubernetes.crds import DEFINITIONS
from federation.model.objects import (
    ConfigMap,
    McsServiceExport,
    Namespace,
    ObjectSnapshot,
    Service,
)
from federation.ports import PortError
from federation.telemetry import catalogue
from tests.testkit.kubernetes import KubernetesServer, install_released_crds_now
from tests.testkit.kubernetes_relay import Relay, relay_before
from tests.testkit.metrics import sampled
from tests.testkit.standalone import until as until_so
from tests.testkit.standalone import until_async

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


@asynccontextmanager
async def connected_by(relay: Relay, server: KubernetesServer) -> AsyncIterator[Connection]:
    """A connection through ``relay``."""
    config = json.loads(server.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": relay.url}
    path = server.kubeconfig.with_name("relayed.kubeconfig")
    path.write_text(json.dumps(config))
    async with connected(ConnectionSettings(path)) as connection:
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
        assert sampled(catalogue.WATCH_CURRENT, "ConfigMap") == 1.0
        failures = sampled(catalogue.WATCH_FAILURES, "ConfigMap")
        own_kubernetes.kill_api()
        away = await until(snapshots, lambda _: len(source.problems()) == 3)
        assert values(away, "default") == {"kept": "1"}
        assert sampled(catalogue.WATCH_CURRENT, "ConfigMap") == 0.0
        assert sampled(catalogue.WATCH_FAILURES, "ConfigMap") > failures
        own_kubernetes.start_api()
        await connection.post(path, config("later", value="2"))
        both = {"kept": "1", "later": "2"}
        await until(snapshots, lambda s: values(s, "default") == both and not source.problems())
        assert sampled(catalogue.WATCH_CURRENT, "ConfigMap") == 1.0
        await snapshots.aclose()


@pytest.mark.timeout(180)
async def test_clocks_that_differ_are_measured(kubernetes: KubernetesServer) -> None:
    with relay_before(kubernetes) as relay:
        relay.date = "Tue, 01 Jan 2036 00:00:00 GMT"
        async with connected_by(relay, kubernetes) as connection:
            snapshots = KubernetesSource(connection, SETTINGS).snapshots()
            await until(snapshots, lambda _: True)
            ahead = "the skew is measured"
            await until_so(lambda: sampled(catalogue.CLOCK_SKEW) > 86_400 * 365, ahead)
            relay.date = ""
            await until_so(lambda: sampled(catalogue.CLOCK_SKEW) == 0, "the clocks agree again")
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


def _versions(relay: Relay, kind: str) -> list[int]:
    """What the watches of a kind began at."""
    return [int(asked.version) for asked in relay.watches(kind)]


@pytest.mark.timeout(300)
async def test_a_watch_goes_on_where_it_ended_without_a_list(
    own_kubernetes: KubernetesServer,
) -> None:
    """One that sees changes goes on from the last, one that sees none from a bookmark (which an
    API server sends about once in a minute)."""
    with relay_before(own_kubernetes) as relay:
        async with connected_by(relay, own_kubernetes) as connection:
            slower = replace(QUICK, watch_s=78, silence_s=90.0)
            kinds = replace(SETTINGS, kinds=(Service, ConfigMap), reflector=slower)
            source = KubernetesSource(connection, kinds)
            snapshots = source.snapshots()
            await until(snapshots, lambda _: True)
            path = "/api/v1/namespaces/default/configmaps"
            for number in range(20):
                await connection.post(path, config(f"noise{number}"))
            async with asyncio.timeout(240):
                for kind in ("services", "configmaps"):
                    await relay.watched(kind, times=2)
                    if _versions(relay, kind)[1] == _versions(relay, kind)[0]:  # no bookmark yet
                        await relay.watched(kind, times=3)
            for kind in ("services", "configmaps"):
                assert _versions(relay, kind)[-1] > _versions(relay, kind)[0], kind
                assert relay.lists(kind) == 1, kind
            await snapshots.aclose()


@pytest.mark.timeout(180)
async def test_a_version_that_is_no_longer_kept_is_listed_anew(
    own_kubernetes: KubernetesServer,
) -> None:
    """410: written while nobody watched, and the server started again since."""
    with relay_before(own_kubernetes) as relay:
        async with connected_by(relay, own_kubernetes) as connection:
            path = "/api/v1/namespaces/default/configmaps"
            async with connection_to(own_kubernetes) as direct:
                await direct.post(path, config("goes", value="1"))
                await direct.post(path, config("changes", value="1"))
                patient = replace(QUICK, watch_s=60, silence_s=90.0)
                source = KubernetesSource(connection, replace(SETTINGS, reflector=patient))
                snapshots = source.snapshots()
                wanted = {"goes": "1", "changes": "1"}
                await until(snapshots, lambda s: values(s, "default") == wanted)
                relay.wait_for_server = relay.swallow_watches = True
                await direct.delete(f"{path}/goes")
                await direct.apply(f"{path}/changes", config("changes", value="2"), manager="test")
                own_kubernetes.kill_api()
                await asyncio.to_thread(own_kubernetes.start_api)
                relay.swallow_watches = False
                listed = relay.lists("configmaps")
                counted = sampled(catalogue.LISTS, "ConfigMap")
                await until(snapshots, lambda s: values(s, "default") == {"changes": "2"})
                assert relay.expired + relay.answered.count(410) > 0
                assert relay.lists("configmaps") == listed + 1
                assert sampled(catalogue.LISTS, "ConfigMap") == counted + 1
                await until_so(lambda: not source.problems(), "all is current again")
                await snapshots.aclose()


@pytest.mark.timeout(120)
async def test_a_server_that_refuses_is_asked_at_a_bounded_pace(
    own_kubernetes: KubernetesServer,
) -> None:
    with relay_before(own_kubernetes) as relay:
        async with connected_by(relay, own_kubernetes) as connection:
            loop = asyncio.get_running_loop()
            source = KubernetesSource(connection, SETTINGS)
            snapshots = source.snapshots()
            await until(snapshots, lambda _: True)
            relay.refuse = 503
            await until(snapshots, lambda _: len(source.problems()) == 3)
            asked, began_s = len(relay.asked), loop.time()
            await until_so(lambda: len(relay.asked) >= asked + 12, "it is tried again")
            # Three kinds, each at least 0.25 s after the last try.
            assert loop.time() - began_s >= 3 * 0.25
            relay.refuse = 0
            await until(snapshots, lambda _: not source.problems())
            await snapshots.aclose()


@pytest.mark.timeout(120)
async def test_a_kind_appears_changes_its_version_and_goes(
    own_kubernetes: KubernetesServer,
) -> None:
    async with connection_to(own_kubernetes) as connection:
        settings = replace(SETTINGS, kinds=(McsServiceExport,))
        source = KubernetesSource(connection, settings)
        snapshots = source.snapshots()
        assert (await until(snapshots, lambda _: True)).objects == {}
        await asyncio.to_thread(install_released_crds_now, own_kubernetes)
        group = "/apis/multicluster.x-k8s.io"
        path = f"{group}/v1alpha1/namespaces/default/serviceexports"
        export = {
            "apiVersion": "multicluster.x-k8s.io/v1alpha1",
            "kind": "ServiceExport",
            "metadata": {"name": "users"},
        }
        await connection.post(path, export)
        await until(snapshots, lambda snapshot: len(snapshot.of(McsServiceExport)) == 1)
        crd = f"{DEFINITIONS}/serviceexports.multicluster.x-k8s.io"

        async def serve(*versions: str) -> None:
            found = await connection.get(crd)
            for entry in found["spec"]["versions"]:
                entry["served"] = entry["name"] in versions
            await connection.put(crd, found)

        await serve("v1alpha1")
        await serve("v1beta1")
        later = {**export, "apiVersion": "multicluster.x-k8s.io/v1beta1"}
        later["metadata"] = {"name": "orders"}

        async def posted() -> bool:
            try:
                await connection.post(path.replace("v1alpha1", "v1beta1"), later)
            except PortError:  # the server takes a moment to change
                return False
            return True

        await until_async(posted, "the other version is served")
        both = await until(snapshots, lambda snapshot: len(snapshot.of(McsServiceExport)) == 2)
        assert {value.metadata.name for value in both.of(McsServiceExport)} == {"users", "orders"}
        # No version is served: nothing was deleted.
        await serve()
        kept = await until(snapshots, lambda _: bool(source.problems()))
        assert len(kept.of(McsServiceExport)) == 2
        assert "its 2 objects stay as they were" in "".join(source.degraded())
        # The definition is deleted, and with it, as the server tells, its objects.
        await serve("v1alpha1", "v1beta1")
        await until(snapshots, lambda _: not source.problems())
        await connection.delete(crd)
        await until(snapshots, lambda snapshot: not snapshot.objects)
        await snapshots.aclose()
