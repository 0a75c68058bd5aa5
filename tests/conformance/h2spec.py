"""h2spec: 145 cases of RFC 9113 and RFC 7541 against the gateway's listeners.

Its requests are plain GETs and POSTs without a content type, so it is the gateway itself that
answers them (415). ``run_routed`` puts a relay between that adds the content type, so that the same
requests are routed to a backend.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.programs import Programs
from tests.conformance.results import Case, Result, Transport
from tests.conformance.rig import Rig
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running

CASES = 145
TIMEOUT_S = 300
FAULTS = frozenset({"failure", "error", "skipped"})


def run(programs: Programs, rig: Rig, transport: Transport) -> Result:
    """All cases against a listener; a skipped case counts as failed."""
    options = ["--tls", "--insecure"] if transport is Transport.TLS else []
    return Result("h2spec", transport, _cases(programs, rig.port(transport), options))


def run_routed(programs: Programs, rig: Rig, transport: Transport) -> Result:
    """All cases, with requests that reach the rig's backend."""
    with relay(programs, rig, transport) as port:
        return Result("h2spec, routed", transport, _cases(programs, port, []))


@contextlib.contextmanager
def relay(programs: Programs, rig: Rig, transport: Transport) -> Iterator[int]:
    """A port in plain text from which every request reaches the gateway as one of gRPC."""
    port = free_port()
    command = [str(programs.asgrpc), f"-address={HOST}:{port}"]
    command += [f"-gateway={HOST}:{rig.port(transport)}"]
    command += ["-tls"] if transport is Transport.TLS else []
    with (
        tempfile.TemporaryDirectory() as directory,
        running(command, (port,), Path(directory) / "relay.log"),
    ):
        yield port


def _cases(programs: Programs, port: int, options: list[str]) -> tuple[Case, ...]:
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [str(programs.h2spec), "-h", HOST, "-p", str(port), *options]
        command += ["--timeout=5", f"--junit-report={report}"]
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        if not report.exists():
            raise RuntimeError(f"h2spec made no report: {ended.stdout}{ended.stderr}")
        return _cases_of(report.read_text())


def _cases_of(report: str) -> tuple[Case, ...]:
    """The cases of a JUnit report."""
    return tuple(
        Case(
            f"{case.get('package')}: {case.get('classname')}",
            next((f"{child.tag}: {child.text}" for child in case if child.tag in FAULTS), None),
        )
        for case in ET.fromstring(report).iter("testcase")
    )
