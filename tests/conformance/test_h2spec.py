"""h2spec 2.2.1: RFC 9113 and RFC 7541, every case, on both listeners."""

from __future__ import annotations

import pytest

from tests.conformance import h2spec
from tests.conformance.programs import Programs
from tests.conformance.results import Transport
from tests.conformance.rig import Rig


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.timeout(120)
def test_every_case(built_programs: Programs, go_rig: Rig, transport: Transport) -> None:
    result = h2spec.run(built_programs, go_rig, transport)
    assert result.failed == ()
    assert result.passed == h2spec.CASES
