"""A standalone gateway with a plain and a TLS listener, and one backend behind it.

Both are processes of their own on ports of the system's choice, ended with the block.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.cli.lab.authority import Authority
from tests.conformance.results import Transport
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running

SERVER_NAME = "localhost"

BackendCommand = Callable[[int], Sequence[str]]
"""The command that starts the backend on a port."""


@dataclass(frozen=True, slots=True)
class Rig:
    """What runs."""

    plain_port: int
    tls_port: int
    backend_port: int
    authority: Path
    """PEM file of the authority that signed the TLS listener's certificate."""

    def port(self, transport: Transport) -> int:
        """Where the gateway listens."""
        return self.tls_port if transport is Transport.TLS else self.plain_port


@contextlib.contextmanager
def running_rig(backend: BackendCommand) -> Iterator[Rig]:
    """The backend and the gateway, ready."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        rig = Rig(free_port(), free_port(), free_port(), directory / "ca.pem")
        folder = directory / "manifests"
        folder.mkdir()
        (folder / "all.yaml").write_text(manifests(rig))
        log = directory / "backend.log"
        stack.enter_context(running(backend(rig.backend_port), (rig.backend_port,), log))
        gateway = [sys.executable, "-m", "federation.cli", "standalone"]
        gateway += [f"--manifests={folder}", "--port-offset=0"]
        log = directory / "gateway.log"
        stack.enter_context(running(gateway, (rig.plain_port, rig.tls_port), log))
        yield rig


def manifests(rig: Rig) -> str:
    """The objects that make the gateway listen and route."""
    authority = Authority("conformance")
    pair = authority.issue(SERVER_NAME, dns=(SERVER_NAME,))
    rig.authority.write_bytes(authority.certificate_pem)
    terminate = {"mode": "Terminate", "certificateRefs": [{"name": "certificate"}]}
    listeners = [
        {"name": "plain", "port": rig.plain_port, "protocol": "HTTP"},
        {"name": "tls", "port": rig.tls_port, "protocol": "HTTPS", "tls": terminate},
    ]
    files = {"tls.crt": pair.certificate_pem, "tls.key": pair.key_pem}
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    rule = {"backendRefs": [{"name": "backend", "port": 9090}]}
    service_name = {"kubernetes.io/service-name": "backend"}
    gateway_api = "gateway.networking.k8s.io/v1"
    objects = [
        _object(gateway_api, "Gateway", "gateway")
        | {"spec": {"gatewayClassName": "istio", "listeners": listeners}},
        _object("v1", "Secret", "certificate") | {"type": "kubernetes.io/tls", "data": data},
        _object(gateway_api, "GRPCRoute", "all")
        | {"spec": {"parentRefs": [{"name": "gateway"}], "rules": [rule]}},
        _object("v1", "Service", "backend") | {"spec": {"ports": [{"name": "grpc", "port": 9090}]}},
        _object("discovery.k8s.io/v1", "EndpointSlice", "backend-1", labels=service_name)
        | {
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": rig.backend_port}],
            "endpoints": [{"addresses": [HOST], "conditions": {"ready": True}}],
        },
    ]
    return "\n---\n".join(json.dumps(each) for each in objects)


def _object(api_version: str, kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    head = {"name": name, "namespace": "app", **metadata}
    return {"apiVersion": api_version, "kind": kind, "metadata": head}
