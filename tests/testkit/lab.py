"""The lab as tests drive it: through ``fedctl`` alone, as a user or a script would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.testkit.federation import conditions

FEDCTL = Path(sys.executable).with_name("fedctl")


@dataclass(frozen=True, slots=True)
class Result:
    """How one ``fedctl`` call ended."""

    code: int
    out: str
    err: str


class Lab:
    """A lab in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fedctl(self, *arguments: str, check: bool = True, timeout_s: float = 120.0) -> Result:
        """Run ``fedctl``; with ``check`` a non-zero exit fails the test with what it printed."""
        done = subprocess.run(
            [str(FEDCTL), *arguments],
            env=os.environ | {"FEDERATION_LAB_DIR": str(self.directory)},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if check and result.code != 0:
            raise AssertionError(
                f"fedctl {' '.join(arguments)} exited {result.code}\n{result.out}\n{result.err}"
            )
        return result

    def status(self) -> dict[str, Any]:
        found = json.loads(self.fedctl("lab", "status", "-o", "json").out)
        assert isinstance(found, dict)
        return found

    def cluster(self, name: str) -> dict[str, Any]:
        return next(c for c in self.status()["clusters"] if c["name"] == name)

    @cached_property
    def first_status(self) -> dict[str, Any]:
        """The status when first asked for: names, addresses and paths in it never change."""
        return self.status()

    def gateways(self, cluster: str) -> list[dict[str, Any]]:
        """The gateways of ``cluster``; their pids are those of the start."""
        found: list[dict[str, Any]] = next(
            c["gateways"] for c in self.first_status["clusters"] if c["name"] == cluster
        )
        return found

    def gateway(self, cluster: str, number: int = 0) -> str:
        """Where the ``grpc`` listener of a gateway of ``cluster`` is."""
        return str(self.gateways(cluster)[number]["listeners"]["grpc"])

    def admin(self, cluster: str, number: int = 0) -> str:
        """Where the admin endpoint of a gateway of ``cluster`` is, for ``ask``."""
        return str(self.gateways(cluster)[number]["admin"])

    def ca(self) -> bytes:
        return Path(self.first_status["ca"]).read_bytes()

    def pids(self, role: str) -> dict[str, int]:
        """Live processes of a role, by name."""
        return {
            p["name"]: p["pid"]
            for p in self.status()["processes"]
            if p["role"] == role and p["alive"]
        }

    def federation(self) -> dict[str, Any]:
        """``fedctl status -o json``."""
        found = json.loads(self.fedctl("status", "-o", "json").out)
        assert isinstance(found, dict)
        return found

    def wait(
        self, condition: Callable[[], bool], *, timeout_s: float, what: str | Callable[[], str]
    ) -> float:
        """Poll ``condition`` until it holds; returns how long it took. Fails saying ``what``."""
        started = time.monotonic()
        while True:
            if condition():
                return time.monotonic() - started
            if time.monotonic() - started > timeout_s:
                missed = what if isinstance(what, str) else what()
                raise AssertionError(f"{missed}: not within {timeout_s} s")
            time.sleep(0.1)


def ask(admin: str, path: str) -> Any:
    """The JSON that the admin endpoint at ``admin`` answers, whatever its HTTP status."""
    try:
        with urllib.request.urlopen(f"http://{admin}{path}", timeout=5.0) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as answer:
        return json.load(answer)


KUBECTL = Path(sys.executable).with_name("kubectl")


class KubernetesLab(Lab):
    """A lab whose regions have API servers."""

    def kubectl(
        self, region: str, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> Result:
        """Run ``kubectl`` against a region; with ``check`` a failure fails the test."""
        config = ("--kubeconfig", str(self.directory / "kubeconfig"), "--context", region)
        done = subprocess.run(
            [str(KUBECTL), *config, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if check and result.code != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}\n{result.out}\n{result.err}")
        return result

    def object(self, region: str, kind: str, name: str, namespace: str = "app") -> dict[str, Any]:
        """One object as the API server has it; empty when there is none."""
        shown = self.kubectl(
            *(region, "get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        )
        found = json.loads(shown.out or "{}")
        assert isinstance(found, dict)
        return found

    def conditions(
        self, region: str, kind: str, name: str, at: str = "", namespace: str = "app"
    ) -> dict[str, str]:
        """An object's conditions as ``tests.testkit.federation.conditions`` tells them."""
        return conditions(self.object(region, kind, name, namespace).get("status", {}), at)

    def clear(self) -> None:
        """Delete what tests applied, and make the Gateway that the lab began with whole."""
        kinds = "grpcroutes,httproutes,backendtrafficpolicies,multiclusterservices"
        imports = "serviceimports.gateway.networking.k8s.io"
        for cluster in self.first_status["clusters"]:
            region = cluster["name"]
            self.kubectl(region, "delete", f"{kinds},{imports}", "--all", "-n", "app")
            others = self.kubectl(region, "get", "gateways", "-n", "infra", "-o", "name").out
            for other in others.split():
                if not other.endswith("/grpc-gateway"):
                    self.kubectl(region, "delete", other, "-n", "infra")
