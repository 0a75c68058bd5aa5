"""Gateways with gateways of their own: what the agent makes, keeps, and takes away again."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from tests.testkit import namespace
from tests.testkit.federation import conditions, until
from tests.testkit.gateway_cluster import (
    GROUP,
    GatewayCluster,
    answer,
    gateway,
    gateway_class,
    named,
    route,
    running_gateway_cluster,
)

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(180),
]

SYSTEM = "federation-system"
_namespaces = (f"edge-{number}" for number in itertools.count())
UID = "{.metadata.uid}"


@pytest.fixture(scope="module")
def cluster(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayCluster]:
    """A cluster whose dedicated gateways stand in the federation's namespace."""
    directory = tmp_path_factory.mktemp("dedicated")
    with running_gateway_cluster(directory, dedicated_in=SYSTEM) as found:
        yield found


@pytest.fixture
def where(cluster: GatewayCluster) -> str:
    """A namespace of the test's own."""
    name = next(_namespaces)
    cluster.apply(named("Namespace", name))
    return name


def test_gateways_of_one_port_have_an_address_each(cluster: GatewayCluster, where: str) -> None:
    for name in ("red", "blue"):
        cluster.serve(where, name)
        cluster.apply(gateway(where, name), route(where, name, f"{where}/{name}"))
    found = {name: cluster.programmed(where, name) for name in ("red", "blue")}
    assert found["red"] != found["blue"]
    for name, address in found.items():
        until(lambda a=address, n=name: answer(f"{a}:80") == n, cluster.log)  # type: ignore[misc]
    # What the other Gateway routes is not served here: each has its own listeners alone.
    for name in ("red", "blue"):
        assert cluster.conditions(where, name)["Programmed"] == "True, Programmed: 1/1 gateways"
        assert cluster.conditions(where, name, "grpc")["Accepted"].startswith("True")


def test_what_is_made_carries_what_the_gateway_says(cluster: GatewayCluster, where: str) -> None:
    infrastructure = {"labels": {"team": "payments"}, "annotations": {"cost/centre": "12"}}
    listeners = (
        {"name": "plain", "port": 80, "protocol": "HTTP"},
        {"name": "other", "port": 8443, "protocol": "HTTP"},
    )
    cluster.apply(gateway(where, "edge", *listeners, infrastructure=infrastructure))
    cluster.programmed(where, "edge")
    for kind in ("deployment", "service", "serviceaccount"):
        (made,) = cluster.made(kind, f"{where}/edge")
        metadata = made["metadata"]
        assert metadata["namespace"] == SYSTEM
        assert metadata["labels"]["team"] == "payments"
        assert metadata["labels"]["gateway.networking.k8s.io/gateway-name"] == "edge"
        assert metadata["annotations"]["cost/centre"] == "12"
        if kind == "service":
            assert made["spec"]["type"] == "LoadBalancer"
            assert {port["port"] for port in made["spec"]["ports"]} == {80, 8443}
        if kind == "deployment":
            pod = made["spec"]["template"]
            assert pod["metadata"]["labels"]["team"] == "payments"
            assert pod["spec"]["serviceAccountName"] == metadata["name"]
    kubectl = cluster.kubernetes.kubectl
    selector = "gateway.networking.k8s.io/gateway-name=edge,team=payments"
    pods = kubectl("get", "pods", "-n", SYSTEM, "-l", selector, "-o", "name").split()
    assert len(pods) == 1


def test_a_port_that_is_added_is_reached(cluster: GatewayCluster, where: str) -> None:
    cluster.serve(where, "users")
    cluster.apply(gateway(where, "edge"), route(where, "users", f"{where}/edge"))
    address = cluster.programmed(where, "edge")
    plain = {"name": "grpc", "port": 80, "protocol": "HTTP"}
    second = {"name": "second", "port": 9000, "protocol": "HTTP"}
    cluster.apply(gateway(where, "edge", plain, second))
    until(lambda: answer(f"{address}:9000") == "users", cluster.log)
    assert answer(f"{address}:80") == "users"
    cluster.apply(gateway(where, "edge", second))

    def ports() -> set[int]:
        (service,) = cluster.made("service", f"{where}/edge")
        return {port["port"] for port in service["spec"]["ports"]}

    until(lambda: ports() == {9000}, ports)
    assert cluster.addresses(where, "edge") == [address]


def uids(cluster: GatewayCluster, name: str) -> dict[str, str]:
    """Identity and version of what was made for a Gateway, and of nothing that a status changes."""
    return {
        kind: found["metadata"]["uid"]
        for kind in ("deployment", "service", "serviceaccount")
        for found in cluster.made(kind, name)
    }


def test_an_agent_that_starts_again_changes_nothing(cluster: GatewayCluster, where: str) -> None:
    cluster.serve(where, "users")
    cluster.apply(gateway(where, "edge"), route(where, "users", f"{where}/edge"))
    address = cluster.programmed(where, "edge")
    name = f"{where}/edge"
    before = {kind: cluster.made(kind, name) for kind in ("deployment", "service")}
    transitions = cluster.status(where, "edge")["conditions"]
    until(lambda: answer(f"{address}:80") == "users", lambda: answer(f"{address}:80"))
    cluster.stop_agent()
    assert answer(f"{address}:80") == "users"
    cluster.start_agent().says("snapshot published")
    # A Gateway made now shows that the new agent has looked after all of them.
    cluster.apply(gateway(where, "late"))
    cluster.programmed(where, "late")
    for kind, found in before.items():
        (old,), (new,) = found, cluster.made(kind, name)
        assert new["metadata"]["uid"] == old["metadata"]["uid"]
        assert new["spec"] == old["spec"]
        assert new["metadata"].get("generation") == old["metadata"].get("generation")
    assert cluster.status(where, "edge")["conditions"] == transitions
    assert answer(f"{address}:80") == "users"


def test_what_people_break_is_made_again(cluster: GatewayCluster, where: str) -> None:
    cluster.apply(gateway(where, "edge"))
    cluster.programmed(where, "edge")
    (deployment,) = cluster.made("deployment", f"{where}/edge")
    name = deployment["metadata"]["name"]
    kubectl = cluster.kubernetes.kubectl
    kubectl("delete", "deployment", name, "-n", SYSTEM)
    until(lambda: cluster.made("deployment", f"{where}/edge"), cluster.log)
    patch = json.dumps({"spec": {"type": "ClusterIP"}})
    kubectl("patch", "service", name, "-n", SYSTEM, "--type=merge", "-p", patch)

    def repaired() -> bool:
        (service,) = cluster.made("service", f"{where}/edge")
        return bool(service["spec"]["type"] == "LoadBalancer")

    until(repaired, cluster.log)
    # What is nobody's business but an autoscaler's stays as it is.
    kubectl("scale", "deployment", name, "-n", SYSTEM, "--replicas=1")
    cluster.programmed(where, "edge")


def test_everything_goes_with_the_gateway_and_nothing_else(
    cluster: GatewayCluster, where: str
) -> None:
    cluster.apply(gateway(where, "edge"), gateway(where, "other"))
    for name in ("edge", "other"):
        cluster.programmed(where, name)
    kept = uids(cluster, f"{where}/other")
    bystander = named("ServiceAccount", f"bystander-{where}")
    bystander["metadata"] |= {
        "namespace": SYSTEM,
        "labels": {"gateway.networking.k8s.io/gateway-name": "edge"},
    }
    cluster.apply(bystander)
    cluster.kubernetes.kubectl("delete", "gateway", "edge", "-n", where)
    until(lambda: not uids(cluster, f"{where}/edge"), cluster.log)
    assert uids(cluster, f"{where}/other") == kept
    assert cluster.kubernetes.object("serviceaccount", SYSTEM, f"bystander-{where}")


def test_everything_goes_with_the_class(cluster: GatewayCluster, where: str) -> None:
    cluster.apply(gateway_class("edges"))
    cluster.apply(gateway(where, "edge", gatewayClassName="edges"))
    cluster.programmed(where, "edge")
    cluster.kubernetes.kubectl("delete", "gatewayclass", "edges")
    until(lambda: not uids(cluster, f"{where}/edge"), cluster.log)


def test_a_foreign_object_stays_and_the_gateway_says_so(
    cluster: GatewayCluster, where: str
) -> None:
    cluster.apply(gateway(where, "edge"))
    cluster.programmed(where, "edge")
    (service,) = cluster.made("service", f"{where}/edge")
    name = service["metadata"]["name"]
    kubectl = cluster.kubernetes.kubectl
    kubectl("delete", "gateway", "edge", "-n", where)
    until(lambda: not uids(cluster, f"{where}/edge"), cluster.log)
    foreign = named("Service", name, spec={"ports": [{"port": 1}], "selector": {"app": "x"}})
    foreign["metadata"]["namespace"] = SYSTEM
    cluster.apply(foreign)
    cluster.apply(gateway(where, "edge"))

    def told() -> str:
        return cluster.conditions(where, "edge").get("Programmed", "")

    until(lambda: "it is somebody else's and stays as it is" in told(), told)
    assert told().startswith("False, NoResources")
    found = cluster.kubernetes.object("service", SYSTEM, name)
    assert [port["port"] for port in found["spec"]["ports"]] == [1]
    kubectl("delete", "service", name, "-n", SYSTEM)
    cluster.programmed(where, "edge")


def test_an_address_that_is_asked_for(cluster: GatewayCluster, where: str) -> None:
    unusable, usable = "203.0.113.9", "10.77.200.77"

    def asked(*addresses: dict[str, str]) -> None:
        cluster.apply(gateway(where, "edge", addresses=list(addresses)))

    def becomes(condition: str, start: str) -> None:
        def told() -> str:
            return cluster.conditions(where, "edge").get(condition, "")

        until(lambda: told().startswith(start), lambda: cluster.told(where, "edge"), within_s=60)

    asked({"type": "example.com/strange", "value": "here"}, {"value": unusable}, {"value": usable})
    becomes("Accepted", "False, UnsupportedAddress: spec.addresses[0].type: example.com/strange")
    asked({"value": unusable}, {"value": usable})
    becomes("Accepted", "True, Accepted")
    becomes("Programmed", "False, AddressNotUsable: spec.addresses: ")
    asked({"value": usable})
    becomes("Programmed", "True, Programmed")
    assert cluster.addresses(where, "edge") == [usable]
    asked({"type": "IPAddress"})  # any address will do
    becomes("Programmed", "True, Programmed")


def test_parameters_that_nobody_knows_are_refused(cluster: GatewayCluster, where: str) -> None:
    ref = {"group": "example.com", "kind": "Parameters", "name": "mine"}
    cluster.apply(gateway(where, "edge", infrastructure={"parametersRef": ref}))

    def accepted() -> str:
        return cluster.conditions(where, "edge").get("Accepted", "")

    until(lambda: accepted().startswith("False, InvalidParameters"), accepted)


def test_an_agent_needs_no_more_rights_than_it_has(cluster: GatewayCluster) -> None:
    for agent in cluster.agents:
        assert ": 403" not in agent.output(), agent.output()


def test_others_add_listeners_to_a_gateway(cluster: GatewayCluster, where: str) -> None:
    team = f"{where}-team"
    cluster.apply(named("Namespace", team))
    cluster.serve(team, "users")
    every = {"namespaces": {"from": "All"}}
    cluster.apply(gateway(where, "edge", allowedListeners=every))
    address = cluster.programmed(where, "edge")
    listeners = [
        {"name": "extra", "port": 9005, "protocol": "HTTP", "allowedRoutes": every},
        {"name": "twin", "port": 80, "protocol": "HTTP"},
    ]
    added = named("ListenerSet", "more", api_version=f"{GROUP}/v1")
    added["metadata"]["namespace"] = team
    parent = {"name": "edge", "namespace": where}
    added["spec"] = {"parentRef": parent, "listeners": listeners}
    users = route(team, "users", f"{team}/more")
    users["spec"]["parentRefs"][0]["kind"] = "ListenerSet"
    cluster.apply(added, users)
    until(lambda: answer(f"{address}:9005") == "users", cluster.log, within_s=60)

    def told(at: str = "") -> dict[str, str]:
        return conditions(cluster.kubernetes.object("listenerset", team, "more")["status"], at)

    until(lambda: told().get("Programmed", "").startswith("True"), told)
    assert told()["Accepted"].startswith("True, ListenersNotValid")
    assert told("twin")["Conflicted"].startswith("True, HostnameConflict")
    assert cluster.status(where, "edge")["attachedListenerSets"] == 1
    cluster.kubernetes.kubectl("delete", "listenerset", "more", "-n", team)
    until(lambda: answer(f"{address}:9005") == "UNAVAILABLE", cluster.log)
    until(lambda: not cluster.status(where, "edge")["attachedListenerSets"], cluster.log)
    assert cluster.addresses(where, "edge") == [address]
