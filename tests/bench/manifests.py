"""The manifests of the measured gateway: a listener, one route with all that is asked of it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.bench.setting import AUTHORITY, SERVICE, Security, Setting
from tests.testkit.processes import HOST

GATEWAY_API = "gateway.networking.k8s.io/v1"


def manifests(setting: Setting, port: int) -> str:
    """The documents."""
    listener: dict[str, object] = {"name": "grpc", "port": port, "protocol": "HTTP"}
    objects: list[dict[str, object]] = []
    if setting.security is not Security.PLAIN:
        listener |= {"protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "bench-cert"}]}}
        objects.append(_secret(setting))
    class_spec = {"controllerName": "federation.dev/gateway-controller"}
    gateway_spec = {"gatewayClassName": "federation", "listeners": [listener]}
    objects += [
        {
            "apiVersion": GATEWAY_API,
            "kind": "GatewayClass",
            "metadata": {"name": "federation"},
            "spec": class_spec,
        },
        _object(GATEWAY_API, "Gateway", "bench") | {"spec": gateway_spec},
        _object("v1", "Service", "users") | {"spec": {"ports": [{"name": "grpc", "port": 9090}]}},
        _endpoints(setting),
        _route(),
        _policy(),
    ]
    return "\n---\n".join(json.dumps(each) for each in objects)


def _object(api_version: str, kind: str, name: str, **metadata: object) -> dict[str, Any]:
    head = {"name": name, "namespace": "app", **metadata}
    return {"apiVersion": api_version, "kind": kind, "metadata": head}


def _secret(setting: Setting) -> dict[str, Any]:
    def encoded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    files = {"tls.crt": encoded(setting.tls.certificate), "tls.key": encoded(setting.tls.key)}
    return _object("v1", "Secret", "bench-cert") | {"type": "kubernetes.io/tls", "data": files}


def _endpoints(setting: Setting) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": "users"}
    return _object("discovery.k8s.io/v1", "EndpointSlice", "users-1", labels=labels) | {
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": setting.backend_port}],
        "endpoints": [{"addresses": [HOST]}],
    }


def _route() -> dict[str, Any]:
    backends = [{"name": "users", "port": 9090, "weight": weight} for weight in (80, 20)]
    methods: list[dict[str, str]] = [{"service": SERVICE, "method": "GetUser"}]
    methods.append({"service": SERVICE})
    return _object(GATEWAY_API, "GRPCRoute", "users") | {
        "spec": {
            "parentRefs": [{"name": "bench"}],
            "hostnames": [AUTHORITY],
            "rules": [
                {"matches": [{"method": method}], "backendRefs": backends} for method in methods
            ],
        }
    }


def _policy() -> dict[str, Any]:
    target = {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": "users"}
    retry = {
        "retryOn": ["5xx", "connect-failure"],
        "attempts": 2,
        "backoff": {"defaultDuration": "100ms", "maxDuration": "1s"},
    }
    api = "gateway.networking.k8s.io/v1alpha3"
    return _object(api, "BackendTrafficPolicy", "users") | {
        "spec": {"targetRef": target, "retry": retry}
    }
