"""A cluster's name in the clusterset as ClusterProperties tell it (KEP-2149).

The kind's released definition is no Go module that can be had, so this is one of the same form.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, ROOT, Federation, Process, process, until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(120)

KIND = "clusterproperties.about.k8s.io"
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: clusterproperties.about.k8s.io
  annotations: {api-approved.kubernetes.io: "unapproved, of the form of KEP-2149, for a test"}
spec:
  group: about.k8s.io
  scope: Cluster
  names: {kind: ClusterProperty, listKind: ClusterPropertyList, plural: clusterproperties}
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [value]
            properties: {value: {type: string, maxLength: 128000, minLength: 1}}
"""
PROPERTY = """
apiVersion: about.k8s.io/v1beta1
kind: ClusterProperty
metadata: {name: cluster.clusterset.k8s.io}
spec: {value: told-by-itself}
"""


@contextlib.contextmanager
def agent(server: KubernetesServer, federation: Federation, *options: str) -> Iterator[Process]:
    """An agent of the cluster with the rights of its own account."""
    for manifest in ("namespace.yaml", "agent/rbac.yaml"):
        server.kubectl("apply", "-f", str(ROOT / "clusters" / "base" / manifest))
    account = ("federation-agent", "-n", "federation-system")
    kubeconfig = server.write_kubeconfig("agent", server.kubectl("create", "token", *account))
    arguments = (
        *(*FEDCTL, *federation.options, "agent", "--region", "us-west", *options),
        *("--source", "kubernetes", "--kubeconfig", str(kubeconfig)),
        *("--xds", f"127.0.0.1:{free_port()}"),
        *("--state-dir", str(federation.directory / "state")),
    )
    with process(federation.directory / "agent.log", *arguments) as started:
        yield started


def values(server: KubernetesServer) -> dict[str, str]:
    """The cluster's properties."""
    names = ("cluster.clusterset.k8s.io", "clusterset.k8s.io")
    found = {name: server.object(KIND, "default", name) for name in names}
    return {name: entry["spec"]["value"] for name, entry in found.items() if entry}


def define(server: KubernetesServer) -> None:
    """Have the server serve ClusterProperties."""
    server.kubectl("apply", "-f", "-", stdin=DEFINITION)
    server.kubectl("wait", "--for=condition=Established", f"crd/{KIND}", "--timeout=20s")


def test_an_agent_takes_the_name_that_its_cluster_says(
    own_kubernetes: KubernetesServer, tmp_path: Path
) -> None:
    """ "Well-known properties": `cluster.clusterset.k8s.io` is the cluster's id."""
    define(own_kubernetes)
    with running_etcd() as etcd:
        federation = Federation(etcd.endpoint, tmp_path)
        with agent(own_kubernetes, federation) as nameless:
            assert nameless.ended() == 2
            assert "create it, or give the name: --cluster NAME" in nameless.output()
        own_kubernetes.kubectl("apply", "-f", "-", stdin=PROPERTY)
        with agent(own_kubernetes, federation) as named:
            until(lambda: "told-by-itself" in federation.fedctl("status").output, named.output)
            until(
                lambda: values(own_kubernetes).get("clusterset.k8s.io") == "clusterset.local",
                named.output,
            )
            assert values(own_kubernetes)["cluster.clusterset.k8s.io"] == "told-by-itself"
            assert ": 403" not in named.output()


def test_an_agent_tells_its_name_once_the_kind_is_there(
    own_kubernetes: KubernetesServer, tmp_path: Path
) -> None:
    """ "Lifespan": it is there while the cluster is a member, and nobody's word is overridden."""
    with running_etcd() as etcd:
        federation = Federation(etcd.endpoint, tmp_path)
        with agent(own_kubernetes, federation, "--cluster", "us-west-1") as named:
            named.says("heartbeat is present")
            define(own_kubernetes)
            expected = {
                "cluster.clusterset.k8s.io": "us-west-1",
                "clusterset.k8s.io": "clusterset.local",
            }
            until(lambda: values(own_kubernetes) == expected, named.output)
            # Somebody makes it their own and says something else.
            label = "multicluster.kubernetes.io/managed-by-"
            own_kubernetes.kubectl("label", KIND, "cluster.clusterset.k8s.io", label)
            own_kubernetes.kubectl("apply", "-f", "-", stdin=PROPERTY)
            named.says("start the agent with the name that it says")
            assert values(own_kubernetes)["cluster.clusterset.k8s.io"] == "told-by-itself"
            assert ": 403" not in named.output()
