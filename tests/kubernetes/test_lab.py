"""``fedctl lab up --kubernetes``: all that the lab does, with API servers and kubectl."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession, CookieJar

from tests.testkit.console import Page
from tests.testkit.lab import KubernetesLab

pytestmark = pytest.mark.timeout(240)

WEST, EAST = "us-west-1", "us-east-1"
EXAMPLE = Path(__file__).parents[2] / "clusters" / "examples" / "multi-cluster.yaml"
CALLS = 100


def answers(lab: KubernetesLab, region: str, *options: str) -> dict[str, int]:
    """Who answers calls from ``region``, and how often."""
    shown = lab.fedctl("lab", "call", "--from", region, "-c", str(CALLS), *options).out
    rows = (line.strip().split("  ", 1) for line in shown.splitlines())
    return {who: int(times) for times, who in rows}


def is_split(found: dict[str, int]) -> bool:
    """60 to 40 over both regions, as far as 100 calls tell."""
    west, east = (found.get(f"user-service in {region}", 0) for region in (WEST, EAST))
    return west + east == CALLS and 40 <= west <= 80


def test_the_status_names_api_servers_and_pods(lab: KubernetesLab) -> None:
    status = lab.first_status
    assert status["kubeconfig"] == str(lab.directory / "kubeconfig")
    roles = {process["name"]: process["role"] for process in status["processes"]}
    for region in (WEST, EAST):
        for role in ("kube-etcd", "kube-apiserver", "kube-controller-manager"):
            assert roles[f"{role}-{region}"] == role
        cluster = lab.cluster(region)
        assert cluster["kubernetes"].startswith("127.0.0.1:")
        pods = [endpoint["pod"] for endpoint in cluster["endpoints"]]
        assert len(set(pods)) == len(pods)
        network = ipaddress.ip_network("198.18.0.0/15")
        assert all(ipaddress.ip_address(pod.rpartition(":")[0]) in network for pod in pods)
    contexts = lab.kubectl(WEST, "config", "get-contexts", "-o", "name").out.split()
    assert sorted(contexts) == [EAST, WEST]
    assert f"https://{lab.cluster(WEST)['kubernetes']}" in lab.fedctl("lab", "status").out


def test_endpoint_slices_have_the_pods_addresses(lab: KubernetesLab) -> None:
    selected = ("-n", "app", "-l", "kubernetes.io/service-name=user-service", "-o", "json")
    slices = json.loads(lab.kubectl(WEST, "get", "endpointslices", *selected).out)["items"]
    shown = {
        f"{address}:{entry['ports'][0]['port']}"
        for entry in slices
        for endpoint in entry["endpoints"]
        for address in endpoint["addresses"]
    }
    served = [e for e in lab.cluster(WEST)["endpoints"] if e["service"] == "user-service"]
    assert shown == {endpoint["pod"] for endpoint in served}


def test_a_gateway_is_programmed_and_shows_its_address(lab: KubernetesLab) -> None:
    for region in (WEST, EAST):

        def row(region: str = region) -> list[str]:
            return lab.kubectl(region, "get", "gateway", "-n", "infra").out.splitlines()[1].split()

        lab.wait(lambda row=row: "True" in row(), timeout_s=30, what=lambda row=row: str(row()))
        name, class_name, address, programmed, _ = row()
        assert (name, class_name, programmed) == ("grpc-gateway", "istio", "True")
        assert address == "127.0.0.1"


def test_one_name_over_both_clusters_and_every_fault(lab: KubernetesLab) -> None:
    for region in (WEST, EAST):
        lab.kubectl(region, "apply", "-f", str(EXAMPLE))
    lab.wait(
        lambda: is_split(answers(lab, WEST)) and is_split(answers(lab, EAST)),
        timeout_s=60,
        what=lambda: f"split: {answers(lab, WEST)} {answers(lab, EAST)}",
    )
    only_west = {f"user-service in {WEST}": CALLS}

    killed = lab.fedctl("lab", "kill", EAST).err
    assert f"kube-apiserver-{EAST}" in killed
    lab.wait(
        lambda: answers(lab, WEST) == only_west, timeout_s=30, what=lambda: str(answers(lab, WEST))
    )
    lab.fedctl("lab", "restore", EAST)
    lab.wait(
        lambda: is_split(answers(lab, WEST)), timeout_s=60, what=lambda: str(answers(lab, WEST))
    )
    # What was applied before is still on its API server.
    assert "user-service-multi-cluster" in lab.kubectl(EAST, "get", "grpcroute", "-n", "app").out

    lab.fedctl("lab", "partition", EAST)
    lab.wait(
        lambda: answers(lab, WEST) == only_west, timeout_s=30, what=lambda: str(answers(lab, WEST))
    )
    lab.fedctl("lab", "heal")
    lab.wait(
        lambda: is_split(answers(lab, WEST)), timeout_s=60, what=lambda: str(answers(lab, WEST))
    )

    lab.fedctl("drain", EAST, "--over", "1s")
    lab.wait(
        lambda: answers(lab, WEST) == only_west, timeout_s=30, what=lambda: str(answers(lab, WEST))
    )
    lab.fedctl("undrain", EAST)
    lab.wait(
        lambda: is_split(answers(lab, WEST)), timeout_s=60, what=lambda: str(answers(lab, WEST))
    )


def test_traffic_and_statuses_survive_an_api_server(lab: KubernetesLab) -> None:
    lab.kubectl(WEST, "apply", "-f", str(EXAMPLE))
    local = "user-service in us-west-1"
    lab.wait(
        lambda: local in answers(lab, WEST), timeout_s=30, what=lambda: str(answers(lab, WEST))
    )
    lab.fedctl("lab", "kill", f"kube-apiserver-{WEST}")
    assert answers(lab, WEST) == {local: CALLS}
    lab.fedctl("lab", "restore", f"kube-apiserver-{WEST}")
    lab.kubectl(WEST, "delete", "-f", str(EXAMPLE))
    lab.wait(
        lambda: local not in answers(lab, WEST), timeout_s=30, what=lambda: str(answers(lab, WEST))
    )


async def test_calls_are_explained_by_what_api_servers_have(lab: KubernetesLab) -> None:
    for region in (WEST, EAST):
        lab.kubectl(region, "apply", "-f", str(EXAMPLE))
    lab.wait(
        lambda: is_split(answers(lab, WEST)), timeout_s=60, what=lambda: str(answers(lab, WEST))
    )
    host, method = "grpc.example.com", "com.example.api.UserService/GetUser"
    typed = ("trace", f"--from={WEST}", f"--host={host}", f"--method={method}", "-o", "json")

    def traced(*more: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(lab.fedctl(*typed, *more).out)
        return told

    told = traced()
    percents = {
        it["upstream"].split("/")[4].partition("@")[0]: it["percent"] for it in told["destinations"]
    }
    assert percents == {WEST: 60, EAST: 40}
    named = (f"--kubeconfig={lab.directory / 'kubeconfig'}", f"--context={WEST}={WEST}")
    assert traced(*named) == told

    console = lab.first_status["console"].rstrip("/")
    asked = {"cluster": WEST, "host": host, "method": method}
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        page = Page(console, session)
        await page.open()
        tested = (await page.send("POST", "/api/routes/test", asked)).json
        assert tested["rule"] == told["rule"], tested
        shares = {it["cluster"]: it["sharePpm"] for it in tested["destinations"]}
        assert shares == {WEST: 600_000, EAST: 400_000}
        # The page follows the objects: a route that goes is gone there.
        lab.kubectl(WEST, "delete", "grpcroute", "user-service-multi-cluster", "-n", "app")
        await page.until(
            f"/api/routes?cluster={WEST}",
            lambda now: told["rule"] not in [it["rule"] for it in now["rules"]],
        )
    assert "nothing takes it" in traced()["outcome"]


def test_an_api_server_that_cannot_be_read_is_told(lab: KubernetesLab, tmp_path: Path) -> None:
    typed = ("trace", f"--from={WEST}", "--host=grpc.example.com", "--method=a.B/C")
    nobody = tmp_path / "nobody"
    nobody.write_text("{}")
    refused = lab.fedctl(*typed, f"--kubeconfig={nobody}", f"--context={WEST}=gone", check=False)
    assert refused.code not in (0, 2), refused
    assert "reading credentials for Kubernetes" in refused.err

    config = yaml.safe_load((lab.directory / "kubeconfig").read_text())
    for user in config["users"]:
        user["user"] = {"token": "stranger"}
    stranger = tmp_path / "stranger"
    stranger.write_text(yaml.safe_dump(config))
    refused = lab.fedctl(*typed, f"--kubeconfig={stranger}", f"--context={WEST}", check=False)
    assert refused.code != 0
    assert "401" in refused.err or "Unauthorized" in refused.err, refused


def test_fedctl_says_that_objects_are_kubectls(lab: KubernetesLab) -> None:
    refused = lab.fedctl("apply", "-f", str(EXAMPLE), check=False)
    assert refused.code == 2
    assert f"use kubectl: export KUBECONFIG={lab.directory / 'kubeconfig'}" in refused.err


def test_the_view_offers_kubectl(lab: KubernetesLab, tmp_path: Path) -> None:
    picture = tmp_path / "view.svg"
    lab.fedctl("lab", "view", "--svg", str(picture))
    text = picture.read_text().replace("&#160;", " ")
    assert f"kubectl --context {WEST} apply -f" in text
