"""HTTP/2 servers of several makers as the gateway's backends."""

from __future__ import annotations

import pytest

from tests.conformance import servers
from tests.conformance.programs import Programs


@pytest.mark.parametrize("name", servers.SERVERS)
@pytest.mark.timeout(120)
def test_server(built_programs: Programs, name: str) -> None:
    if name not in servers.present(built_programs):
        pytest.skip(f"{name} is not installed")
    result = servers.run(built_programs, name)
    assert result.failed == ()
    assert result.passed == len(servers.cases())
