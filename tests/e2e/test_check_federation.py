"""``fedctl check`` on what the federation itself does not get done: drains, resolvers, clusters."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.model.base import ClusterId
from federation.model.drain import DrainState
from federation.model.facts import Heartbeat
from federation.ports import Delete, Put
from federation.wire.etcd import from_bytes, to_bytes
from federation.wire.etcd_keys import Keys
from tests.e2e.checking import check, found
from tests.e2e.conftest import EAST, WEST
from tests.e2e.test_agent_away import agent_from_folder
from tests.testkit.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

FOREIGN_DRAIN = """
apiVersion: federation.dev/v1alpha1
kind: Drain
metadata: {name: not-mine}
spec: {target: us-east-1, over: 1s}
"""
TAKEN = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: taken, namespace: infra}
spec:
  gatewayClassName: istio
  listeners: [{name: grpc, port: %d, protocol: HTTP}]
"""
STRANGER = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: of-others, namespace: infra}
spec:
  gatewayClassName: somebody-elses
  listeners: [{name: grpc, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: stranger, namespace: app}
spec:
  parentRefs: [{name: of-others, namespace: infra}]
  rules: [{backendRefs: [{name: user-service, port: 9090}]}]
"""


def kill_resolvers(lab: Lab) -> None:
    for name in lab.pids("resolver"):
        lab.fedctl("lab", "kill", name)
    seen = found(lab, "resolver", "resolver", "no resolver leads")
    lab.wait(seen, timeout_s=40, what="the lead is over")


def let_pass(lab: Lab, name: str, *, seconds: float) -> None:
    """Set a drain's start back; the resolvers, who write it, are dead."""

    async def write() -> None:
        store, key = EtcdStore(EtcdSettings(endpoints=(lab.first_status["etcd"],))), Keys()
        entry = await store.get(key.drain_state(name))
        assert entry is not None
        state = from_bytes(DrainState, entry.value)
        before = state.model_copy(
            update={"started_at_ms": state.started_at_ms - round(seconds * 1000)}
        )
        await store.commit([Put(key.drain_state(name), to_bytes(before))])
        await store.close()

    asyncio.run(write())


def test_without_a_resolver_a_drain_is_stuck(lab: Lab) -> None:
    lab.fedctl("drain", EAST, "--over", "30s", "--grace", "1s")

    def ramps() -> bool:
        drains = lab.federation()["drains"]
        return bool(drains) and (drains[0]["remainingBp"] or 0) not in (0, 10_000)

    lab.wait(ramps, timeout_s=20, what=lambda: f"the drain: {lab.federation()['drains']}")
    kill_resolvers(lab)
    _, report = check(lab, "--only", "drains")
    assert report["findings"] == [], "it is in time"
    name = lab.federation()["drains"][0]["name"]
    let_pass(lab, name, seconds=300)
    assert found(lab, "drains", name, "is stuck")()
    assert found(lab, "drains", name, "after its ramp and grace should be over")()


def test_a_drain_that_nobody_may_ask_for_is_refused(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "drain.yaml"
    path.write_text(FOREIGN_DRAIN)
    lab.fedctl("apply", "-f", str(path), "--cluster", WEST)
    try:
        seen = found(lab, "drains", "not-mine", "is refused: ")
        lab.wait(seen, timeout_s=20, what=lambda: str(check(lab, "--only", "drains")))
    finally:
        lab.fedctl("delete", "-f", str(path), "--cluster", WEST)


def test_a_shrink_that_is_not_believed(lab: Lab, tmp_path: Path) -> None:
    lab.fedctl("lab", "kill", f"agent-{EAST}")
    with agent_from_folder(lab, EAST, tmp_path / "empty"):
        seen = found(lab, "clusters", EAST, "a shrink is quarantined")
        lab.wait(seen, timeout_s=30, what=lambda: str(check(lab, "--only", "clusters")))
        _, report = check(lab, "--only", "clusters")
        (finding,) = [it for it in report["findings"] if "quarantined" in it["what"]]
        assert "app/user-service" in finding["why"]
        assert f"fedctl accept-shrink {EAST}" in finding["next"]


def test_a_cluster_without_gateways(lab: Lab) -> None:
    for gateway in lab.gateways(EAST):
        lab.fedctl("lab", "kill", gateway["name"])
    seen = found(lab, "clusters", EAST, "no gateway is connected to its agent")
    lab.wait(seen, timeout_s=30, what=lambda: str(check(lab, "--only", "clusters")))


def test_an_agent_of_another_version_and_what_it_does_without(lab: Lab) -> None:
    lab.fedctl("lab", "kill", f"agent-{EAST}")
    stale = found(lab, "clusters", EAST, "is stale")
    lab.wait(stale, timeout_s=30, what="its heartbeat is gone")
    keys = Keys()

    async def beat() -> None:
        store = EtcdStore(EtcdSettings(endpoints=(lab.first_status["etcd"],)))
        other = await store.get(keys.heartbeat(WEST))
        assert other is not None
        old = from_bytes(Heartbeat, other.value).model_copy(
            update={"cluster": EAST, "version": "0.0.1", "degraded": ("redis: no answer",)}
        )
        await store.commit([Put(keys.heartbeat(EAST), to_bytes(old))])
        await store.close()

    asyncio.run(beat())
    assert found(lab, "versions", f"agent of {EAST}", "runs 0.0.1 while most run")()
    assert found(lab, "clusters", EAST, "does without something: redis: no answer")()


def test_a_listener_that_a_gateway_cannot_open(lab: Lab, tmp_path: Path) -> None:
    first = lab.gateways(WEST)[0]
    offset = int(first["listeners"]["grpc"].rpartition(":")[2]) - 443
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as holder:
        path = tmp_path / "taken.yaml"
        path.write_text(TAKEN % (holder.getsockname()[1] - offset))
        lab.fedctl("apply", "-f", str(path), "--cluster", WEST)
        try:
            seen = found(lab, "gateways", first["name"], "cannot listen on")
            lab.wait(seen, timeout_s=30, what=lambda: str(check(lab, "--only", "gateways")))
            seen = found(lab, "policies", "infra/taken", "Programmed is False")
            lab.wait(seen, timeout_s=30, what=lambda: str(check(lab, "--only", "policies")))
        finally:
            lab.fedctl("delete", "-f", str(path), "--cluster", WEST)


def test_a_route_without_a_gateway(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "stranger.yaml"
    path.write_text(STRANGER)
    lab.fedctl("apply", "-f", str(path), "--cluster", WEST)
    try:
        seen = found(lab, "routes", "app/stranger", "is attached to no Gateway")
        lab.wait(seen, timeout_s=30, what=lambda: str(check(lab, "--only", "routes")))
    finally:
        lab.fedctl("delete", "-f", str(path), "--cluster", WEST)


def test_an_object_that_is_none(lab: Lab) -> None:
    key = f"{Keys().objects(ClusterId(WEST))}gateway.networking.k8s.io/GRPCRoute/app/broken"

    async def write(*writes: Put | Delete) -> None:
        store = EtcdStore(EtcdSettings(endpoints=(lab.first_status["etcd"],)))
        await store.commit(writes)
        await store.close()

    asyncio.run(write(Put(key, b'{"spec": 1}')))
    try:
        assert found(lab, "routes", "app/broken", "is no valid object and is left out")()
    finally:
        asyncio.run(write(Delete(key)))
