"""The Helm chart, judged by helm itself: it makes the same objects as the kustomize bases.

So what an API server says of those (``tests/kubernetes/test_manifests.py``) holds for the chart.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.cli.lab.kubernetes.control_plane import VERSION
from federation.cli.lab.kubernetes.go_programs import GoPrograms, NoProgramsError
from tests.testkit.federation import ROOT
from tests.testkit.manifests import CLUSTERS, Object, containers, kustomized, objects, of_kind

CHART = CLUSTERS / "helm" / "federation"
HELM = GoPrograms(
    module=Path(__file__).parent / "go" / "helm",
    name="helm",
    packages=("helm.sh/helm/v3/cmd/helm",),
    build_timeout_s=1200,
    environment=(("CGO_ENABLED", "0"),),
    flags=("-ldflags=-s -w",),
)

pytestmark = pytest.mark.timeout(1500)


@cache
def program() -> str:
    try:
        return str(HELM.build() / "helm")
    except NoProgramsError as error:
        pytest.skip(str(error))


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def template(*options: str) -> list[Object]:
    """What the chart makes."""
    place = ("--namespace", "federation-system", "--kube-version", VERSION)
    done = helm("template", "federation", str(CHART), *place, *options)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def refused(*options: str) -> str:
    """Why helm does not take the values."""
    done = helm("template", "federation", str(CHART), "--kube-version", VERSION, *options)
    assert done.returncode != 0
    return done.stderr


def named(found: list[Object]) -> dict[tuple[str, str], Object]:
    """Objects by kind and name, without the namespace's own, which is not a chart's to make."""
    return {
        (one["kind"], one["metadata"]["name"]): one for one in found if one["kind"] != "Namespace"
    }


def test_helm_lints_it() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


def test_a_member_is_what_the_base_makes() -> None:
    assert named(template()) == named(objects(kustomized("base")))


def test_with_control_it_is_what_both_bases_make() -> None:
    both = [*objects(kustomized("base")), *objects(kustomized("control"))]
    assert named(template("--set", "control.enabled=true")) == named(both)


CONSOLE = (
    *("--set", "console.enabled=true", "--set", "console.hosts={console.example.com}"),
    *("--set", "console.oidc.issuer=https://login.example.com"),
    *("--set", "console.oidc.audience=federation-console"),
    *("--set", "console.readers={*}", "--set", "console.writers={group:platform}"),
)


def test_with_the_console_it_is_what_that_base_makes_besides() -> None:
    both = named([*objects(kustomized("base")), *objects(kustomized("console"))])
    pod = both["Deployment", "federation-console"]["spec"]["template"]["spec"]
    pod["containers"][0]["args"] += [
        "--host=console.example.com",
        "--oidc-issuer=https://login.example.com",
        "--oidc-audience=federation-console",
        "--reader=*",
        "--writer=group:platform",
    ]
    assert named(template(*CONSOLE)) == both


def test_a_console_reads_api_servers_by_the_kubeconfig_that_it_is_given() -> None:
    more = ("--set", "console.kubeconfigSecret=clusters", "--set", "console.contexts={a=x,b}")
    without, given = named(template(*CONSOLE)), named(template(*CONSOLE, *more))
    pod = without["Deployment", "federation-console"]["spec"]["template"]["spec"]
    args = ["--kubeconfig=/etc/federation/kubeconfig/config", "--context=a=x", "--context=b"]
    pod["containers"][0]["args"] += args
    mount = {"name": "kubeconfig", "mountPath": "/etc/federation/kubeconfig", "readOnly": True}
    pod["containers"][0]["volumeMounts"] += [mount]
    secret = {"secretName": "clusters", "defaultMode": 0o440}
    pod["volumes"] += [{"name": "kubeconfig", "secret": secret}]
    assert given == without


def test_a_console_for_nobody_is_refused() -> None:
    assert "console.readers" in refused("--set", "console.enabled=true")


OBSERVED = (
    *("--set", "observability.monitors=true", "--set", "observability.rules=true"),
    *("--set", "observability.dashboards=true"),
)


def test_with_observability_it_is_what_that_base_makes_besides() -> None:
    both = [*objects(kustomized("base")), *objects(kustomized("observability"))]
    assert named(template(*OBSERVED)) == named(both)


def test_runbooks_and_prometheus_are_where_the_values_say() -> None:
    made = template(
        *OBSERVED,
        *("--set", "observability.runbooks=https://example.test/runbooks"),
        *("--set", "observability.prometheusNamespace=prometheus"),
    )
    (rule,) = of_kind(made, "PrometheusRule")
    urls = {
        rule["annotations"]["runbook_url"]
        for group in rule["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert "https://example.test/runbooks/FederationNoTarget.md" in urls
    assert all(url.startswith("https://example.test/runbooks/") for url in urls)
    policy = named(made)["NetworkPolicy", "federation-metrics"]
    assert "metadata.name': 'prometheus'" in str(policy["spec"]["ingress"])


def test_values_reach_the_objects(tmp_path: Path) -> None:
    requests = {"cpu": "1", "memory": "1Gi"}
    values: dict[str, Any] = {
        "image": {"repository": "example.test/federation", "tag": "v9", "pullPolicy": "Always"},
        "agent": {"replicas": 3, "extraArgs": ["--gateway-class=mine"]},
        "gateway": {
            "autoscaling": {"enabled": False},
            "replicas": 5,
            "drainGraceSeconds": 60,
            "extraArgs": ["--workers=2"],
            "service": {
                "type": "NodePort",
                "annotations": {"example.test/pool": "private"},
                "ports": [{"name": "east-west", "port": 15444, "nodePort": 30444}],
            },
            "resources": {"requests": requests},
        },
        "control": {
            "enabled": True,
            "resolver": {"extraArgs": ["--otlp=http://otel-collector.infra:4318"]},
            "etcd": {
                "service": {"type": "NodePort", "nodePort": 32379},
                "storage": {"size": "1Gi", "className": "fast"},
            },
        },
        "networkPolicies": {"enabled": False},
    }
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    made = template("--values", str(path))
    found = named(made)
    ours = [entry for _, entry in containers(made) if entry["name"] != "etcd"]
    assert {entry["image"] for entry in ours} == {"example.test/federation:v9"}
    assert {entry["imagePullPolicy"] for entry in ours} == {"Always"}
    agent = found["Deployment", "federation-agent"]["spec"]
    assert agent["replicas"] == 3
    assert agent["template"]["spec"]["containers"][0]["args"][-1] == "--gateway-class=mine"
    resolver = found["Deployment", "federation-resolver"]["spec"]["template"]["spec"]
    assert resolver["containers"][0]["args"][-1] == "--otlp=http://otel-collector.infra:4318"
    gateway = found["Deployment", "federation-gateway"]["spec"]
    assert gateway["replicas"] == 5
    pod = gateway["template"]["spec"]
    assert pod["containers"][0]["args"][-2:] == ["--drain-grace=60", "--workers=2"]
    # Leaving the Service takes 5 s of it, and ending 20 s at most.
    assert pod["terminationGracePeriodSeconds"] == 85
    assert pod["containers"][0]["resources"]["requests"] == requests
    service = found["Service", "federation-gateway"]
    assert service["metadata"]["annotations"] == {"example.test/pool": "private"}
    assert [port["nodePort"] for port in service["spec"]["ports"]] == [30444]
    assert found["Service", "federation-etcd"]["spec"]["ports"][0]["nodePort"] == 32379
    (claim,) = found["StatefulSet", "federation-etcd"]["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert not of_kind(made, "NetworkPolicy", "HorizontalPodAutoscaler")


def test_another_namespace_is_meant_everywhere() -> None:
    made = template(
        "--namespace", "elsewhere", "--set", "control.enabled=true", *OBSERVED, *CONSOLE
    )
    assert "federation-system" not in json.dumps(made)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("agent.replica=3", "replica"),
        ("agent.replicas=0", "replicas"),
        ("gateway.service.type=Loadbalancer", "type"),
        ("gateway.service.ports[0].name=eastwest", "contains"),
        ("control.etcd.storage.size=lots", "size"),
        ("observability.runbooks=docs", "runbooks"),
        ("console.oidc.issuer=login", "issuer"),
    ],
)
def test_values_that_make_no_sense_are_refused(option: str, why: str) -> None:
    assert why in refused("--set", option)


def test_versions_are_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    images = {
        container["image"]
        for folder in ("base", "control")
        for _, container in containers(objects(kustomized(folder)))
    }
    assert f"federation:{version}" in images
    assert {image for image in images if image.startswith("federation")} == {
        f"federation:{version}"
    }
