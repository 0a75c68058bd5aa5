"""The manifests of ``make kind-up`` run, and ``make kind-demo`` drains a region with calls running.

Agents, resolvers, gateways, etcd and the demo's servers are Pods of two clusters without a common
Pod network, made from the manifests as they are; installing and showing are the product's own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.aio import cancel_and_wait
from federation.cli.kind.demo import show
from federation.cli.kind.install import install
from federation.cli.kind.tools import ToolError
from federation.cli.lab.client import Client
from federation.cli.lab.kubernetes.crds import released_crds
from tests.testkit import namespace
from tests.testkit.deployment import Deployment, running_clusters
from tests.testkit.federation import until
from tests.testkit.manifests import CLUSTERS
from tests.testkit.network_policies import NAME, End, Flow, denied, flows

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(600),
]

NAMESPACE = "federation-system"
PODS = {"federation-agent": 2, "federation-gateway": 2}
CONTROL_PODS = {"federation-etcd": 3, "federation-resolver": 2}
USER = "65532"
COREDNS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "coredns", "namespace": "kube-system"},
    "data": {"Corefile": ".:53 {\n    kubernetes cluster.local\n    reload\n}\n"},
}
"""What kind's clusters have of it; here nothing runs by it."""


@pytest.fixture(scope="module")
def deployment(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Everything is installed and ready."""
    with running_clusters(tmp_path_factory.mktemp("deployment")) as found:
        for cluster in found.clusters:
            cluster.server.apply(COREDNS)
        said: list[str] = []
        try:
            install(found.site, crds=[str(path) for path in released_crds()], say=said.append)
        except ToolError as error:
            pytest.fail(f"{error}\n{said}\n{found.told()}")
        yield found


def test_every_part_runs_as_nobody_and_has_not_failed(deployment: Deployment) -> None:
    for number, cluster in enumerate(deployment.clusters):
        wanted = PODS | (CONTROL_PODS if number == 0 else {})

        def ready(pods: Any = cluster.pods) -> Counter[str]:
            return Counter(
                pod["metadata"]["labels"]["app.kubernetes.io/name"]
                for pod in pods(NAMESPACE)
                if all(
                    one["ready"]
                    for one in pod["status"].get("containerStatuses", [{"ready": False}])
                )
            )

        # The autoscaler asks for the second gateway once it has seen the first.
        until(lambda: ready() == wanted, cluster.told)  # noqa: B023 - waited for here
        pods = cluster.pods(NAMESPACE)
        for pod in (*pods, *cluster.pods("app")):
            (status,) = pod["status"]["containerStatuses"]
            assert (status["ready"], status["restartCount"]) == (True, 0), cluster.told()
            process = Path("/proc") / status["containerID"].removeprefix("process://")
            assert users(process) == {USER}


def users(process: Path) -> set[str]:
    """Whom the process and its children run as."""
    lines = (process / "status").read_text().splitlines()
    (found,) = [line.split()[1:] for line in lines if line.startswith("Uid:")]
    return set(found)


def test_budgets_and_autoscalers_mean_these_pods(deployment: Deployment) -> None:
    for cluster in deployment.clusters:

        def counted(kubernetes: Any = cluster.server) -> bool:
            budgets = kubernetes.items("poddisruptionbudgets", NAMESPACE)
            return bool(budgets) and all(
                budget.get("status", {}).get("currentHealthy", 0)
                == budget["status"]["expectedPods"]
                == (PODS | CONTROL_PODS)[budget["metadata"]["name"]]
                for budget in budgets
            )

        until(counted, cluster.told)


def test_names_of_the_clusterset_are_passed_on(deployment: Deployment) -> None:
    for cluster in deployment.clusters:
        (service,) = (
            one
            for one in cluster.server.items("services", NAMESPACE)
            if one["metadata"]["name"] == "federation-dns"
        )
        found = cluster.server.object("configmap", "kube-system", "coredns")["data"]["Corefile"]
        assert found.startswith(COREDNS["data"]["Corefile"])
        assert f"forward . {service['spec']['clusterIP']}:53 {{" in found
        assert "$" not in found


def test_network_policies_allow_every_connection_that_there_is(deployment: Deployment) -> None:
    seen: set[tuple[str, str]] = set()
    for cluster in deployment.clusters:
        policies = cluster.server.items("networkpolicies", NAMESPACE)
        for flow in flows(cluster.server, NAMESPACE):
            assert denied(policies, flow) == "", f"{cluster.region}: {flow}"
            seen.add((flow.source.name, flow.target.name))
        agent, gateway = (End(NAMESPACE, {NAME: f"federation-{it}"}) for it in ("agent", "gateway"))
        assert denied(policies, Flow(agent, gateway, 15000)) == "egress"
        assert denied(policies, Flow(gateway, agent, 15020)) == "ingress"
        assert denied(policies, Flow(End("app", {}), agent, 15010)) == "ingress"
    assert {
        ("federation-agent", "federation-etcd"),
        ("federation-agent", ""),  # the API server, and etcd of the other cluster
        ("federation-gateway", "federation-agent"),
        ("federation-resolver", "federation-etcd"),
        ("federation-etcd", "federation-etcd"),
    } <= seen


def test_a_region_drains_with_calls_running_and_none_is_lost(deployment: Deployment) -> None:
    said: list[str] = []
    try:
        lost = asyncio.run(show(deployment.site, rate=20, say=said.append))
    except ToolError as error:
        pytest.fail(f"{error}\n{said}\n{deployment.told()}")
    told = "\n".join(said)
    assert lost == 0, told
    for region in ("us-west-1", "us-east-1"):
        line = f"us-east-1 drained: calls from {region}: 100 % answered by us-west-1, p99"
        assert line in told
        for when in ("before", "after"):
            assert f"{when}: calls from {region}: " in told
    assert "lost" in said[-1]


async def test_a_rolling_update_of_gateways_loses_no_call(
    deployment: Deployment, tmp_path: Path
) -> None:
    site, (cluster, _) = deployment.site, deployment.clusters
    for member in site.members:
        member.kubectl.apply("-f", str(CLUSTERS / "examples" / "multi-cluster.yaml"))
    client = Client([site.control.entrance], rate=20, ca=site.client_ca.read_bytes())
    calling = asyncio.create_task(client.run(out=tmp_path / "figures"))
    try:
        await asyncio.to_thread(until, lambda: client.figures().total_ok > 20, cluster.told)
        gateways = ("deployment/federation-gateway", "-n", NAMESPACE)
        await asyncio.to_thread(cluster.server.kubectl, "rollout", "restart", *gateways)
        before = client.figures().total_ok
        status = ("rollout", "status", *gateways, "--timeout=120s")
        await asyncio.to_thread(site.control.kubectl, *status)
        seen = client.figures()
        assert (seen.total_errors, seen.errors) == (0, {}), cluster.told()
        assert seen.total_ok > before
    finally:
        await cancel_and_wait(calling)
        await client.close()
