"""Where an installation stands: its clusters, and the folder with what their people need.

Decides: names of files and addresses that ``install`` writes and ``demo`` reads.
Invariants: the first member runs etcd and the resolvers; a cluster's name is its region.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from federation.cli.kind.tools import Kubectl, ToolError, run

CHECKOUT = Path(__file__).parents[3]
ETCD_NODE_PORT = 32379
"""Where agents of other clusters reach etcd, on each node of the first cluster."""


@dataclass(frozen=True, slots=True)
class Member:
    """One cluster. ``entrance`` is where clients on this machine reach its gateways' HTTPS."""

    region: str
    kubeconfig: Path
    entrance: str

    @property
    def kubectl(self) -> Kubectl:
        """kubectl towards it."""
        return Kubectl(self.kubeconfig)


@dataclass(frozen=True, slots=True)
class Site:
    """All of an installation. ``etcd`` is where people on this machine reach it (HOST:PORT)."""

    directory: Path
    members: tuple[Member, ...]
    etcd: str

    @property
    def control(self) -> Member:
        """The member with etcd and resolvers."""
        return self.members[0]

    @property
    def client_ca(self) -> Path:
        """PEM: who signs the certificate that the Gateways' listeners show."""
        return self.directory / "client-ca.crt"

    @property
    def authority(self) -> Path:
        """The folder with the authorities, as `fedctl cluster add` keeps them."""
        return self.directory / "authority"

    def identity(self, name: str) -> Path:
        """The folder with ``ca.crt``, ``tls.crt`` and ``tls.key`` of a user of etcd."""
        return self.directory / name

    def environment(self, user: str) -> dict[str, str]:
        """What ``fedctl`` wants in its environment to speak to this etcd as ``user``."""
        files = self.identity(user)
        return {
            "FEDERATION_ETCD": f"https://{self.etcd}",
            "FEDERATION_ETCD_CA": str(files / "ca.crt"),
            "FEDERATION_ETCD_CERT": str(files / "tls.crt"),
            "FEDERATION_ETCD_KEY": str(files / "tls.key"),
        }

    def fedctl(self, *arguments: str, user: str = "operator") -> str:
        """What ``fedctl`` prints as ``user``. Raises ``ToolError``."""
        command = ("-m", "federation.cli", *arguments)
        return run(sys.executable, *command, environment=self.environment(user))


def manifests(folder: str) -> Path:
    """A folder of this checkout. Raises ``ToolError`` where there is none."""
    path = CHECKOUT / folder
    if not path.exists():
        raise ToolError(
            f"{path} is not there; `fedctl kind` wants a checkout of the project, which has the "
            "manifests (make kind-up)"
        )
    return path


def state_directory(environ: Mapping[str, str]) -> Path:
    """Where the installation in kind keeps its files."""
    state = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "federation" / "kind"


def of_environment() -> Path:
    """``state_directory`` of this process."""
    return state_directory(os.environ)
