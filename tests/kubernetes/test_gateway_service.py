"""The Service in front of the gateways on a real API server: what other clusters are given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.model.base import ClusterId
from federation.model.facts import ClusterGateways
from federation.wire.etcd import from_bytes
from federation.wire.etcd_keys import Keys
from tests.testkit import namespace
from tests.testkit.federation import until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.kubernetes_cluster import (
    CLUSTER,
    KubernetesCluster,
    running_cluster,
    start_one,
)

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(180),
]

NAME = "federation-gateway"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: federation-gateway, namespace: federation-system}
spec:
  type: LoadBalancer
  ports: [{name: east-west, port: 15444, nodePort: 31544}]
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {{name: {name}}}
status: {{addresses: [{{type: InternalIP, address: {address}}}]}}
"""


@pytest.fixture
def cluster(own_kubernetes: KubernetesServer, tmp_path: Path) -> Iterator[KubernetesCluster]:
    with running_cluster(own_kubernetes, tmp_path) as found:
        found.kubectl("apply", "-f", "-", stdin=SERVICE)
        start_one(found, "--gateway-service", f"federation-system/{NAME}")
        yield found


def advertised(cluster: KubernetesCluster) -> list[str]:
    async def read() -> list[str]:
        store = EtcdStore(EtcdSettings(endpoints=(cluster.federation.etcd,)))
        try:
            key = Keys(cluster.federation.prefix).gateways(ClusterId(CLUSTER))
            entry = await store.get(key)
        finally:
            await store.close()
        if entry is None:
            return []
        return [peer.address for peer in from_bytes(ClusterGateways, entry.value).gateways]

    return asyncio.run(read())


def becomes(cluster: KubernetesCluster, *addresses: str) -> None:
    wanted = list(addresses)
    until(
        lambda: advertised(cluster) == wanted,
        lambda: f"{advertised(cluster)}\n{cluster.agents['agent'].output()[-3000:]}",
        within_s=40,
    )


def ingress(cluster: KubernetesCluster, *places: dict[str, str]) -> None:
    status = {"status": {"loadBalancer": {"ingress": list(places)}}}
    command = ("patch", "service", NAME, "-n", "federation-system", "--subresource=status")
    cluster.kubectl(*command, "--type=merge", "-p", json.dumps(status))


def port_type(cluster: KubernetesCluster) -> str:
    found = cluster.kubernetes.object("service", "federation-system", NAME)
    return str(found["spec"]["type"])


def test_a_load_balancer_then_the_nodes(cluster: KubernetesCluster) -> None:
    assert advertised(cluster) == [], "there is no load balancer yet"
    ingress(cluster, {"ip": "198.51.100.7"}, {"hostname": "localhost"})
    until(lambda: "198.51.100.7:15444" in advertised(cluster), lambda: advertised(cluster))
    assert set(advertised(cluster)) - {"198.51.100.7:15444"} <= {"127.0.0.1:15444", "[::1]:15444"}
    ingress(cluster, {"ip": "198.51.100.8"})
    becomes(cluster, "198.51.100.8:15444")
    ingress(cluster)
    # A load balancer that is made anew empties nothing, nor does an agent that starts again.
    cluster.agents["agent"].command.kill()
    cluster.agents["agent"].command.wait()
    again = cluster.start_agent("agent", "--gateway-service", f"federation-system/{NAME}")
    again.says("heartbeat is present")
    becomes(cluster, "198.51.100.8:15444")
    # Of type NodePort it is the nodes', which are read from then on; none is known yet.
    patch = [{"op": "replace", "path": "/spec/type", "value": "NodePort"}]
    cluster.patch("service", "federation-system", NAME, patch)
    until(lambda: port_type(cluster) == "NodePort", lambda: port_type(cluster))
    assert advertised(cluster) == ["198.51.100.8:15444"]
    for number in (1, 2):
        node = NODE.format(name=f"n{number}", address=f"10.77.8.{number}")
        cluster.kubectl("apply", "-f", "-", stdin=node)
        status = {"status": {"addresses": [{"type": "InternalIP", "address": f"10.77.8.{number}"}]}}
        command = ("patch", "node", f"n{number}", "--subresource=status", "--type=merge")
        cluster.kubectl(*command, "-p", json.dumps(status))
    becomes(cluster, "10.77.8.1:31544", "10.77.8.2:31544")
    cluster.kubectl("delete", "node", "n1")
    becomes(cluster, "10.77.8.2:31544")
