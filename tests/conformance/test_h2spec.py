"""h2spec 2.2.1: RFC 9113 and RFC 7541, every case, on both listeners."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.conformance import h2spec
from tests.conformance.programs import Programs
from tests.conformance.results import Transport
from tests.conformance.rig import Rig
from tests.testkit.processes import HOST


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.timeout(120)
def test_every_case(built_programs: Programs, go_rig: Rig, transport: Transport) -> None:
    result = h2spec.run(built_programs, go_rig, transport)
    assert result.failed == ()
    assert result.passed == h2spec.CASES


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.timeout(120)
def test_every_case_on_requests_that_are_routed(
    built_programs: Programs, answering_rig: Rig, transport: Transport
) -> None:
    result = h2spec.run_routed(built_programs, answering_rig, transport)
    assert result.failed == ()
    assert result.passed == h2spec.CASES


@pytest.mark.parametrize("transport", Transport)
def test_the_relay_makes_requests_of_grpc(
    built_programs: Programs, answering_rig: Rig, transport: Transport
) -> None:
    with h2spec.relay(built_programs, answering_rig, transport) as port:
        command = [str(built_programs.nethttp), "-content-type=", f"-url=http://{HOST}:{port}/a"]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert answer["status"] == 200
    assert answer["trailer"] == {"Grpc-Status": ["0"]}
