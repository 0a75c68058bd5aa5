"""The clusters that ``fedctl kind up`` would make, with the processes of this machine for Pods.

Two API servers with their controllers, a podrunner beside each: Pods of one cluster reach no Pod of
the other, only its nodes. What is installed, and how, is the product's own
(``federation.cli.kind``).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.cli.kind.site import ETCD_NODE_PORT, Member, Site
from federation.cli.lab.kubernetes.control_plane import PROGRAMS
from tests.testkit.federation import ROOT, Process
from tests.testkit.kubernetes import KubernetesServer, running_kubernetes
from tests.testkit.manifests import REGIONS
from tests.testkit.pods import running_pods

HTTPS_NODE_PORT = 30443


@dataclass(frozen=True)
class Cluster:
    """One of them."""

    region: str
    server: KubernetesServer
    runner: Process
    directory: Path

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        """Its Pods."""
        found: list[dict[str, Any]] = self.server.items("pods", namespace)
        return found

    def told(self) -> str:
        """What is there and what it wrote, for a failure."""
        shown = self.server.kubectl("get", "pods,services,endpointslices", "-A", "-o", "wide")
        logs = sorted((self.directory / "logs").rglob("*"))
        ends = [f"--- {log}\n{log.read_text()[-1500:]}" for log in logs if log.is_file()]
        return "\n".join([self.region, shown, self.runner.output()[-3000:], *ends])


@dataclass(frozen=True)
class Deployment:
    """Both, and the site that they are to the product."""

    clusters: tuple[Cluster, ...]
    site: Site

    def told(self) -> str:
        """``Cluster.told`` of both."""
        return "\n".join(cluster.told() for cluster in self.clusters)


@contextlib.contextmanager
def running_clusters(directory: Path) -> Iterator[Deployment]:
    """Two empty clusters. Raises ``NoProgramsError`` where they cannot be had."""
    path = f"{PROGRAMS.build()}:{os.defpath}"
    images = {
        "federation": {
            "entrypoint": [sys.executable, "-m", "federation.cli"],
            "env": {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        },
        "gcr.io/etcd-development/etcd": {"entrypoint": ["etcd"], "env": {"PATH": path}},
    }
    with contextlib.ExitStack() as stack:
        clusters, members = [], []
        for number, region in enumerate(REGIONS):
            server = stack.enter_context(
                running_kubernetes(
                    controllers=True, accounts=True, service_network=f"10.96.{128 * number}.0/17"
                )
            )
            options = (
                *("--bridge", f"region{number}", "--pod-network", f"10.78.{number}.0/24"),
                *("--load-balancers", f"10.77.{200 + number}.0/24", "--dns", "self"),
                *("--node", f"{region}-1={region}a", "--node", f"{region}-2={region}b"),
            )
            place = directory / region
            runner = stack.enter_context(running_pods(server, images, place, *options))
            clusters.append(Cluster(region, server, runner, place))
            entrance = f"10.78.{number}.1:{HTTPS_NODE_PORT}"
            members.append(Member(region, server.kubeconfig, entrance))
        site = Site(directory / "site", tuple(members), f"10.78.0.1:{ETCD_NODE_PORT}")
        yield Deployment(tuple(clusters), site)
