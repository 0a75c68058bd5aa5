"""``fedctl standalone`` over a folder: what comes into force, is printed, and is taken up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from federation.adapters.folder import FolderError
from federation.cli.standalone import StandaloneSettings, serve
from federation.model.base import ClusterId
from gateway.reach import OWN_CLUSTER
from gateway.runtime import LISTENER_RETRIED
from tests.integration.discovery_support import PaperCore, eventually

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: grpc-gateway, namespace: infra}
spec:
  gatewayClassName: istio
  listeners:
  - name: grpc
    port: 80
    protocol: HTTP
    allowedRoutes: {namespaces: {from: All}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: users, namespace: app}
spec:
  parentRefs: [{name: grpc-gateway, namespace: infra}]
  rules:
  - backendRefs: [{name: user-service, port: 9090}]
---
apiVersion: v1
kind: Service
metadata: {name: user-service, namespace: app}
spec:
  ports: [{name: grpc, port: 9090}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: user-service-1
  namespace: app
  labels: {kubernetes.io/service-name: user-service}
addressType: IPv4
ports: [{name: grpc, port: 9091}]
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]
"""


def settings(folder: Path) -> StandaloneSettings:
    return StandaloneSettings(
        manifests=folder,
        cluster=ClusterId("standalone"),
        address="127.0.0.1",
        port_offset=20_000,
        workers=1,
        admin="127.0.0.1:0",
        gateway_classes=frozenset({"istio"}),
    )


@asynccontextmanager
async def standalone(folder: Path, core: PaperCore) -> AsyncIterator[list[str]]:
    """A running standalone gateway; the list grows with what it prints."""
    said: list[str] = []
    task = asyncio.create_task(serve(settings(folder), core=core, say=said.append))
    try:
        await eventually(lambda: said or task.done())
        yield said
    finally:
        task.cancel()
        await asyncio.wait([task])


def addresses(core: PaperCore) -> set[str]:
    return {
        endpoint["address"]
        for cluster, entry in core.state["endpoints"].items()
        if cluster != OWN_CLUSTER
        for locality in entry["localities"]
        for endpoint in locality["endpoints"]
    }


async def test_a_folder_comes_into_force_and_its_ports_are_printed(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    core = PaperCore()
    async with standalone(tmp_path, core) as said:
        assert "listening: infra/grpc-gateway/80 on 127.0.0.1:20080 (plain text)" in said
        assert addresses(core) == {"127.0.0.1:9091"}


async def test_a_changed_file_is_taken_up(tmp_path: Path) -> None:
    manifest = tmp_path / "all.yaml"
    manifest.write_text(MANIFESTS)
    core = PaperCore()
    async with standalone(tmp_path, core):
        manifest.write_text(MANIFESTS.replace("port: 9091", "port: 9092"))
        await eventually(lambda: addresses(core) == {"127.0.0.1:9092"})


async def test_a_bad_object_is_named_and_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    (tmp_path / "bad.yaml").write_text(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n"
        "metadata: {name: bad, namespace: app}\n"
        "spec:\n  rules:\n  - backendRefs: [{name: x, port: 1, weight: -5}]\n"
    )
    core = PaperCore()
    async with standalone(tmp_path, core) as said:
        await eventually(lambda: addresses(core))
        assert any("bad.yaml:6: GRPCRoute app/bad: spec.rules[0]" in line for line in said), said


async def test_a_route_without_its_gateway_says_so(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(
        MANIFESTS.replace("{name: grpc-gateway, namespace: infra}]", "{name: gone}]")
    )
    async with standalone(tmp_path, PaperCore()) as said:
        assert any("GRPCRoute app/users" in line and "Accepted=False" in line for line in said)


async def test_a_taken_port_is_printed(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    core = PaperCore()
    core.taken_ports = {20_080}
    async with standalone(tmp_path, core) as said:
        message = f"listeners infra/grpc-gateway/80: address already in use; {LISTENER_RETRIED}"
        assert message in said


async def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(FolderError, match="nowhere"):
        await serve(settings(missing), core=PaperCore(), say=lambda _: None)
