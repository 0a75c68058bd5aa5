"""A cluster of thousands of Services, exports and routes, as manifests of an ordinary application.

Every Service has one EndpointSlice; the first ``exports`` Services are exported; routes lead to
Services and to imports in turn, on ``gateways`` Gateways of one listener each. Every tenth route
has a policy. ``app-0/probe`` and its route ``probe.example.com`` are for tests to change and call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from federation.adapters.kubernetes import Connection
from federation.derive.compile.inputs import CONTROLLER_NAME

Json = dict[str, Any]

GATEWAY_API = "gateway.networking.k8s.io"
POD_PORT = 9090
SERVICE_PORT = 9090
PROBE, PROBE_NAMESPACE = "probe", "app-0"
PROBE_HOST = "probe.example.com"
AT_ONCE = 48
"""Objects that are created at the same time."""


@dataclass(frozen=True, slots=True)
class BigCluster:
    """How many of each there are; ``port`` is the first Gateway's, the others' follow."""

    services: int = 5_000
    exports: int = 1_000
    routes: int = 2_000
    gateways: int = 4
    namespaces: int = 20
    endpoints: int = 3
    port: int = 8_443

    def namespace(self, number: int) -> str:
        """Where Service ``number`` is."""
        return f"app-{number % self.namespaces}"

    def objects(self) -> Iterator[Json]:
        """All of it but the probe, namespaces first."""
        for name in ("infra", *(f"app-{number}" for number in range(self.namespaces))):
            yield _object("v1", "Namespace", "", name)
        yield _object(
            f"{GATEWAY_API}/v1",
            "GatewayClass",
            "",
            "federation",
            spec={"controllerName": CONTROLLER_NAME},
        )
        yield from (self._gateway(number) for number in range(self.gateways))
        for number in range(self.services):
            yield from self._service(number)
        for number in range(self.exports):
            where = self.namespace(number)
            yield _object("multicluster.x-k8s.io/v1beta1", "ServiceExport", where, f"svc-{number}")
        for number in range(self.routes):
            yield self._route(number)
            if number % 10 == 0:
                yield self._policy(number)

    def probe(self, address: str) -> Iterator[Json]:
        """The Service that is called, with one endpoint, and its route."""
        yield _service(PROBE_NAMESPACE, PROBE)
        yield probe_slice(address)
        yield _object(
            f"{GATEWAY_API}/v1",
            "GRPCRoute",
            PROBE_NAMESPACE,
            PROBE,
            spec={
                "parentRefs": [{"name": "edge-0", "namespace": "infra"}],
                "hostnames": [PROBE_HOST],
                "rules": [{"backendRefs": [{"name": PROBE, "port": SERVICE_PORT}]}],
            },
        )

    def _gateway(self, number: int) -> Json:
        listener = {
            "name": "grpc",
            "port": self.port + number,
            "protocol": "HTTP",
            "allowedRoutes": {"namespaces": {"from": "All"}},
        }
        spec = {"gatewayClassName": "federation", "listeners": [listener]}
        return _object(f"{GATEWAY_API}/v1", "Gateway", "infra", f"edge-{number}", spec=spec)

    def _service(self, number: int) -> Iterator[Json]:
        where, name = self.namespace(number), f"svc-{number}"
        yield _service(where, name)
        addresses = [
            f"10.{128 + (at >> 16)}.{at >> 8 & 255}.{at & 255}"
            for at in range(number * self.endpoints, (number + 1) * self.endpoints)
        ]
        yield _slice(where, name, addresses)

    def _route(self, number: int) -> Json:
        service = number % self.services
        backends: list[Json] = [{"name": f"svc-{service}", "port": SERVICE_PORT, "weight": 90}]
        if number % 2 and number % self.services < self.exports:
            # Every other route of an exported Service goes to the import, as other clusters do.
            del backends[0]["weight"]
            backends[0] |= {"group": "multicluster.x-k8s.io", "kind": "ServiceImport"}
        rules = [
            {
                "matches": [{"method": {"service": f"pkg.Service{number}", "method": "Read"}}],
                "backendRefs": backends,
            },
            {"backendRefs": backends},
        ]
        spec = {
            "parentRefs": [{"name": f"edge-{number % self.gateways}", "namespace": "infra"}],
            "hostnames": [f"svc-{number}.example.com"],
            "rules": rules,
        }
        where = self.namespace(service)
        return _object(f"{GATEWAY_API}/v1", "GRPCRoute", where, f"route-{number}", spec=spec)

    def _policy(self, number: int) -> Json:
        target = {"group": GATEWAY_API, "kind": "GRPCRoute", "name": f"route-{number}"}
        spec = {"targetRef": target, "retry": {"attempts": 3}}
        where = self.namespace(number % self.services)
        return _object(
            f"{GATEWAY_API}/v1alpha3", "BackendTrafficPolicy", where, f"policy-{number}", spec=spec
        )


def probe_slice(address: str) -> Json:
    """The probe's slice, which leads to ``address``."""
    return _slice(PROBE_NAMESPACE, PROBE, [address])


def _object(api_version: str, kind: str, namespace: str, name: str, **parts: Any) -> Json:
    metadata: Json = {"name": name, "labels": {"app.kubernetes.io/part-of": "big"}}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


def _service(namespace: str, name: str) -> Json:
    # No selector: nobody runs Pods for it, and no controller writes slices.
    spec = {"ports": [{"name": "grpc", "port": SERVICE_PORT, "appProtocol": "kubernetes.io/h2c"}]}
    return _object("v1", "Service", namespace, name, spec=spec)


def _slice(namespace: str, name: str, addresses: list[str]) -> Json:
    endpoints = [
        {
            "addresses": [address],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{place}",
            "zone": f"zone-{place % 3}",
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": f"{name}-{place}"},
        }
        for place, address in enumerate(addresses)
    ]
    made = _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        namespace,
        f"{name}-1",
        addressType="IPv4",
        ports=[{"name": "grpc", "port": POD_PORT, "protocol": "TCP"}],
        endpoints=endpoints,
    )
    made["metadata"]["labels"]["kubernetes.io/service-name"] = name
    return made


_PLURALS = {"GatewayClass": "gatewayclasses", "BackendTrafficPolicy": "backendtrafficpolicies"}


def path_of(document: Json) -> str:
    """Where objects like ``document`` are created."""
    version, kind = document["apiVersion"], document["kind"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = document["metadata"].get("namespace")
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"{base}{inside}/{_PLURALS.get(kind, f'{kind.lower()}s')}"


def own_crds() -> list[Json]:
    """The CustomResourceDefinitions of this project."""
    paths = sorted((Path(__file__).parents[2] / "crds").glob("*.yaml"))
    return [yaml.safe_load(path.read_text()) for path in paths]


async def fill(connection: Connection, documents: Iterable[Json]) -> int:
    """Create all of ``documents``, many at a time; returns how many. Namespaces come first."""
    todo: asyncio.Queue[Json] = asyncio.Queue()
    count = 0
    for document in documents:
        if document["kind"] == "Namespace":
            await connection.post(path_of(document), document)
        else:
            todo.put_nowait(document)
        count += 1

    async def work() -> None:
        while not todo.empty():
            document = todo.get_nowait()
            await connection.post(path_of(document), document)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return count
