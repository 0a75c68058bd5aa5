"""Progressive delivery on the lab's API servers, with calls running: Argo Rollouts and Flagger.

Argo's plugin waits for no gateway, so traffic has to follow its writes at once. How long it takes
is printed (``pytest -s``); the figures of a quiet machine are in docs/progressive-delivery.md.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from federation.adapters.kubernetes import ConnectionSettings, connected
from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from tests.kubernetes.looking import WEST, answers, becomes
from tests.testkit.argo_rollouts import IN_PROGRESS, LABEL, Rollout
from tests.testkit.flagger import FLAGGER, running_router
from tests.testkit.lab import Caller, KubernetesLab
from tests.testkit.load import Call, Load, channel, get_user, open_streams, steady, until

pytestmark = pytest.mark.timeout(300)

DOCUMENT = Path(__file__).parents[1] / "manifests" / "3-canary.yaml"
STABLE, CANARY = "user-service-v1", "user-service-v2"
STEPS = (5, 20, 50, 80, 100)
"""The weights of the documents' Rollout."""
RATE = 100
LOOKED_AT = 300
"""Newest calls whose shares are compared with a step's weight."""
FOLLOW_S = 30.0
"""Longest wait for a step; what it takes is far less, but for a machine that does ten other
things."""
TESTERS = [{"type": "Exact", "name": "x-canary", "value": "true"}]


@pytest.fixture
async def rollout(lab: KubernetesLab, call: Caller) -> AsyncIterator[Rollout]:
    """The documents' route in force, and the plugin before it."""
    lab.kubectl(WEST, "apply", "-f", str(DOCUMENT), check=False)
    async with connected(ConnectionSettings(lab.directory / "kubeconfig", WEST)) as connection:
        found = Rollout(connection, "user-service-canary", STABLE, CANARY, managed=("testers",))
        await found.set_weight(0)
        await asyncio.to_thread(answers, lab, call, STABLE)
        yield found


def service_of(call: Call) -> str:
    return call.served_by.split("/")[2] if call.served_by else ""


def share(calls: Sequence[Call], service: str) -> float:
    return sum(service_of(call) == service for call in calls) / len(calls)


async def follows(load: Load, service: str, weight: int, *, since: float) -> None:
    """Wait until the newest calls are divided by ``weight``, within five standard deviations."""
    wanted = weight / 100
    slack = 5 * math.sqrt(wanted * (1 - wanted) / LOOKED_AT)

    def newest() -> list[Call]:
        return load.since(since)[-LOOKED_AT:]

    def divided() -> bool:
        calls = newest()
        return len(calls) == LOOKED_AT and abs(share(calls, service) - wanted) <= slack

    await until(divided, timeout_s=FOLLOW_S, what=f"{weight} % to {service}")


def lag_s(load: Load, left: str, *, since: float) -> float:
    """How long after ``since`` calls that began then still went to ``left``."""
    late = [call.started - since for call in load.since(since) if service_of(call) == left]
    return max(late, default=0.0)


async def test_argo_rollouts_steps(lab: KubernetesLab, rollout: Rollout) -> None:
    target, ca = lab.gateway(WEST), lab.ca()
    lags = []
    async with steady(target, ca, rate=RATE) as load, open_streams(target, ca, count=3) as streams:
        await until(lambda: all(s.legs for s in streams), timeout_s=20, what="streams are open")
        for weight in STEPS:
            await rollout.set_weight(weight)
            at = time.monotonic()
            await follows(load, CANARY, weight, since=at)
            assert (await rollout.read())["metadata"]["labels"][LABEL] == IN_PROGRESS
        lags.append(lag_s(load, STABLE, since=at))
        # Rollback is the weight 0, and the rollout is no longer in progress.
        await rollout.set_weight(0)
        at = time.monotonic()
        await follows(load, CANARY, 0, since=at)
        lags.append(lag_s(load, CANARY, since=at))
    forward, back = lags
    print(f"\nargo: {len(load.calls)} calls, to 100 %: {forward:.3f} s, back: {back:.3f} s")
    assert load.failed == []
    assert [ending for stream in streams for ending in stream.endings] == []
    assert LABEL not in (await rollout.read())["metadata"].get("labels", {})


async def test_how_long_a_step_takes(lab: KubernetesLab, rollout: Rollout) -> None:
    """From the answer to the plugin's PUT to the last call that goes by the old weights."""
    lags = []
    async with steady(lab.gateway(WEST), lab.ca(), rate=RATE) as load:
        for number in range(10):
            weight, left = (100, STABLE) if number % 2 == 0 else (0, CANARY)
            await rollout.set_weight(weight)
            at = time.monotonic()
            await follows(load, CANARY, weight, since=at)
            lags.append(lag_s(load, left, since=at))
    assert load.failed == []
    print(f"\nlag of a step: median {statistics.median(lags):.3f} s, longest {max(lags):.3f} s")
    assert max(lags) < FOLLOW_S / 3


async def test_header_routes_come_and_go(lab: KubernetesLab, rollout: Rollout) -> None:
    target, ca = lab.gateway(WEST), lab.ca()
    opened = channel(target, ca, number=77)

    async def with_header() -> set[str]:
        sent = (("x-canary", "true"),)
        return {service_of(await get_user(opened, metadata=sent)) for _ in range(20)}

    async with steady(target, ca, rate=RATE) as load:
        await rollout.set_header_route("testers", TESTERS)
        await _until_answered(with_header, {CANARY})
        await rollout.set_weight(50)
        at = time.monotonic()
        await follows(load, CANARY, 50, since=at)
        rules = (await rollout.read())["spec"]["rules"]
        assert [rule.get("name", "") for rule in rules] == ["", "testers"]
        assert "weight" not in rules[1]["backendRefs"][0] or (
            rules[1]["backendRefs"][0]["weight"] == 1
        )
        assert await with_header() == {CANARY}
        regex = [{"type": "RegularExpression", "name": "x-canary", "value": "tr.*"}]
        await rollout.set_header_route("testers", regex)
        await _until_answered(with_header, {CANARY})
        assert len((await rollout.read())["spec"]["rules"]) == 2
        await rollout.remove_managed_routes()
        await rollout.set_weight(0)
        await _until_answered(with_header, {STABLE})
    await opened.close()
    assert load.failed == []
    assert [rule.get("name", "") for rule in (await rollout.read())["spec"]["rules"]] == [""]


async def test_rollback_is_one_patch(lab: KubernetesLab, rollout: Rollout) -> None:
    patch = [
        {"op": "replace", "path": f"/spec/rules/0/backendRefs/{number}/weight", "value": value}
        for number, value in enumerate((100, 0))
    ]
    async with steady(lab.gateway(WEST), lab.ca(), rate=RATE) as load:
        await rollout.set_weight(80)
        await follows(load, CANARY, 80, since=time.monotonic())
        route = ("patch", "grpcroute", rollout.route, "-n", "app", "--type=json")
        await asyncio.to_thread(lab.kubectl, WEST, *route, "-p", json.dumps(patch))
        at = time.monotonic()
        await follows(load, CANARY, 0, since=at)
        print(f"\nrollback by kubectl: {lag_s(load, CANARY, since=at):.3f} s")
    assert load.failed == []


async def test_we_write_the_status_alone(lab: KubernetesLab, rollout: Rollout) -> None:
    await rollout.set_weight(20)
    generation = (await rollout.read())["metadata"]["generation"]

    async def observed() -> set[int]:
        parents = (await rollout.read()).get("status", {}).get("parents", [])
        return {c["observedGeneration"] for parent in parents for c in parent["conditions"]}

    await _until_answered(observed, {generation})
    shown = await rollout.connection.get(rollout.path)
    ours = [e for e in shown["metadata"]["managedFields"] if e["manager"].startswith("federation")]
    assert ours
    for entry in ours:
        assert entry["subresource"] == "status"
        assert set(entry["fieldsV1"]) == {"f:status"}
    assert shown["metadata"]["labels"] == {LABEL: IN_PROGRESS}
    assert [ref["weight"] for ref in shown["spec"]["rules"][0]["backendRefs"]] == [80, 20]


# --- a canary behind a ServiceImport ------------------------------------------------------------

IMPORTED = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ServiceImport
metadata: {name: NAME, namespace: app}
spec: {type: ClusterSetIP, ports: [{port: 9090, protocol: TCP}], resolution: DNS}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: MultiClusterService
metadata: {name: canary, namespace: app}
spec:
  serviceImport: {name: NAME, namespace: app}
  clusterBackends: [{cluster: us-west-1, weight: 1}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: imported-canary, namespace: app}
spec:
  parentRefs: [{name: grpc-gateway, namespace: infra, sectionName: grpc}]
  hostnames: [grpc.example.com]
  rules:
  - backendRefs:
    - {name: user-service-v1, port: 9090, weight: 100}
    - {group: gateway.networking.k8s.io, kind: ServiceImport, name: NAME, port: 9090, weight: 0}
"""
TESTERS_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: imported-canary-testers, namespace: app}
spec:
  parentRefs: [{name: grpc-gateway, namespace: infra, sectionName: grpc}]
  hostnames: [grpc.example.com]
  rules:
  - matches: [{headers: [{name: x-canary, value: "true"}]}]
    backendRefs:
    - {group: gateway.networking.k8s.io, kind: ServiceImport, name: NAME, port: 9090}
"""


@pytest.mark.parametrize("name", ["user-service-v2-import", "user-service-v2"])
async def test_a_canary_behind_an_import(lab: KubernetesLab, call: Caller, name: str) -> None:
    """Its header routes ask for a *Service* of the import's name. So either the import is called
    like the Service that it means, or the header has a route of its own."""
    lab.kubectl(WEST, "apply", "-f", "-", stdin=IMPORTED.replace("NAME", name))
    becomes(lab, "multiclusterservice", "canary", {"BackendsReady": "True"})
    tester = {"x-canary": "true"}
    async with connected(ConnectionSettings(lab.directory / "kubeconfig", WEST)) as connection:
        rollout = Rollout(connection, "imported-canary", STABLE, name, managed=("testers",))
        # Weights go by name alone: they work.
        await rollout.set_weight(100)
        await asyncio.to_thread(answers, lab, call, CANARY)
        await rollout.set_weight(0)
        await asyncio.to_thread(answers, lab, call, STABLE)
        await rollout.set_header_route("testers", TESTERS)
        if name == CANARY:
            await _until_answered(lambda: asyncio.to_thread(call, headers=tester), CANARY)
        else:
            at = "spec.rules[1].backendRefs[0]"
            missing = f"Service app/{name} does not exist"
            becomes(
                lab,
                "grpcroute",
                "imported-canary",
                {"ResolvedRefs": f"False, BackendNotFound: {at}: {missing}"},
                at="grpc-gateway",
            )
            told = await asyncio.to_thread(call, headers=tester)
            assert told.startswith("UNAVAILABLE"), told
            assert missing in told
            assert call() == STABLE
            await rollout.remove_managed_routes()
            lab.kubectl(WEST, "apply", "-f", "-", stdin=TESTERS_ROUTE.replace("NAME", name))
            await _until_answered(lambda: asyncio.to_thread(call, headers=tester), CANARY)
        assert call() == STABLE


# --- Flagger ------------------------------------------------------------------------------------

SHOP = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shop, namespace: infra}
spec:
  gatewayClassName: istio
  listeners:
  - {name: http, port: 9090, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
"""
SHOP_SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: app}}
spec: {{ports: [{{name: grpc, port: 9090, appProtocol: kubernetes.io/h2c}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: app, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: grpc, port: 9090, appProtocol: kubernetes.io/h2c}}]
endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]
"""
SHOP_CANARY = {
    "apiVersion": "flagger.app/v1beta1",
    "kind": "Canary",
    "metadata": {"name": "shop", "namespace": "app"},
    "spec": {
        "provider": "gatewayapi:v1",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
        "service": {
            "port": 9090,
            "hosts": ["grpc.example.com"],
            "gatewayRefs": [{"name": "shop", "namespace": "infra"}],
        },
        "analysis": {"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 10},
    },
}


@pytest.fixture
def shop(lab: KubernetesLab) -> KubernetesLab:
    """A Gateway for HTTPRoutes, and the two Services that Flagger makes of a Deployment."""
    text = SHOP
    for service, stands_for in (("shop-primary", STABLE), ("shop-canary", CANARY)):
        pods = [e["pod"] for e in lab.cluster(WEST)["endpoints"] if e["service"] == stands_for]
        text += SHOP_SERVICE.format(name=service, address=pods[0].rpartition(":")[0])
    lab.kubectl(WEST, "apply", "-f", "-", stdin=text)
    becomes(lab, "gateway", "shop", {"Programmed": "True"}, namespace="infra")
    return lab


async def test_flagger_steps(shop: KubernetesLab, tmp_path: Path) -> None:
    """By Flagger's own code. It makes HTTPRoutes, also for gRPC."""
    try:
        FLAGGER.build()
    except NoProgramsError as error:
        pytest.skip(str(error))
    offset = shop.gateways(WEST)[0]["portOffset"]
    target = f"127.0.0.1:{9090 + offset}"
    kubeconfig = shop.directory / "kubeconfig"  # us-west-1 is its current context
    with running_router(kubeconfig, SHOP_CANARY, tmp_path) as router:
        await asyncio.to_thread(router.reconcile)
        becomes(shop, "httproute", "shop", {"Accepted": "True, Accepted"}, at="shop")
        async with steady(target, None, rate=RATE) as load:
            await until(
                lambda: bool(load.calls) and not load.calls[-1].error,
                timeout_s=FOLLOW_S,
                what="the route is in force",
            )
            began = time.monotonic()
            for weight in (10, 50, 100, 0):
                await asyncio.to_thread(router.set_routes, 100 - weight, weight)
                at = time.monotonic()
                await follows(load, CANARY, weight, since=at)
                assert await asyncio.to_thread(router.get_routes) == (100 - weight, weight)
                if weight in (100, 0):
                    left = STABLE if weight else CANARY
                    print(f"\nflagger: {weight} % after {lag_s(load, left, since=at):.3f} s")
                await _until_answered(lambda: _is_ready_for_flagger(shop), True)
            await asyncio.to_thread(router.reconcile)
            assert await asyncio.to_thread(router.get_routes) == (100, 0)
    assert [call for call in load.since(began) if call.error] == []


async def _is_ready_for_flagger(lab: KubernetesLab) -> bool:
    """What newer Flaggers ask before the next step: a status for exactly the parent of the spec,
    accepted at the newest generation."""
    route = await asyncio.to_thread(lab.object, WEST, "httproute", "shop")
    (parent,) = route["spec"]["parentRefs"]
    for status in route.get("status", {}).get("parents", []):
        accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
        if status["parentRef"] == parent and accepted["status"] == "True":
            return bool(accepted["observedGeneration"] >= route["metadata"]["generation"])
    return False


async def _until_answered(ask: Any, wanted: object) -> None:
    """Wait until ``ask`` gives ``wanted``."""
    deadline = time.monotonic() + FOLLOW_S
    while (found := await ask()) != wanted:
        assert time.monotonic() < deadline, f"{found}, not {wanted}"
        await asyncio.sleep(0.05)
