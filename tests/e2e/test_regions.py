"""Three regions with a distance between them: an import without weights stays where it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.testkit import load
from tests.testkit.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

REGIONS = ("eu-west-1", "us-west-1", "us-east-1")
LATENCY_S = 0.040
HOME = REGIONS[0]


def manifests() -> list[dict[str, Any]]:
    """An exported service, an import of it and a route; nothing says how to divide the calls."""
    export = {
        "apiVersion": "multicluster.x-k8s.io/v1alpha1",
        "kind": "ServiceExport",
        "metadata": {"name": "user-service", "namespace": "app"},
    }
    imported = {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ServiceImport",
        "metadata": {"name": "user-service", "namespace": "app"},
        "spec": {"type": "ClusterSetIP", "ports": [{"port": 9090, "protocol": "TCP"}]},
    }
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": "users", "namespace": "app"},
        "spec": {
            "hostnames": [load.AUTHORITY],
            "parentRefs": [{"name": "grpc-gateway", "namespace": "infra"}],
            "rules": [
                {
                    "backendRefs": [
                        {
                            "group": "gateway.networking.k8s.io",
                            "kind": "ServiceImport",
                            "name": "user-service",
                            "port": 9090,
                        }
                    ]
                }
            ],
        },
    }
    return [export, imported, route]


@pytest.fixture
def three_regions(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "lab")
    lab.fedctl(
        *("lab", "up", "--detach", "--rate", "0", "--regions", ",".join(REGIONS)),
        *("--region-latency", f"{LATENCY_S * 1000:.0f}ms"),
        timeout_s=120,
    )
    pids = all_pids(lab)
    try:
        yield lab
    finally:
        lab.fedctl("lab", "down")
    assert not lab.directory.exists()
    assert [process for process in pids if is_running(process)] == []


def all_pids(lab: Lab) -> list[psutil.Process]:
    """Every process of the lab, the demo endpoints too."""
    found = lab.status()
    pids = [process["pid"] for process in found["processes"]]
    pids += [endpoint["pid"] for cluster in found["clusters"] for endpoint in cluster["endpoints"]]
    assert len(pids) > 3 * (2 + 1 + 20)
    return [psutil.Process(pid) for pid in pids]


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_calls_stay_at_home_and_a_far_region_is_as_far_as_it_is(
    three_regions: Lab, tmp_path: Path
) -> None:
    lab, ca = three_regions, three_regions.ca()
    written = tmp_path / "users.yaml"
    written.write_text("\n---\n".join(json.dumps(each) for each in manifests()))
    lab.fedctl("apply", "-f", str(written))
    for region in REGIONS:
        await served(lab.gateway(region), ca)
        near = await load.calls(lab.gateway(region), ca, count=200, concurrency=4)
        assert near.failed == []
        assert near.by_cluster() == {region: 200}
        assert median(near) < LATENCY_S / 2
    # With nothing left at home the next region answers, as far away as it was asked to be.
    lab.fedctl("delete", "endpointslice", *slices(lab), "-n", "app", "--cluster", HOME)
    channel = load.channel(lab.gateway(HOME), ca)
    deadline = time.monotonic() + 15.0
    while (call := await load.get_user(channel)).cluster == HOME or call.error:
        assert time.monotonic() < deadline, "calls do not leave the region without endpoints"
    await channel.close()
    far = await load.calls(lab.gateway(HOME), ca, count=100, concurrency=4)
    assert far.failed == []
    assert far.by_cluster()[HOME] == 0
    assert min(call.took_s for call in far.calls) >= LATENCY_S


async def served(target: str, ca: bytes) -> None:
    """Wait until the route is in force."""
    channel = load.channel(target, ca)
    deadline = time.monotonic() + 15.0
    while (call := await load.get_user(channel)).error:
        assert time.monotonic() < deadline, call.error
    await channel.close()


def slices(lab: Lab) -> list[str]:
    """Names of the slices of user-service at home."""
    found = json.loads(
        lab.fedctl("get", "endpointslice", "-n", "app", "--cluster", HOME, "-o", "json").out
    )
    return [
        item["metadata"]["name"]
        for item in found["items"]
        if item["metadata"]["labels"]["kubernetes.io/service-name"] == "user-service"
    ]


def median(done: load.Load) -> float:
    return sorted(call.took_s for call in done.calls)[len(done.calls) // 2]
