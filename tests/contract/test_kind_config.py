"""The configurations of the kind clusters, read by kind's own code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from federation.cli.lab.kubernetes.go_programs import GoPrograms, NoProgramsError
from tests.testkit.manifests import KIND_CONFIG, REGIONS, kustomized, objects, of_kind

pytestmark = pytest.mark.timeout(600)

KINDCHECK = GoPrograms(
    module=Path(__file__).parent / "go" / "kind",
    name="kind",
    packages=(".", "sigs.k8s.io/kind"),
    environment=(("CGO_ENABLED", "0"),),
)


def program() -> str:
    try:
        return str(KINDCHECK.build() / "federation-tests")
    except NoProgramsError as error:
        pytest.skip(str(error))


def read(region: str) -> dict[str, Any]:
    """The configuration of a region's cluster as kind understands it."""
    path = str(KIND_CONFIG / f"{region}.yaml")
    done = subprocess.run([program(), path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found[path]


@pytest.mark.parametrize("region", REGIONS)
def test_nodes_tell_region_and_zone(region: str) -> None:
    nodes = read(region)["Nodes"]
    assert {node["Labels"]["topology.kubernetes.io/region"] for node in nodes} == {region}
    workers = [node for node in nodes if node["Role"] == "worker"]
    zones = {node["Labels"]["topology.kubernetes.io/zone"] for node in workers}
    assert zones == {f"{region}a", f"{region}b"}


@pytest.mark.parametrize("region", REGIONS)
def test_what_is_mapped_is_a_port_of_a_service(region: str) -> None:
    services = of_kind(objects(kustomized(f"kind/{region}")), "Service")
    named = {
        port["nodePort"]: (service["metadata"]["name"], port["name"])
        for service in services
        for port in service["spec"]["ports"]
        if "nodePort" in port
    }
    mapped = [entry for node in read(region)["Nodes"] for entry in node["ExtraPortMappings"]]
    found = {named[entry["ContainerPort"]] for entry in mapped}
    etcd = {("federation-etcd", "client")} if region == "us-west-1" else set()
    assert found == {("federation-gateway", "https"), *etcd}
    assert {entry["ListenAddress"] for entry in mapped} == {"127.0.0.1"}


def test_the_regions_share_nothing_that_must_be_of_one() -> None:
    west, east = (read(region) for region in REGIONS)
    for of in ("PodSubnet", "ServiceSubnet"):
        assert west["Networking"][of] != east["Networking"][of]
    assert west["Name"] != east["Name"]
    ports = [
        entry["HostPort"]
        for cluster in (west, east)
        for node in cluster["Nodes"]
        for entry in node["ExtraPortMappings"]
    ]
    assert len(ports) == len(set(ports)) == 3


def test_kind_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.yaml"
    text = (KIND_CONFIG / "us-east-1.yaml").read_text()
    spoilt.write_text(text.replace("extraPortMappings", "extraPorts"))
    done = subprocess.run([program(), str(spoilt)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "extraPorts not found" in done.stderr
