"""The gateway, its backend and what is known of them."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.abuse.attack import Target
from tests.abuse.backend import CALM_SERVICE
from tests.conformance.rig import Rig, manifests
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running


@dataclass(frozen=True, slots=True)
class AbuseRig:
    """What runs."""

    target: Target
    gateway_pid: int


@contextlib.contextmanager
def running_abuse_rig() -> Iterator[AbuseRig]:
    """The backend and the gateway, ready."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        rig = Rig(free_port(), free_port(), free_port(), directory / "ca.pem")
        folder = directory / "manifests"
        folder.mkdir()
        (folder / "all.yaml").write_text(manifests(rig))
        calm_port = free_port()
        (folder / "calm.yaml").write_text(_calm_route(calm_port))
        admin_port = free_port()
        backend = [sys.executable, "-m", "tests.abuse.backend"]
        gateway = [sys.executable, "-m", "tests.abuse.gateway", f"--manifests={folder}"]
        gateway += [f"--admin={HOST}:{admin_port}"]
        attacked = [*backend, f"{HOST}:{rig.backend_port}", "attacked"]
        log = directory / "backend.log"
        stack.enter_context(running(attacked, (rig.backend_port,), log))
        log = directory / "calm.log"
        stack.enter_context(running([*backend, f"{HOST}:{calm_port}"], (calm_port,), log))
        log = directory / "gateway.log"
        child = stack.enter_context(running(gateway, (rig.plain_port, rig.tls_port), log))
        target = Target(rig.plain_port, rig.tls_port, rig.authority, rig.backend_port, admin_port)
        yield AbuseRig(target, child.pid)


def _calm_route(port: int) -> str:
    """A backend that attackers do not call, for the calls of the well-behaved client."""
    route = {"parentRefs": [{"name": "gateway"}]}
    match = {"method": {"type": "Exact", "service": CALM_SERVICE}}
    rule = {"matches": [match], "backendRefs": [{"name": "calm", "port": 9090}]}
    ports = {"name": "grpc", "port": port}
    endpoint = {"addresses": [HOST], "conditions": {"ready": True}}
    objects = [
        _object("gateway.networking.k8s.io/v1", "GRPCRoute", "calm")
        | {"spec": {**route, "rules": [rule]}},
        _object("v1", "Service", "calm") | {"spec": {"ports": [{"name": "grpc", "port": 9090}]}},
        _object("discovery.k8s.io/v1", "EndpointSlice", "calm-1")
        | {"addressType": "IPv4", "ports": [ports], "endpoints": [endpoint]},
    ]
    return "\n---\n".join(json.dumps(each) for each in objects)


def _object(api_version: str, kind: str, name: str) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": "calm"} if kind == "EndpointSlice" else {}
    head = {"name": name, "namespace": "app", "labels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": head}
