"""One run of the suite and what came out of it.

Decides: the profiles, how the implementation is named, which line of the output means what.
Leaves to others: what is claimed (``status.supportedFeatures`` of the GatewayClass, which the suite
reads itself), the cluster.
Invariants: no test is skipped by us; a run without a verdict for a test counts as failed.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from tests.conformance.gateway_api import programs
from tests.conformance.gateway_api.cluster import GATEWAY_CLASS
from tests.testkit.gateway_cluster import GatewayCluster

PROFILES = ("GATEWAY-GRPC", "GATEWAY-HTTP")
IMPLEMENTATION = {
    "organization": "grpc-federation",
    "project": "grpc-federation",
    "url": "https://federation.dev",
    "contact": "CONTRIBUTING.md of the project",
}
USABLE_ADDRESS = "10.77.200.250"
"""Among those that podrunner gives to LoadBalancer Services, and far from the first ones."""
UNUSABLE_ADDRESS = "192.0.2.1"
"""Nobody's here."""

PATIENCE_S = {"GetTimeout": 60, "DeleteTimeout": 60}
"""How long the API server may take, which is not what is judged; the suite sets no maximum."""
TIMEOUT_S = 1500
_NAME = "TestGatewayAPI"
_VERDICT = re.compile(rf"^ +--- (PASS|FAIL|SKIP): {_NAME}/(\w+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the suite said: ``tests`` are the verdicts by name, ``report`` is what it wrote."""

    exit_code: int
    tests: Mapping[str, str]
    report: str

    @property
    def failed(self) -> list[str]:
        """Names of the tests that did not pass."""
        return sorted(name for name, verdict in self.tests.items() if verdict == "FAIL")

    @property
    def passed(self) -> list[str]:
        """Names of the tests that passed."""
        return sorted(name for name, verdict in self.tests.items() if verdict == "PASS")


def run(cluster: GatewayCluster, *, only: str = "") -> Outcome:
    """Run the suite, or the tests whose names fit the regular expression ``only``."""
    report = cluster.directory / "report.yaml"
    command = [
        *(str(programs.suite()), "-test.v", f"-test.timeout={TIMEOUT_S}s"),
        *(f"-test.run=^{_NAME}$/{only}", f"-gateway-class={GATEWAY_CLASS}"),
        *(f"-conformance-profiles={','.join(PROFILES)}", f"-report-output={report}"),
        *(f"-version=v{version('grpc-federation')}", "-cleanup-base-resources=false"),
        *(f"-usable-address={USABLE_ADDRESS}", f"-unusable-address={UNUSABLE_ADDRESS}"),
        f"-timeout-config-overrides={';'.join(f'{name}:{s}' for name, s in PATIENCE_S.items())}",
        *(f"-{name}={value}" for name, value in IMPLEMENTATION.items()),
    ]
    log = cluster.directory / "suite.log"
    with log.open("wb") as output:
        done = subprocess.run(
            command,
            stdout=output,
            stderr=output,
            check=False,
            cwd=cluster.directory,
            env=os.environ | {"KUBECONFIG": str(cluster.kubernetes.kubeconfig)},
        )
    return Outcome(
        exit_code=done.returncode,
        tests={name: verdict for verdict, name in _VERDICT.findall(log.read_text())},
        report=report.read_text() if report.exists() else "",
    )
