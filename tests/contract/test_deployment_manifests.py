"""The manifests that install the federation fit together, and what they run takes their words.

What an API server can judge of them stands in ``tests/kubernetes/test_manifests.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from federation.cli.lab.kubernetes.control_plane import PROGRAMS
from federation.cli.main import app
from tests.testkit.manifests import (
    REGIONS,
    Object,
    containers,
    kustomized,
    objects,
    of_kind,
    workloads,
)

KIND = tuple(f"kind/{region}" for region in REGIONS)
MADE = {
    # By `fedctl cluster add` in each member, and for the cluster that runs etcd.
    *("federation-cluster", "federation-etcd", "federation-agent", "federation-gateway"),
    *("federation-etcd-server", "federation-etcd-peer", "federation-resolver"),
}


@pytest.fixture(params=KIND)
def found(request: pytest.FixtureRequest) -> list[Object]:
    """All objects of a cluster."""
    return objects(kustomized(request.param))


def labels_of(workload: Object) -> dict[str, str]:
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def selected(found: list[Object], namespace: str, selector: dict[str, str]) -> list[Object]:
    """The workloads whose Pods a selector means."""
    return [
        workload
        for workload in workloads(found)
        if workload["metadata"]["namespace"] == namespace
        and selector.items() <= labels_of(workload).items()
    ]


def ports_of(workload: Object) -> Iterator[dict[str, Any]]:
    for _, container in containers([workload]):
        yield from container.get("ports", ())


def test_services_lead_to_ports_that_pods_have(found: list[Object]) -> None:
    for service in of_kind(found, "Service"):
        spec, metadata = service["spec"], service["metadata"]
        (workload,) = selected(found, metadata["namespace"], spec["selector"])
        named = {(port["name"], port.get("protocol", "TCP")) for port in ports_of(workload)}
        for port in spec["ports"]:
            if isinstance(target := port.get("targetPort"), str):
                assert (target, port.get("protocol", "TCP")) in named, metadata["name"]


def test_whatever_has_replicas_may_lose_one_and_is_spread(found: list[Object]) -> None:
    budgets = of_kind(found, "PodDisruptionBudget")
    scaled = {
        one["spec"]["scaleTargetRef"]["name"] for one in of_kind(found, "HorizontalPodAutoscaler")
    }
    for workload in workloads(found):
        name, namespace = workload["metadata"]["name"], workload["metadata"]["namespace"]
        if namespace != "federation-system":
            continue
        assert workload["spec"].get("replicas", 0) >= 2 or name in scaled
        assert ("replicas" not in workload["spec"]) == (name in scaled)
        matching = [
            budget
            for budget in budgets
            if workload in selected(found, namespace, budget["spec"]["selector"]["matchLabels"])
        ]
        assert len(matching) == 1, name
        spread = workload["spec"]["template"]["spec"]["topologySpreadConstraints"]
        keys = [constraint["topologyKey"] for constraint in spread]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for constraint in spread:
            meant = constraint["labelSelector"]["matchLabels"]
            assert selected(found, namespace, meant) == [workload]


def test_each_container_is_bounded_and_probed(found: list[Object]) -> None:
    for workload, container in containers(found):
        name = workload["metadata"]["name"]
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert "readinessProbe" in container, name
        if workload["metadata"]["namespace"] == "federation-system":
            assert {"startupProbe", "livenessProbe"} <= container.keys(), name


def test_what_pods_are_given_is_made_by_somebody(found: list[Object]) -> None:
    there = {one["metadata"]["name"] for one in of_kind(found, "ConfigMap")} | MADE
    asked = set()
    for workload, container in containers(found):
        spec = workload["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in spec.get("volumes", ())}
        claims = workload["spec"].get("volumeClaimTemplates", ())
        volumes |= {claim["metadata"]["name"] for claim in claims}
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
        asked |= {v["secret"]["secretName"] for v in spec.get("volumes", ()) if "secret" in v}
        asked |= {source["configMapRef"]["name"] for source in container.get("envFrom", ())}
    assert asked <= there


def test_no_pod_is_left_out_of_the_network_policies(found: list[Object]) -> None:
    policies = [
        policy for policy in of_kind(found, "NetworkPolicy") if policy["spec"]["podSelector"]
    ]
    (denied,) = [
        policy
        for policy in of_kind(found, "NetworkPolicy")
        if not policy["spec"]["podSelector"] and "egress" not in policy["spec"]
    ]
    assert denied["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for workload in workloads(found):
        namespace = workload["metadata"]["namespace"]
        if namespace == denied["metadata"]["namespace"]:
            meant = [
                policy["metadata"]["name"]
                for policy in policies
                if selected(found, namespace, policy["spec"]["podSelector"]["matchLabels"])
                == [workload]
            ]
            assert meant == [workload["metadata"]["name"]]


def test_commands_take_the_words_that_containers_give(found: list[Object]) -> None:
    group: Any = typer.main.get_command(app)
    tried = 0
    for _, container in containers(found):
        if not container["image"].startswith("federation"):
            continue
        words = [re.sub(r"\$\(\w+\)", "10.0.0.1", word) for word in container["args"]]
        words = [re.sub(r"^(--cluster|--region)=.*", r"\1=west", word) for word in words]
        name, *rest = words
        command = group.get_command(None, name).make_context(name, rest)
        if name == "kind":
            sub, *rest = rest
            command = command.command.get_command(command, sub).make_context(sub, rest)
        assert command.params, words
        tried += 1
    assert tried >= 3


def test_etcd_is_of_the_version_that_tests_run() -> None:
    (image,) = {
        container["image"]
        for _, container in containers(objects(kustomized("control")))
        if not container["image"].startswith("federation")
    }
    module = (PROGRAMS.module / "go.mod").read_text()
    version = re.search(r"go\.etcd\.io/etcd/server/v3 (v\S+)", module)
    assert version is not None
    assert image.rpartition(":")[2] == version[1]
