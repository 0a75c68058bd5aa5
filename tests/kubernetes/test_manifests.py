"""The manifests that install the federation, judged by a real API server without being applied.

Strict validation knows every field of every version; Pod Security is asked about each Pod.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.derive.infrastructure import infrastructure_of
from federation.model.objects import Gateway
from federation.wire.gateway_template import read_template
from tests.testkit.kubernetes import (
    KubernetesServer,
    install_released_crds_now,
    running_kubernetes,
)
from tests.testkit.manifests import (
    CLUSTERS,
    kustomized,
    objects,
    of_kind,
    pod_of,
    workloads,
)

SETS = ("base", "control", "console", "kind/us-west-1", "kind/us-east-1")
WARNED = "pod-security.kubernetes.io/warn"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(programs: None) -> Iterator[KubernetesServer]:
    """An API server that has the kinds and the namespaces, and nothing else."""
    with running_kubernetes() as found:
        install_released_crds_now(found)
        namespaces = of_kind(objects(kustomized("kind/us-west-1")), "Namespace")
        for namespace in copy.deepcopy(namespaces):
            # Of workloads Pod Security says only in a warning what it would refuse of their Pods.
            namespace["metadata"].setdefault("labels", {})[WARNED] = "restricted"
            found.kubectl("create", "-f", "-", stdin=json.dumps(namespace))
        yield found


def dry_run(server: KubernetesServer, text: str) -> subprocess.CompletedProcess[str]:
    """What ``kubectl apply`` says of manifests; nothing is written."""
    kubectl = (str(Path(sys.executable).with_name("kubectl")), "--kubeconfig")
    return subprocess.run(
        [
            *(*kubectl, str(server.kubeconfig), "apply", "--server-side", "--dry-run=server"),
            *("--validate=strict", "-f", "-"),
        ],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("folder", SETS)
def test_the_api_server_takes_them(server: KubernetesServer, folder: str) -> None:
    text = kustomized(folder)
    done = dry_run(server, text)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(objects(text))


@pytest.mark.parametrize("folder", ["observability", "observability/collector"])
def test_it_takes_what_is_there_to_watch(server: KubernetesServer, folder: str) -> None:
    """All but the Prometheus operator's kinds, which this server does not have."""
    found = [
        one
        for one in objects(kustomized(folder))
        if not one["apiVersion"].startswith("monitoring.coreos.com/")
    ]
    namespaces = {one["metadata"]["namespace"] for one in found}
    there = server.kubectl("get", "namespaces", "-o", "name")
    for namespace in namespaces:
        if f"namespace/{namespace}" not in there.split():
            server.kubectl("create", "namespace", namespace)
            server.kubectl("label", "namespace", namespace, f"{WARNED}=restricted")
    done = dry_run(server, json.dumps({"apiVersion": "v1", "kind": "List", "items": found}))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(found)


def test_a_field_that_is_not_one_is_refused(server: KubernetesServer) -> None:
    text = kustomized("base").replace("readOnlyRootFilesystem", "readonlyRootFilesystem")
    done = dry_run(server, text)
    assert done.returncode == 1
    assert "field not declared in schema" in done.stderr or "unknown field" in done.stderr


def dedicated() -> list[dict[str, Any]]:
    """What stands in clusters/dedicated besides its template, and what that makes of a Gateway."""
    folder = CLUSTERS / "dedicated"
    listeners = [{"name": "grpc", "port": 80, "protocol": "HTTP"}]
    gateway = Gateway.model_validate(
        {
            "metadata": {"name": "edge", "namespace": "infra"},
            "spec": {"gatewayClassName": "istio", "listeners": listeners},
        }
    )
    template = read_template((folder / "template.yaml").read_text())
    made = [dict(it.document) for it in infrastructure_of(gateway, (80,), template)]
    others = sorted(set(folder.glob("*.yaml")) - {folder / "template.yaml"})
    return [*made, *(it for path in others for it in objects(path.read_text()))]


def test_what_dedicated_gateways_need_is_taken(server: KubernetesServer) -> None:
    found = dedicated()
    done = dry_run(server, json.dumps({"apiVersion": "v1", "kind": "List", "items": found}))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (deployment,) = of_kind(found, "Deployment")
    done = dry_run(server, json.dumps(pod_of(deployment)))
    assert done.returncode == 0, done.stderr
    assert "PodSecurity" not in done.stderr
    # The Service of the shared gateways must not lead to these.
    (shared,) = (
        service
        for service in of_kind(objects(kustomized("base")), "Service")
        if service["metadata"]["name"] == "federation-gateway"
    )
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert not shared["spec"]["selector"].items() <= labels.items()
    for policy in of_kind(found, "NetworkPolicy"):
        peers = [peer for rule in policy["spec"]["ingress"] for peer in rule.get("from", [])]
        selectors = [policy["spec"]["podSelector"], *(it.get("podSelector", {}) for it in peers)]
        assert any(
            (chosen := it.get("matchLabels")) and chosen.items() <= labels.items()
            for it in selectors
        )


@pytest.mark.parametrize("folder", SETS)
def test_every_pod_is_restricted(server: KubernetesServer, folder: str) -> None:
    for workload in workloads(objects(kustomized(folder))):
        pod = pod_of(workload)
        done = dry_run(server, json.dumps(pod))
        assert done.returncode == 0, done.stderr
        spoilt = copy.deepcopy(pod)
        spoilt["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        done = dry_run(server, json.dumps(spoilt))
        assert 'violates PodSecurity "restricted' in done.stderr, done.stderr
