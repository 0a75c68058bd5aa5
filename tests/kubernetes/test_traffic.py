"""One cluster on a real API server: an agent, a resolver, a gateway, and calls through it.

Everything a person does goes through ``kubectl``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit import namespace
from tests.testkit.federation import until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.kubernetes_cluster import KubernetesCluster, running_cluster, start_one

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(120),
]


@pytest.fixture
def cluster(own_kubernetes: KubernetesServer, tmp_path: Path) -> Iterator[KubernetesCluster]:
    """A cluster whose gateway serves the route."""
    with running_cluster(own_kubernetes, tmp_path) as found:
        start_one(found)
        yield found


def test_weights_follow_a_json_patch(cluster: KubernetesCluster) -> None:
    cluster.route_to("green")
    until(lambda: cluster.call() == "green", cluster.call)


def test_statuses_are_there_for_kubectl(cluster: KubernetesCluster) -> None:
    def accepted() -> bool:
        return (
            cluster.conditions("grpcroute", "app", "echo", "edge")
            .get("Accepted", "")
            .startswith("True, Accepted")
        )

    until(accepted, lambda: cluster.conditions("grpcroute", "app", "echo", "edge"))
    programmed = cluster.programmed()
    assert programmed.startswith("True, Programmed"), programmed
    of_class = cluster.conditions("gatewayclass", "", "istio")
    assert of_class["Accepted"].startswith("True, Accepted")
    # All of it with the rights of clusters/base/agent/rbac.yaml.
    said = cluster.agents["agent"].output()
    assert ": 403" not in said, said


def test_traffic_goes_on_while_the_api_server_is_away(cluster: KubernetesCluster) -> None:
    cluster.kubernetes.kill_api()
    assert [cluster.call() for _ in range(20)] == ["blue"] * 20
    cluster.kubernetes.start_api()
    cluster.kubectl("delete", "endpointslice", "blue-1", "-n", "app")
    until(lambda: cluster.call() == "", cluster.call)


def test_an_agent_without_its_state_is_still_this_clusters(cluster: KubernetesCluster) -> None:
    """A Pod that starts elsewhere has no state directory, and the same name."""
    lost = cluster.agents["agent"].command
    lost.kill()
    lost.wait()
    cluster.xds["elsewhere"] = cluster.xds["agent"]
    again = cluster.start_agent("elsewhere")
    again.says("heartbeat is present")
    cluster.kubectl("delete", "endpointslice", "blue-1", "-n", "app")
    until(lambda: cluster.call() == "", again.output)
