"""A real Kubernetes control plane on free ports: etcd, kube-apiserver and kube-controller-manager.

They are built from the Go module in ``tests/kubernetes/go`` and kept in the user's cache. The API
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
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from federation.adapters.kubernetes import Connection, ConnectionSettings, connected
from tests.testkit.go_programs import GoPrograms, NoProgramsError, need_go
from tests.testkit.ports import free_port

VERSION = "v1.36.3"
"""Of Kubernetes; the module's ``go.mod`` asks for the same."""

RELEASED = Path(__file__).parents[1] / "kubernetes" / "released"
"""The Go module that pins the releases whose CRDs are installed."""

_VERSION_PACKAGE = "k8s.io/component-base/version"
_STAMPS = " ".join(
    f"-X {_VERSION_PACKAGE}.{name}={value}"
    for name, value in (
        ("gitVersion", VERSION),
        ("gitMajor", VERSION[1:].split(".", maxsplit=1)[0]),
        ("gitMinor", VERSION.split(".")[1]),
        ("gitTreeState", "clean"),
    )
)
PROGRAMS = GoPrograms(
    module=Path(__file__).parents[1] / "kubernetes" / "go",
    name="kubernetes",
    packages=("./cmd/...",),
    build_timeout_s=1800,
    environment=(("CGO_ENABLED", "0"),),
    flags=(f"-ldflags=-s -w {_STAMPS}",),
)

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

ADMIN_TOKEN = "admin"
READY_TIMEOUT_S = 60.0
CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "endpointslice-controller",
    "deployment-controller",
    "replicaset-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
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

    def __init__(
        self, programs: Path, directory: Path, *, controllers: bool, service_network: str
    ) -> None:
        self._directory = directory
        self._service_network = service_network
        self._port = free_port()
        self._etcd_port = free_port()
        self._key = directory / "accounts.pem"
        self._key.write_bytes(_private_key())
        (directory / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
        self.kubeconfig = self.write_kubeconfig("admin", ADMIN_TOKEN)
        self._etcd = self._program(programs / "etcd", self._etcd_flags())
        self._api = self._program(programs / "kube-apiserver", self._api_flags())
        self._controllers = (
            self._program(programs / "kube-controller-manager", self._controller_flags())
            if controllers
            else None
        )

    @property
    def url(self) -> str:
        """Where the API is served."""
        return f"https://127.0.0.1:{self._port}"

    def write_kubeconfig(self, user: str, token: str) -> Path:
        """A kubeconfig for ``user``, known by ``token``."""
        path = self._directory / f"{user}.kubeconfig"
        cluster = {"server": self.url, "insecure-skip-tls-verify": True}
        context = {"cluster": "test", "user": user, "namespace": "default"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        path.write_text(json.dumps(content))
        return path

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

    def _program(self, path: Path, flags: Sequence[str]) -> _Program:
        return _Program([str(path), *flags], self._directory / f"{path.name}.log")

    def _etcd_flags(self) -> list[str]:
        client = f"http://127.0.0.1:{self._etcd_port}"
        return [
            f"--data-dir={self._directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--log-level=error",
            "--unsafe-no-fsync",
        ]

    def _api_flags(self) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self._directory / 'certificates'}",
            f"--service-cluster-ip-range={self._service_network}",
            f"--token-auth-file={self._directory / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            "--endpoint-reconciler-type=none",
            "--disable-admission-plugins=ServiceAccount",
        ]

    def _controller_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--service-account-private-key-file={self._key}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
        ]

    def _await_ready(self) -> None:
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting)
        )
        asked = urllib.request.Request(f"{self.url}/readyz")
        asked.add_header("Authorization", f"Bearer {ADMIN_TOKEN}")
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self._api.running:
            with contextlib.suppress(OSError), opener.open(asked, timeout=5) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"kube-apiserver is not ready:\n{self._api.log.read_text()[-3000:]}")


def _private_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


@contextlib.contextmanager
def running_kubernetes(
    *, controllers: bool = False, service_network: str = "10.96.0.0/16"
) -> Iterator[KubernetesServer]:
    """A control plane of one's own; without ``controllers`` etcd and the API server alone.

    Clusters side by side whose Services are answered want a ``service_network`` each.

    Raises ``NoProgramsError`` where it cannot be built.
    """
    programs = PROGRAMS.build()
    directory = Path(tempfile.mkdtemp(prefix="federation-kubernetes-"))
    server = KubernetesServer(
        programs, directory, controllers=controllers, service_network=service_network
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def released_crds() -> list[Path]:
    """The CustomResourceDefinitions of the Gateway API (standard channel) and the MCS API, of the
    releases that ``tests/kubernetes/released`` names. Raises ``NoProgramsError``."""
    need_go()
    modules = ("sigs.k8s.io/gateway-api", "sigs.k8s.io/mcs-api")
    command = ["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", *modules]
    fetch = ["go", "mod", "download", *modules]
    fetched = subprocess.run(
        fetch, check=False, cwd=RELEASED, timeout=300, capture_output=True, text=True
    )
    if fetched.returncode != 0:
        raise NoProgramsError(f"released CRDs cannot be fetched: {fetched.stderr.strip()[-500:]}")
    listed = subprocess.run(
        command, cwd=RELEASED, check=True, timeout=60, capture_output=True, text=True
    )
    gateway_api, mcs_api = (Path(line) for line in listed.stdout.split())
    return sorted((gateway_api / "config/crd/standard").glob("*.yaml")) + sorted(
        (mcs_api / "config/crd").glob("*.yaml")
    )


async def install_released_crds(connection: Connection) -> None:
    """Apply ``released_crds`` and wait until their kinds are served; those there stay."""
    found = [
        document
        for path in released_crds()
        for document in yaml.safe_load_all(path.read_text())
        if (document or {}).get("kind") == "CustomResourceDefinition"
    ]
    await install_crds(connection, found)


async def install_crds(connection: Connection, definitions: Sequence[dict[str, Any]]) -> None:
    """Apply CustomResourceDefinitions and wait until their kinds are served."""
    wanted = [definition["metadata"]["name"] for definition in definitions]
    for name, definition in zip(wanted, definitions, strict=True):
        await connection.apply(f"{CRDS}/{name}", definition, manager="test")
    deadline = time.monotonic() + READY_TIMEOUT_S
    for name in wanted:
        while not _established(await connection.get(f"{CRDS}/{name}")):
            assert time.monotonic() < deadline, f"{name} is not established"
            await asyncio.sleep(0.05)


def _established(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions)


def install_released_crds_now(server: KubernetesServer) -> None:
    """``install_released_crds`` for tests that are not asynchronous."""

    async def install() -> None:
        async with connected(ConnectionSettings(server.kubeconfig)) as connection:
            await install_released_crds(connection)

    asyncio.run(install())
