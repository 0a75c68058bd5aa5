"""The manifests that install the federation, as objects: what kustomize makes of ``clusters/``."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.testkit.federation import ROOT

CLUSTERS = ROOT / "clusters"
KIND_CONFIG = ROOT / "kind-config"
REGIONS = ("us-west-1", "us-east-1")

Object = dict[str, Any]


@functools.cache
def kustomized(folder: str) -> str:
    """What ``kubectl kustomize clusters/FOLDER`` prints."""
    program = Path(sys.executable).with_name("kubectl")
    done = subprocess.run(
        [str(program), "kustomize", str(CLUSTERS / folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[Object]:
    """The objects of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(found: Iterable[Object], *kinds: str) -> list[Object]:
    """Those of ``kinds``."""
    return [one for one in found if one["kind"] in kinds]


def workloads(found: Iterable[Object]) -> list[Object]:
    """What runs Pods."""
    return of_kind(found, "Deployment", "StatefulSet")


def pod_of(workload: Object) -> Object:
    """A Pod as the workload's template makes it."""
    template = workload["spec"]["template"]
    metadata = {"name": "tried", "namespace": workload["metadata"]["namespace"]}
    claims = [
        {"name": claim, "persistentVolumeClaim": {"claimName": claim}}
        for entry in workload["spec"].get("volumeClaimTemplates", ())
        for claim in [entry["metadata"]["name"]]
    ]
    spec = {**template["spec"], "volumes": [*template["spec"].get("volumes", ()), *claims]}
    metadata = {**template["metadata"], **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def containers(found: Iterable[Object]) -> Iterator[tuple[Object, Object]]:
    """Each container with the workload that it is of."""
    for workload in workloads(found):
        for container in workload["spec"]["template"]["spec"]["containers"]:
            yield workload, container
