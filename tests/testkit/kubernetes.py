"""A real Kubernetes control plane on free ports, as a test drives it.

What it is built from and its flags are the lab's (``federation.cli.lab.kubernetes``). The API
server can be killed, frozen and started again on its data, as a crash or a dead network would do.
There is no kubelet: tests write what they want of Pods, or let
``tests.testkit.pods`` run them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation.adapters.kubernetes import Connection, ConnectionSettings, connected
from federation.cli.lab.kubernetes import crds
from federation.cli.lab.kubernetes.control_plane import PROGRAMS, ControlPlane
from tests.testkit.ports import free_port

EXPORTED_SERVICE = """
apiVersion: v1
kind: Namespace
metadata: {name: app}
---
apiVersion: v1
kind: Service
metadata: {name: users, namespace: app}
spec: {ports: [{name: grpc, port: 9090}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: users-1, namespace: app, labels: {kubernetes.io/service-name: users}}
addressType: IPv4
ports: [{name: grpc, port: 9090}]
endpoints: [{addresses: [10.77.1.1], conditions: {ready: true}}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: users, namespace: app}
"""
"""Namespace ``app`` with a Service of one ready endpoint, which is exported: to be applied."""

READY_TIMEOUT_S = 60.0
CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "endpointslice-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "statefulset-controller",
    "disruption-controller",
    "horizontal-pod-autoscaler-controller",
)


@dataclass(slots=True)
class _Program:
    """A program that can be ended and started again."""

    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output)

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    def end(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            self.process = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class KubernetesServer:
    """One cluster's control plane. ``kubeconfig`` leads to it with all rights."""

    def __init__(self, plan: ControlPlane) -> None:
        self._plan = plan
        plan.write_files()
        self.kubeconfig = plan.kubeconfig
        self._etcd = self._program(plan.etcd_command())
        self._api = self._program(plan.api_command())
        self._controllers = self._program(plan.controllers_command()) if plan.controllers else None

    @property
    def url(self) -> str:
        """Where the API is served."""
        return self._plan.url

    def write_kubeconfig(self, user: str, token: str) -> Path:
        """A kubeconfig for ``user``, known by ``token``."""
        return self._plan.write_kubeconfig(user, token)

    def kubectl(self, *arguments: str, stdin: str | None = None, ok: bool = True) -> str:
        """What one command of kubectl prints; unless ``ok`` is false it must succeed."""
        program = Path(sys.executable).with_name("kubectl")
        done = subprocess.run(
            [str(program), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 or not ok, done.stderr
        return done.stdout

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects, as ``kubectl apply`` does."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def object(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """An object; empty when there is none."""
        shown = self.kubectl(
            "get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found", ok=False
        )
        found = json.loads(shown) if shown else {}
        assert isinstance(found, dict)
        return found

    def items(self, kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """The objects of a kind in a namespace, or in all."""
        place = ("-A",) if namespace is None else ("-n", namespace)
        found = json.loads(self.kubectl("get", kind, *place, "-o", "json"))
        return list(found["items"])

    def start(self) -> None:
        """Start everything and wait until the API answers."""
        self._etcd.start()
        self.start_api()
        if self._controllers is not None:
            self._controllers.start()

    def start_api(self) -> None:
        """Start the API server, on the data that there is."""
        self._api.start()
        self._await_ready()

    def kill_api(self) -> None:
        """End the API server as a crash does; etcd and its data stay."""
        self._api.end()

    def back_up(self) -> Path:
        """A copy of the API server's data, as of now; everything is away meanwhile."""
        return self._copied(self._data, self._plan.directory / "backup")

    def restore(self, backup: Path) -> None:
        """Put the data of ``back_up`` in place of what there is, as an operator does."""
        self._copied(backup, self._data)

    def _copied(self, source: Path, target: Path) -> Path:
        self._api.end()
        self._etcd.end()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        self._etcd.start()
        self.start_api()
        return target

    @property
    def _data(self) -> Path:
        return self._plan.directory / "etcd"

    def freeze_api(self) -> None:
        """Let the API server accept bytes and answer none."""
        self._api.signal(signal.SIGSTOP)

    def thaw_api(self) -> None:
        """End ``freeze_api``."""
        self._api.signal(signal.SIGCONT)

    def stop(self) -> None:
        """End everything."""
        for program in (self._controllers, self._api, self._etcd):
            if program is not None:
                program.end()

    def _program(self, command: Sequence[str]) -> _Program:
        return _Program(command, self._plan.directory / f"{Path(command[0]).name}.log")

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self._api.running:
            if self._plan.is_ready():
                return
            time.sleep(0.05)
        raise RuntimeError(f"kube-apiserver is not ready:\n{self._api.log.read_text()[-3000:]}")


@contextlib.contextmanager
def running_kubernetes(
    *, controllers: bool = False, accounts: bool = False, service_network: str = "10.96.0.0/16"
) -> Iterator[KubernetesServer]:
    """A control plane of one's own; without ``controllers`` etcd and the API server alone.

    With ``accounts`` (which wants controllers) Pods have accounts, as they have on a cluster.
    Clusters side by side whose Services are answered want a ``service_network`` each.

    Raises ``NoProgramsError`` where it cannot be built.
    """
    programs = PROGRAMS.build()
    directory = Path(tempfile.mkdtemp(prefix="federation-kubernetes-"))
    server = KubernetesServer(
        ControlPlane(
            directory=directory,
            programs=programs,
            api=f"127.0.0.1:{free_port()}",
            etcd=f"127.0.0.1:{free_port()}",
            service_network=service_network,
            controllers=CONTROLLERS if controllers else (),
            accounts=accounts,
        )
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def install_crds(connection: Connection, definitions: Sequence[dict[str, Any]]) -> None:
    """Apply CustomResourceDefinitions and wait until their kinds are served."""
    await crds.install_crds(connection, definitions, manager="test")


def install_released_crds_now(server: KubernetesServer, *, channel: str = "standard") -> None:
    """Install the released CRDs, for tests that are not asynchronous."""

    async def install() -> None:
        async with connected(ConnectionSettings(server.kubeconfig)) as connection:
            await install_crds(connection, crds.released_definitions(channel=channel))

    asyncio.run(install())
