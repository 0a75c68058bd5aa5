"""The gateway, its backend and what is known of them."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.abuse.attack import Target
from tests.conformance.rig import Rig, manifests
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running


@dataclass(frozen=True, slots=True)
class AbuseRig:
    """What runs."""

    target: Target
    gateway_pid: int
    admin_port: int


@contextlib.contextmanager
def running_abuse_rig() -> Iterator[AbuseRig]:
    """The backend and the gateway, ready."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        rig = Rig(free_port(), free_port(), free_port(), directory / "ca.pem")
        folder = directory / "manifests"
        folder.mkdir()
        (folder / "all.yaml").write_text(manifests(rig))
        admin_port = free_port()
        backend = [sys.executable, "-m", "tests.abuse.backend", f"{HOST}:{rig.backend_port}"]
        gateway = [sys.executable, "-m", "tests.abuse.gateway", f"--manifests={folder}"]
        gateway += [f"--admin={HOST}:{admin_port}"]
        log = directory / "backend.log"
        stack.enter_context(running(backend, (rig.backend_port,), log))
        log = directory / "gateway.log"
        child = stack.enter_context(running(gateway, (rig.plain_port, rig.tls_port), log))
        target = Target(rig.plain_port, rig.tls_port, rig.authority, rig.backend_port)
        yield AbuseRig(target, child.pid, admin_port)
