"""How long a change of endpoints in one region takes until the other region's gateway goes by it.

The method stands in ``README.md``.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from federation.adapters.clock import SystemClock
from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.adapters.universal import UniversalObjects
from federation.model.base import ClusterId
from federation.model.objects import ApiObject
from federation.wire.etcd_keys import Keys
from federation.wire.manifests import decode_value
from tests.testkit.lab import Lab

CHANGES = 200
WRITTEN_IN, SEEN_IN = "us-east-1", "us-west-1"
SERVICE = "propagation"
UPSTREAM = f"import/app/{SERVICE}/9090/{WRITTEN_IN}"
POLL_S = 0.002
PAUSE_S = (0.05, 0.25)
"""Between changes, drawn evenly: changes must not fall into step with any timer on the way."""
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Change:
    """One change: what it was and how long it took; ``poll_s`` is how far apart the looks were."""

    added: bool
    took_s: float
    poll_s: float


def measure(*, changes: int = CHANGES) -> list[Change]:
    """A lab of two regions, and ``changes`` changes in it, adding and removing in turn."""
    with lab() as running:
        manifests = running.directory / "propagation.json"
        manifests.write_text("\n---\n".join(json.dumps(each) for each in documents()))
        running.fedctl("apply", "-f", str(manifests))
        return asyncio.run(_measure(running, changes))


@contextmanager
def lab() -> Iterator[Lab]:
    """A lab of its own with no other traffic in it."""
    with tempfile.TemporaryDirectory() as directory:
        running = Lab(Path(directory) / "lab")
        running.fedctl("lab", "up", "--detach", "--rate", "0")
        try:
            yield running
        finally:
            running.fedctl("lab", "down")


async def _measure(running: Lab, changes: int) -> list[Change]:
    etcd = running.status()["etcd"]
    behind = {cluster: _endpoint(running, cluster) for cluster in (SEEN_IN, WRITTEN_IN)}
    admin = running.admin(SEEN_IN)
    pauses = random.Random(7)
    store = EtcdStore(EtcdSettings(endpoints=(etcd,)))
    home, away = (
        UniversalObjects(store, Keys(), ClusterId(cluster), SystemClock())
        for cluster in (SEEN_IN, WRITTEN_IN)
    )
    try:
        async with aiohttp.ClientSession(f"http://{admin}") as http:
            watched = Watched(http)
            await home.apply(endpoint_slice(behind[SEEN_IN]))
            added, removed = endpoint_slice(behind[WRITTEN_IN]), endpoint_slice(None)
            await away.apply(added)
            await watched.until(used=True)
            await away.apply(removed)
            await watched.until(used=False)
            done: list[Change] = []
            for number in range(changes):
                await asyncio.sleep(pauses.uniform(*PAUSE_S))
                used = number % 2 == 0
                done.append(await _change(away, added if used else removed, watched, used=used))
            return done
    finally:
        await store.close()


async def _change(
    away: UniversalObjects, wanted: ApiObject, watched: Watched, *, used: bool
) -> Change:
    await watched.look()
    started = time.perf_counter()
    seeing = asyncio.create_task(watched.until(used=used))
    await away.apply(wanted)
    seen_at, poll_s = await seeing
    return Change(used, seen_at - started, poll_s)


class Watched:
    """The other region's gateway, looked at through its admin endpoint."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._version = -1

    async def look(self) -> None:
        """Take note of the configuration that is in force now."""
        self._version = (await self._get("/ready"))["version"]

    async def until(self, *, used: bool) -> tuple[float, float]:
        """Wait until the core has accepted a configuration that sends (or sends no) calls there.

        Returns when that was, and how long before the look before it had been.
        """
        deadline = time.perf_counter() + PATIENCE_S
        looked = time.perf_counter()
        while time.perf_counter() < deadline:
            version = (await self._get("/ready"))["version"]
            now = time.perf_counter()
            if version != self._version:
                self._version = version
                dump = await self._get("/config_dump")
                if is_used(dump) == used:
                    # A newer configuration than the one looked for: known only by now.
                    seen_at = now if dump["version"] == version else time.perf_counter()
                    return seen_at, seen_at - looked
            looked = now
            await asyncio.sleep(POLL_S)
        raise TimeoutError(f"no configuration with {UPSTREAM} used={used} within {PATIENCE_S} s")

    async def _get(self, path: str) -> dict[str, Any]:
        async with self._http.get(path) as answer:
            body: dict[str, Any] = await answer.json()
            return body


def is_used(dump: dict[str, Any]) -> bool:
    """Whether a route of the configuration gives calls to the service's share in the region."""
    return any(
        entry["cluster"].startswith(UPSTREAM) and entry["weight"] > 0
        for table in dump["route_tables"]
        for entry in _weighted(table["body"])
    )


def _weighted(body: Any) -> Iterator[dict[str, Any]]:
    """Everything in a route table that has a cluster and a weight."""
    if isinstance(body, dict):
        if {"cluster", "weight"} <= body.keys():
            yield body
        for part in body.values():
            yield from _weighted(part)
    elif isinstance(body, list):
        for part in body:
            yield from _weighted(part)


def _endpoint(running: Lab, cluster: str) -> str:
    """A demo endpoint of ``cluster`` to put behind the service."""
    found = running.cluster(cluster)["endpoints"]
    return next(str(each["address"]) for each in found if each["service"] == "user-service")


def endpoint_slice(address: str | None) -> ApiObject:
    """The service's slice with the endpoint at ``address``, or with none."""
    host, _, port = (address or "127.0.0.1:9").rpartition(":")
    found = decode_value(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{SERVICE}-1",
                "namespace": "app",
                "labels": {"kubernetes.io/service-name": SERVICE},
            },
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": int(port)}],
            "endpoints": [{"addresses": [host]}] if address is not None else [],
        },
        origin="the propagation benchmark",
    )
    assert isinstance(found, ApiObject), found
    return found


def documents() -> Iterator[dict[str, Any]]:
    """A service of both regions, weighted half and half, and the route that makes it matter."""
    meta = {"name": SERVICE, "namespace": "app"}
    imports = {"group": "gateway.networking.k8s.io", "kind": "ServiceImport", "name": SERVICE}
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"ports": [{"name": "grpc", "port": 9090}]},
    }
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ServiceImport",
        "metadata": meta,
        "spec": {"type": "ClusterSetIP", "ports": [{"port": 9090, "protocol": "TCP"}]},
    }
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "MultiClusterService",
        "metadata": meta,
        "spec": {
            "serviceImport": meta,
            "clusterBackends": [
                {"cluster": SEEN_IN, "weight": 50},
                {"cluster": WRITTEN_IN, "weight": 50},
            ],
        },
    }
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": meta,
        "spec": {
            "hostnames": ["propagation.example.com"],
            "parentRefs": [{"name": "grpc-gateway", "namespace": "infra"}],
            "rules": [{"backendRefs": [{**imports, "port": 9090}]}],
        },
    }


def percentile(values: list[float], part: float) -> float:
    """The smallest of ``values`` that at least ``part`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def table(changes: list[Change]) -> str:
    """The figures as Markdown."""
    title = (
        f"From the write of an EndpointSlice in {WRITTEN_IN} to a configuration that goes by it in "
        f"a gateway of {SEEN_IN}, {len(changes)} changes:"
    )
    lines = [title, "", "| endpoint | changes | p50 ms | p99 ms | max ms |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    added = [change for change in changes if change.added]
    removed = [change for change in changes if not change.added]
    for name, chosen in (("added", added), ("removed", removed), ("both", changes)):
        took_ms = [change.took_s * 1000 for change in chosen]
        lines.append(
            f"| {name} | {len(chosen)} | {percentile(took_ms, 0.5):.0f} "
            f"| {percentile(took_ms, 0.99):.0f} | {max(took_ms):.0f} |"
        )
    poll_ms = [change.poll_s * 1000 for change in changes]
    looking = (
        f"Of that, looking adds {percentile(poll_ms, 0.5) / 2:.1f} ms on average (looks are "
        f"{percentile(poll_ms, 0.5):.1f} ms apart, p99 {percentile(poll_ms, 0.99):.1f} ms)."
    )
    lines += ["", looking]
    return "\n".join(lines)
