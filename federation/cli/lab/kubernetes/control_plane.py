"""One cluster's control plane: etcd, kube-apiserver and kube-controller-manager, as command lines.

Decides: what they are built from, the flags they run with, their certificates and who may log in.
Leaves to others: building (``go_programs``), starting and ending processes (the lab's
``processes``, the tests' own kit).
Invariants: everything listens on loopback; all files stand below one directory. There is no
scheduler and no kubelet: nothing runs Pods.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from federation.cli.lab.authority import Authority, write_private
from federation.cli.lab.kubernetes.go_programs import GoPrograms
from federation.model.base import Value

VERSION = "v1.36.3"
"""Of Kubernetes; the module's ``go.mod`` asks for the same."""

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
    module=Path(__file__).with_name("go"),
    name="kubernetes",
    packages=("./cmd/...",),
    build_timeout_s=1800,
    environment=(("CGO_ENABLED", "0"),),
    flags=(f"-ldflags=-s -w {_STAMPS}",),
)

ADMIN = "admin"
"""A user that may do everything, and its token: the API server listens on loopback alone."""

READY_PROBE_TIMEOUT_S = 5.0


class ControlPlane(Value):
    """One control plane. ``api`` and ``etcd`` are ``host:port``; ``users`` may do everything.

    ``controllers`` are those that kube-controller-manager runs, by its own names.
    """

    directory: Path
    programs: Path
    api: str
    etcd: str
    service_network: str = "10.96.0.0/16"
    users: tuple[str, ...] = (ADMIN,)
    controllers: tuple[str, ...] = ()
    accounts: bool = False
    """Whether Pods get accounts and their tokens: wants controllers that make accounts."""

    @property
    def url(self) -> str:
        """Where the API is served."""
        return f"https://{self.api}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig with all rights."""
        return self.kubeconfig_of(ADMIN)

    def kubeconfig_of(self, user: str) -> Path:
        """Where the kubeconfig of ``user`` is."""
        return self.directory / f"{user}.kubeconfig"

    def write_files(self) -> None:
        """Write certificates, tokens and kubeconfigs; a user's token is its name."""
        self.directory.mkdir(parents=True, exist_ok=True)
        authority = Authority("kubernetes authority")
        pair = authority.issue(
            "kube-apiserver",
            dns=("localhost", "kubernetes", "kubernetes.default.svc"),
            addresses=("127.0.0.1", self._service_address),
        )
        self._authority.write_bytes(authority.certificate_pem)
        self._certificate.write_bytes(pair.certificate_pem)
        write_private(self._certificate.with_suffix(".key"), pair.key_pem)
        write_private(self._accounts, _private_key())
        rows = "".join(f'{user},{user},{user},"system:masters"\n' for user in self.users)
        write_private(self._tokens, rows.encode())
        for user in self.users:
            self.write_kubeconfig(user, user)

    def write_kubeconfig(self, user: str, token: str) -> Path:
        """A kubeconfig for ``user``, known by ``token``."""
        path = self.kubeconfig_of(user)
        entries = self.kubeconfig_entries("test", user=user, token=token)
        write_private(path, json.dumps(kubeconfig([entries])).encode())
        return path

    def kubeconfig_entries(self, context: str, *, user: str, token: str) -> dict[str, Any]:
        """What ``kubeconfig`` makes one context of."""
        authority = base64.b64encode(self._authority.read_bytes()).decode()
        return {
            "context": context,
            "cluster": {"server": self.url, "certificate-authority-data": authority},
            "user": user,
            "token": token,
        }

    def etcd_command(self) -> tuple[str, ...]:
        """The API server's own etcd; no peer port to pick, and no disk to wait for."""
        return (
            str(self.programs / "etcd"),
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls=http://{self.etcd}",
            f"--advertise-client-urls=http://{self.etcd}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--log-level=error",
            "--unsafe-no-fsync",
        )

    def api_command(self) -> tuple[str, ...]:
        """kube-apiserver. Without ``accounts`` Pods have none, and need no controller that makes
        them. The API's own endpoint, on loopback, could not be written."""
        host, port = self.api.rsplit(":", 1)
        return (
            str(self.programs / "kube-apiserver"),
            f"--etcd-servers=http://{self.etcd}",
            f"--bind-address={host}",
            f"--advertise-address={host}",
            f"--secure-port={port}",
            f"--tls-cert-file={self._certificate}",
            f"--tls-private-key-file={self._certificate.with_suffix('.key')}",
            f"--cert-dir={self.directory / 'certificates'}",
            f"--service-cluster-ip-range={self.service_network}",
            f"--token-auth-file={self._tokens}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._accounts}",
            f"--service-account-signing-key-file={self._accounts}",
            "--endpoint-reconciler-type=none",
            *(() if self.accounts else ("--disable-admission-plugins=ServiceAccount",)),
        )

    def controllers_command(self) -> tuple[str, ...]:
        """kube-controller-manager with ``controllers``."""
        return (
            str(self.programs / "kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(self.controllers)}",
            f"--service-account-private-key-file={self._accounts}",
            f"--root-ca-file={self._authority}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def is_ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            trusted = ssl.create_default_context(cafile=str(self._authority))
        except OSError:
            return False  # nothing is written yet
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
        )
        asked = urllib.request.Request(f"{self.url}/readyz")
        asked.add_header("Authorization", f"Bearer {ADMIN}")
        try:
            with opener.open(asked, timeout=READY_PROBE_TIMEOUT_S) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def _service_address(self) -> str:
        """Where Pods ask for the API: its Service's, the first of the network."""
        return str(ipaddress.ip_network(self.service_network)[1])

    @property
    def _authority(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def _certificate(self) -> Path:
        return self.directory / "apiserver.pem"

    @property
    def _accounts(self) -> Path:
        return self.directory / "accounts.pem"

    @property
    def _tokens(self) -> Path:
        return self.directory / "tokens.csv"


def kubeconfig(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """A kubeconfig of contexts (``ControlPlane.kubeconfig_entries``), the first one current."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": e["context"], "cluster": e["cluster"]} for e in entries],
        "users": [
            {"name": f"{e['user']}@{e['context']}", "user": {"token": e["token"]}} for e in entries
        ],
        "contexts": [
            {
                "name": e["context"],
                "context": {
                    "cluster": e["context"],
                    "user": f"{e['user']}@{e['context']}",
                    "namespace": "default",
                },
            }
            for e in entries
        ],
        "current-context": entries[0]["context"],
    }


def _private_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
