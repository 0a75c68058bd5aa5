"""The objects that each cluster of the lab begins with.

Decides: namespaces, the Gateway, certificates, demo Services and their EndpointSlices.
Leaves to others: routes, imports and policies, which are the user's to apply.
Invariants: these are ordinary objects, of the universal source or of API servers
(``kubernetes.clusters``); nothing of the federation knows that they come from the lab.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

from federation.adapters.clock import SystemClock
from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.adapters.universal import UniversalObjects
from federation.cli.lab.authority import Authority, KeyPair
from federation.cli.lab.plan import SERVICE_PORT, ClusterPlan, DemoEndpoint, LabPlan
from federation.model.objects import ApiObject
from federation.wire.etcd_keys import Keys
from federation.wire.manifests import decode_value

GATEWAY_NAMESPACE = "infra"
APP_NAMESPACE = "app"
HOSTNAMES = ("grpc.example.com", "*.example.com")
CERTIFICATES = ("grpc-cert", "wildcard-cert")


def documents(cluster: ClusterPlan, certificate: KeyPair) -> Iterator[dict[str, Any]]:
    """The first objects of ``cluster`` as manifests, in the order in which they are written."""
    yield _object("v1", "Namespace", GATEWAY_NAMESPACE)
    yield _object("v1", "Namespace", APP_NAMESPACE, labels={"internal-grpc": "true"})
    for name in CERTIFICATES:
        yield _tls_secret(name, certificate)
    yield _object(
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
        "istio",
        spec={"controllerName": "federation.dev/gateway-controller"},
    )
    yield _gateway()
    services = dict.fromkeys(endpoint.service for endpoint in cluster.demo.endpoints)
    for service in services:
        yield _service(service)
    for number, endpoint in enumerate(cluster.demo.endpoints):
        yield endpoint_slice(endpoint, number=number)


def _object(
    api_version: str, kind: str, name: str, *, namespace: str | None = None, **fields: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    if labels := fields.pop("labels", None):
        metadata["labels"] = labels
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def _tls_secret(name: str, certificate: KeyPair) -> dict[str, Any]:
    data = {
        "tls.crt": base64.b64encode(certificate.certificate_pem).decode(),
        "tls.key": base64.b64encode(certificate.key_pem).decode(),
    }
    return _object(
        "v1", "Secret", name, namespace=GATEWAY_NAMESPACE, type="kubernetes.io/tls", data=data
    )


def _gateway() -> dict[str, Any]:
    listener = {
        "name": "grpc",
        "port": 443,
        "protocol": "HTTPS",
        "tls": {"mode": "Terminate", "certificateRefs": [{"name": "grpc-cert"}]},
        "allowedRoutes": {
            "namespaces": {"from": "All"},
            "kinds": [{"group": "gateway.networking.k8s.io", "kind": "GRPCRoute"}],
        },
    }
    return _object(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        "grpc-gateway",
        namespace=GATEWAY_NAMESPACE,
        spec={"gatewayClassName": "istio", "listeners": [listener]},
    )


def _service(name: str) -> dict[str, Any]:
    spec = {
        "selector": {"app": name},
        "ports": [{"name": "grpc", "port": SERVICE_PORT, "protocol": "TCP"}],
    }
    return _object("v1", "Service", name, namespace=APP_NAMESPACE, spec=spec)


def endpoint_slice(endpoint: DemoEndpoint, *, number: int, ready: bool = True) -> dict[str, Any]:
    """The slice of one demo endpoint: each has a port of its own, so each has its own slice."""
    host, port = (endpoint.pod or endpoint.address).rsplit(":", 1)
    return _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"{endpoint.service}-{number}",
        namespace=endpoint.namespace,
        labels={"kubernetes.io/service-name": endpoint.service},
        addressType="IPv4",
        ports=[{"name": "grpc", "port": int(port), "protocol": "TCP"}],
        endpoints=[{"addresses": [host], "conditions": {"ready": ready}}],
    )


def apply_bootstrap(plan: LabPlan, authority: Authority) -> None:
    """Write every cluster's first objects into the lab's etcd."""
    asyncio.run(_apply(plan, listener_certificate(authority)))


def listener_certificate(authority: Authority) -> KeyPair:
    """The certificate that gateways show to clients."""
    return authority.issue(HOSTNAMES[0], dns=HOSTNAMES)


async def _apply(plan: LabPlan, certificate: KeyPair) -> None:
    store = EtcdStore(EtcdSettings(endpoints=(plan.etcd,)))
    try:
        for cluster in plan.clusters:
            universal = UniversalObjects(store, Keys(), cluster.name, SystemClock())
            for document in documents(cluster, certificate):
                await universal.apply(_decoded(document))
    finally:
        await store.close()


def _decoded(document: dict[str, Any]) -> ApiObject:
    found = decode_value(document, origin="the lab's first objects")
    if not isinstance(found, ApiObject):
        raise TypeError(f"the lab wrote an object that is not valid: {found}")
    return found
