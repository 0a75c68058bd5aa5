"""An endpoint that fails in a row is taken out, comes back after its time, and never too many are.

The service is one of the test's own: four demo endpoints of us-west-1 behind one name, a route of
its own and a policy that ejects after five failures, for three seconds, half of them at most.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.conftest import WEST
from tests.testkit import load
from tests.testkit.lab import Lab, ask

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

HOSTNAME = "ejection.example.com"
FAILURES = 5
OUT_S = 3.0
CAP_PERCENT = 50
BEHIND = ("user-service-v1", "user-service-v2")
"""Demo services whose endpoints (two each) stand behind the test's Service."""

FAIL = ("x-demo-fail", "14")


def manifests(addresses: list[str]) -> list[dict[str, Any]]:
    """The Service with one slice for each address, its route and the policy."""
    slices = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"ejection-{number}",
                "namespace": "app",
                "labels": {"kubernetes.io/service-name": "ejection"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": int(address.rpartition(":")[2])}],
            "endpoints": [{"addresses": [address.rpartition(":")[0]]}],
        }
        for number, address in enumerate(addresses)
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "ejection", "namespace": "app"},
        "spec": {"ports": [{"name": "grpc", "port": 9090}]},
    }
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": "ejection", "namespace": "app"},
        "spec": {
            "parentRefs": [{"name": "grpc-gateway", "namespace": "infra"}],
            "hostnames": [HOSTNAME],
            "rules": [{"backendRefs": [{"name": "ejection", "port": 9090}]}],
        },
    }
    policy = {
        "apiVersion": "gateway.networking.k8s.io/v1alpha3",
        "kind": "BackendTrafficPolicy",
        "metadata": {"name": "ejection", "namespace": "app"},
        "spec": {
            "targetRef": {
                "group": "gateway.networking.k8s.io",
                "kind": "GRPCRoute",
                "name": "ejection",
            },
            "circuitBreaker": {
                "consecutiveFailures": FAILURES,
                "baseEjectionTime": f"{OUT_S:.0f}s",
                "maxEjectionPercent": CAP_PERCENT,
            },
        },
    }
    return [*slices, service, route, policy]


@dataclass(frozen=True, slots=True)
class Subject:
    """The service under test, as clients reach it and as the gateway sees it."""

    admin: str
    channel: grpc.aio.Channel
    addresses: list[str]

    async def call(self, *metadata: tuple[str, str]) -> load.Call:
        return await load.get_user(self.channel, metadata=metadata)

    def events(self) -> list[tuple[str, str]]:
        """What happened to the service's endpoints, oldest first."""
        return [
            (event["event"], event["address"])
            for event in ask(self.admin, "/events")
            if event.get("address") in self.addresses and "app/ejection/" in event["cluster"]
        ]

    def ejected(self) -> set[str]:
        """Which of the endpoints are out now."""
        return {
            endpoint["address"]
            for endpoint in ask(self.admin, "/stats")["core"]["endpoints"]
            if "app/ejection/" in endpoint["cluster"]
            and endpoint["ejected_until_unix_ms"] is not None
        }


@pytest.fixture
async def subject(lab: Lab, tmp_path: Path) -> AsyncIterator[Subject]:
    addresses = [
        endpoint["address"]
        for endpoint in lab.cluster(WEST)["endpoints"]
        if endpoint["service"] in BEHIND
    ]
    written = tmp_path / "ejection.yaml"
    written.write_text("\n---\n".join(json.dumps(each) for each in manifests(addresses)))
    where = ("-f", str(written), "--cluster", WEST)
    await asyncio.to_thread(lab.fedctl, "apply", *where)
    opened = load.channel(lab.gateway(WEST), lab.ca(), authority=HOSTNAME)
    found = Subject(lab.admin(WEST), opened, addresses)
    try:
        await _served(found)
        yield found
    finally:
        await opened.close()
        await asyncio.to_thread(lab.fedctl, "delete", *where)


async def _served(subject: Subject) -> None:
    deadline = time.monotonic() + 10.0
    while (call := await subject.call()).error:
        assert time.monotonic() < deadline, call.error


async def test_five_failures_eject_an_endpoint_for_its_time(subject: Subject) -> None:
    victim = subject.addresses[0]
    fail_there = (FAIL, ("x-demo-fail-endpoint", victim))
    failed: list[load.Call] = []
    deadline = time.monotonic() + 10.0
    while len(failed) < FAILURES:
        assert time.monotonic() < deadline, f"{victim} got {len(failed)} calls"
        if (call := await subject.call(*fail_there)).error:
            failed.append(call)
    assert all(victim in call.error for call in failed)
    out = failed[-1].ended
    # Out: the calls that it would have failed are answered by the others.
    spared = [await subject.call(*fail_there) for _ in range(60)]
    assert spared[-1].ended < out + OUT_S, "too slow to say anything about the time out"
    assert [call.error for call in spared if call.error] == []
    assert {call.served_by.rpartition("/")[2] for call in spared} == {*subject.addresses} - {victim}
    assert subject.ejected() == {victim}
    # Back, but not before its time.
    deadline = out + OUT_S + 3.0
    while not (back := await subject.call()).served_by.endswith(victim):
        assert time.monotonic() < deadline, f"{victim} does not come back"
    assert back.started - out > OUT_S - 0.1
    told = [("ejection", victim), ("uneject", victim)]
    await load.until(lambda: subject.events()[-2:] == told, timeout_s=2, what="both events")


async def test_no_more_than_the_cap_are_out_when_all_fail(subject: Subject) -> None:
    cap = len(subject.addresses) * CAP_PERCENT // 100
    most = 0
    for _ in range(20):
        calls = [await subject.call(FAIL) for _ in range(5)]
        # Each call reached an endpoint: what is left in keeps being tried.
        assert all("served by" in call.error for call in calls), calls
        most = max(most, len(subject.ejected()))
        assert most <= cap
    assert most == cap
