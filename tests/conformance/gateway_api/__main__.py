"""``python -m tests.conformance.gateway_api``: run the suite, renew the report.

Builds outside, where modules can be fetched, and runs in a network namespace of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from tests.conformance.gateway_api import programs, suite
from tests.conformance.gateway_api.cluster import running_cluster
from tests.conformance.gateway_api.page import REPORT
from tests.testkit import namespace
from tests.testkit.processes import ROOT


def main() -> int:
    """The exit code: 0 when all passed, or when it cannot run here and that was said."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.gateway_api")
    parser.add_argument("--only", default="", help="regular expression of tests; no report then")
    parser.add_argument("--logs", type=Path, help="folder to keep logs in")
    asked = parser.parse_args()
    if not namespace.inside():
        return _outside()
    with tempfile.TemporaryDirectory(prefix="gateway-api-") as made:
        logs = (asked.logs or Path(made)).absolute()
        logs.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with running_cluster(logs) as cluster:
            outcome = suite.run(cluster, only=asked.only)
        return _tell(outcome, logs, seconds=time.monotonic() - began, whole=not asked.only)


def _outside() -> int:
    """Build, then run this command inside a namespace."""
    try:
        programs.GATEWAY_API.build()
    except NoProgramsError as error:
        print(f"Gateway API conformance: skipped: {error}", file=sys.stderr)
        return 0
    again = [sys.executable, "-m", "tests.testkit.namespace", sys.executable, "-m"]
    again += ["tests.conformance.gateway_api", *sys.argv[1:]]
    return subprocess.call(again)


def _tell(outcome: suite.Outcome, logs: Path, *, seconds: float, whole: bool) -> int:
    passed = f"{len(outcome.passed)} passed, {len(outcome.failed)} failed"
    print(f"Gateway API {programs.VERSION}: {passed} in {seconds:.0f} s")
    for name in outcome.failed:
        print(f"  failed: {name}")
    if outcome.exit_code != 0:
        print((logs / "suite.log").read_text()[-6000:])
    if whole and outcome.report:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(outcome.report)
        print(f"written: {REPORT.relative_to(ROOT)}")
    return 0 if outcome.exit_code == 0 and outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())
