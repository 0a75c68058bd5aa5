"""h2spec: 145 cases of RFC 9113 and RFC 7541 against the gateway's listeners.

Its requests are plain GETs and POSTs without a content type, so it is the gateway itself that
answers them (415); the suite is about frames, states and windows, not about what is answered.
"""

from __future__ import annotations

import subprocess
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.conformance.programs import Programs
from tests.conformance.results import Case, Result, Transport
from tests.conformance.rig import HOST, Rig

CASES = 145
TIMEOUT_S = 300


def run(programs: Programs, rig: Rig, transport: Transport) -> Result:
    """All cases; a skipped case counts as failed."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [str(programs.h2spec), "-h", HOST, "-p", str(rig.port(transport))]
        command += ["--timeout=5", f"--junit-report={report}"]
        if transport is Transport.TLS:
            command += ["--tls", "--insecure"]
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        if not report.exists():
            raise RuntimeError(f"h2spec made no report: {ended.stdout}{ended.stderr}")
        return Result("h2spec", transport, cases_of(report.read_text()))


def cases_of(report: str) -> tuple[Case, ...]:
    """The cases of a JUnit report."""
    return tuple(
        Case(
            f"{case.get('package')}: {case.get('classname')}",
            next((f"{child.tag}: {child.text}" for child in case if child.tag in FAULTS), None),
        )
        for case in ET.fromstring(report).iter("testcase")
    )


FAULTS = frozenset({"failure", "error", "skipped"})
