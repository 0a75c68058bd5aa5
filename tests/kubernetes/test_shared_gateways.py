"""Gateways that share the cluster's gateways: reached at the Service in front of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.testkit import namespace
from tests.testkit.federation import until
from tests.testkit.gateway_cluster import (
    CLUSTERS,
    PODS_START_S,
    GatewayCluster,
    answer,
    gateway,
    named,
    route,
    running_gateway_cluster,
    template,
)

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(180),
]

SYSTEM, SERVICE = "federation-system", "federation-gateway"
LABELS = {"app.kubernetes.io/name": "federation-gateway"}
_namespaces = (f"shared-{number}" for number in itertools.count())


def shared_service() -> dict[str, Any]:
    """The Service as a person writes it: the entrance of other clusters, and one port besides."""
    ports = [
        {"name": "east-west", "port": 15444, "targetPort": 15444},
        {"name": "web", "port": 80, "targetPort": 10080},
    ]
    spec = {"type": "LoadBalancer", "selector": LABELS, "ports": ports}
    found = named("Service", SERVICE, spec=spec)
    found["metadata"]["namespace"] = SYSTEM
    return found


def shared_gateways(agent: str) -> dict[str, Any]:
    """Their Deployment; gateways add 10000 to every port."""
    found = template(agent=agent, namespace=SYSTEM)
    found["metadata"]["name"] = SERVICE
    found["spec"]["selector"] = {"matchLabels": LABELS}
    pod = found["spec"]["template"]
    pod["metadata"]["labels"] = LABELS
    pod["spec"]["containers"][0]["args"].append("--port-offset=10000")
    return found


@pytest.fixture(scope="module")
def cluster(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayCluster]:
    """A cluster with a gateway that all Gateways share."""
    directory = tmp_path_factory.mktemp("shared")
    options = ("--gateway-service", f"{SYSTEM}/{SERVICE}")
    with running_gateway_cluster(directory, options=options) as found:
        found.apply(shared_service(), shared_gateways(found.xds))
        yield found


@pytest.fixture
def where(cluster: GatewayCluster) -> Iterator[str]:
    """A namespace of the test's own, whose Gateways go: a port belongs to one Gateway."""
    name = next(_namespaces)
    cluster.apply(named("Namespace", name))
    yield name
    cluster.kubernetes.kubectl("delete", "gateways", "--all", "-n", name)


def ports(cluster: GatewayCluster) -> dict[int, tuple[str, int]]:
    """Name and target of each port of the Service."""
    spec = cluster.kubernetes.object("service", SYSTEM, SERVICE)["spec"]
    return {port["port"]: (port["name"], port["targetPort"]) for port in spec["ports"]}


def test_gateways_are_reached_at_the_services_address(cluster: GatewayCluster, where: str) -> None:
    listeners = [{"name": f"p{port}", "port": port, "protocol": "HTTP"} for port in (80, 8443)]
    cluster.serve(where, "users")
    cluster.apply(gateway(where, "edge", *listeners), route(where, "users", f"{where}/edge"))
    address = cluster.programmed(where, "edge")
    service = cluster.kubernetes.object("service", SYSTEM, SERVICE)
    assert [entry["ip"] for entry in service["status"]["loadBalancer"]["ingress"]] == [address]
    for port in (80, 8443):
        until(lambda p=port: answer(f"{address}:{p}") == "users", cluster.log)  # type: ignore[misc]
    # The port that was there is as it was, the other one leads to where gateways listen.
    assert ports(cluster)[80] == ("web", 10080)
    assert ports(cluster)[8443] == ("listener-8443", 18443)


def test_ports_go_with_their_gateway_and_no_others(cluster: GatewayCluster, where: str) -> None:
    cluster.apply(gateway(where, "edge", {"name": "a", "port": 9001, "protocol": "HTTP"}))
    cluster.apply(gateway(where, "other", {"name": "b", "port": 9002, "protocol": "HTTP"}))
    until(lambda: {9001, 9002} <= set(ports(cluster)), lambda: ports(cluster), within_s=60)
    manual = [{"op": "add", "path": "/spec/ports/-", "value": {"name": "mine", "port": 9100}}]
    kubectl = cluster.kubernetes.kubectl
    kubectl("patch", "service", SERVICE, "-n", SYSTEM, "--type=json", "-p", json.dumps(manual))
    kubectl("delete", "gateway", "edge", "-n", where)
    until(lambda: 9001 not in ports(cluster), lambda: ports(cluster))
    assert {9002, 9100, 15444, 80} <= set(ports(cluster))
    # A manifest that is applied again leaves the ports of Gateways alone.
    cluster.apply(shared_service())
    assert 9002 in ports(cluster)


def test_an_address_is_the_services_or_none(cluster: GatewayCluster, where: str) -> None:
    plain = {"name": "a", "port": 80, "protocol": "HTTP"}
    cluster.apply(gateway(where, "edge", plain))
    address = cluster.programmed(where, "edge")

    def programmed() -> str:
        return cluster.conditions(where, "edge").get("Programmed", "")

    cluster.apply(gateway(where, "edge", plain, addresses=[{"value": "203.0.113.7"}]))
    until(
        lambda: programmed().startswith("False, AddressNotUsable: spec.addresses: Service"),
        programmed,
    )
    cluster.apply(gateway(where, "edge", plain, addresses=[{"value": address}]))
    until(lambda: programmed().startswith("True"), programmed)


def test_without_the_service_a_gateway_has_no_address(cluster: GatewayCluster, where: str) -> None:
    cluster.apply(gateway(where, "edge"))
    cluster.programmed(where, "edge")
    cluster.kubernetes.kubectl("delete", "service", SERVICE, "-n", SYSTEM)

    def programmed() -> str:
        return cluster.conditions(where, "edge").get("Programmed", "")

    until(
        lambda: programmed().startswith("False, AddressNotAssigned: Service federation-system"),
        programmed,
    )
    cluster.apply(shared_service())
    assert cluster.programmed(where, "edge")


def test_a_port_that_cannot_be_added_is_said(cluster: GatewayCluster, where: str) -> None:
    """As where the agent may write no Services."""
    kubectl = cluster.kubernetes.kubectl
    role = json.loads(kubectl("get", "clusterrole", "federation-agent", "-o", "json"))
    role["rules"] = [
        {**rule, "verbs": [verb for verb in rule["verbs"] if verb != "patch"]}
        if "services" in rule["resources"]
        else rule
        for rule in role["rules"]
    ]
    kubectl("replace", "-f", "-", stdin=json.dumps(role))
    account = "--as=system:serviceaccount:federation-system:federation-agent"
    asked = ("auth", "can-i", "patch", f"services/{SERVICE}", "-n", SYSTEM, account)
    until(lambda: kubectl(*asked, ok=False).startswith("no"), cluster.log)
    try:
        cluster.apply(gateway(where, "edge", {"name": "a", "port": 9400, "protocol": "HTTP"}))

        def programmed() -> str:
            return cluster.conditions(where, "edge").get("Programmed", "")

        until(
            lambda: "has no port 9400: adding it failed" in programmed(),
            programmed,
            within_s=PODS_START_S,
        )
        assert programmed().startswith("False, NoResources")
    finally:
        kubectl("apply", "-f", str(CLUSTERS / "base/agent/rbac.yaml"))
    cluster.programmed(where, "edge")
