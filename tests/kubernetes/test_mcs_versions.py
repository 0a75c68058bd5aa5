"""The MCS API in either of its versions, installed and changed while the agent runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.cli.lab.kubernetes.crds import released_crds
from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, ROOT, Federation, Process, process, until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(180)

GROUP = "multicluster.x-k8s.io"
IMPORTS = f"serviceimports.{GROUP}"


def serve(server: KubernetesServer, *versions: str) -> None:
    """Have the server serve the MCS API in these versions; the last one is stored."""
    for path in released_crds():
        for found in yaml.safe_load_all(path.read_text()):
            if (found or {}).get("spec", {}).get("group") != GROUP:
                continue
            kept = [entry for entry in found["spec"]["versions"] if entry["name"] in versions]
            for entry in kept:
                entry["storage"] = entry["name"] == versions[-1]
            found["spec"]["versions"] = kept
            server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(found))
            name = found["metadata"]["name"]
            server.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=20s")


@contextlib.contextmanager
def agent(server: KubernetesServer, federation: Federation) -> Iterator[Process]:
    """An agent of the cluster with the rights of its own account."""
    for manifest in ("namespace.yaml", "agent/rbac.yaml"):
        server.kubectl("apply", "-f", str(ROOT / "clusters" / "base" / manifest))
    account = ("federation-agent", "-n", "federation-system")
    kubeconfig = server.write_kubeconfig("agent", server.kubectl("create", "token", *account))
    arguments = (
        *(*FEDCTL, *federation.options, "agent", "--region", "us-west", "--cluster", "us-west-1"),
        *("--source", "kubernetes", "--kubeconfig", str(kubeconfig)),
        *("--xds", f"127.0.0.1:{free_port()}"),
        *("--state-dir", str(federation.directory / "state")),
    )
    with process(federation.directory / "agent.log", *arguments) as started:
        yield started


def export(server: KubernetesServer, name: str, version: str) -> None:
    """A Service with its export in one version."""
    metadata = {"name": name, "namespace": "default"}
    port = {"name": "grpc", "port": 9090}
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [port]}},
        {"apiVersion": f"{GROUP}/{version}", "kind": "ServiceExport", "metadata": metadata},
    ]
    server.apply(*found)


def test_kinds_come_and_change_version_while_the_agent_runs(
    own_kubernetes: KubernetesServer, tmp_path: Path
) -> None:
    def imported(name: str) -> bool:
        status = own_kubernetes.object(IMPORTS, "default", name).get("status", {})
        return [entry["cluster"] for entry in status.get("clusters", [])] == ["us-west-1"]

    with running_etcd() as etcd:
        federation = Federation(etcd.endpoint, tmp_path)
        with agent(own_kubernetes, federation) as running:
            running.says("heartbeat is present")
            serve(own_kubernetes, "v1alpha1")
            export(own_kubernetes, "old", "v1alpha1")
            until(lambda: imported("old"), running.output)
            serve(own_kubernetes, "v1alpha1", "v1beta1")
            export(own_kubernetes, "both", "v1beta1")
            until(lambda: imported("both"), running.output)
            # In either version the same object is read.
            shown = own_kubernetes.kubectl(
                "get", "--raw", f"/apis/{GROUP}/v1alpha1/namespaces/default/serviceimports/both"
            )
            assert json.loads(shown)["spec"]["type"] == "ClusterSetIP"
            assert imported("old")
            assert ": 403" not in running.output()
