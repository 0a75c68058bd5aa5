"""grpcurl, curl, nghttp, h2load and Go's net/http as the gateway's clients."""

from __future__ import annotations

import pytest

from tests.conformance import clients
from tests.conformance.programs import Programs
from tests.conformance.results import Transport
from tests.conformance.rig import Rig


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.timeout(120)
def test_everyday_clients(
    built_programs: Programs, reflecting_rig: Rig, transport: Transport
) -> None:
    result = clients.run(built_programs, reflecting_rig, transport)
    assert result.failed == ()
    assert result.passed == len(clients.present_cases())
