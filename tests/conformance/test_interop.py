"""gRPC interop: every case that makes sense through a proxy, on both listeners."""

from __future__ import annotations

import pytest

from tests.conformance import backends, grpcio_client, interop
from tests.conformance.programs import Programs
from tests.conformance.results import Transport
from tests.conformance.rig import Rig


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.timeout(180)
def test_grpc_go_to_grpc_go(built_programs: Programs, go_rig: Rig, transport: Transport) -> None:
    cases = interop.CASES + interop.ORCA_CASES
    result = interop.run(built_programs, go_rig, transport, cases=cases, server="grpc-go")
    assert result.failed == ()
    assert result.passed == 18


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.timeout(180)
def test_grpc_go_to_grpcio(built_programs: Programs, grpcio_rig: Rig, transport: Transport) -> None:
    result = interop.run(
        built_programs, grpcio_rig, transport, cases=interop.CASES, server="grpcio"
    )
    assert result.failed == ()
    assert result.passed == 16


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.timeout(120)
async def test_grpcio_to_grpc_go(
    built_programs: Programs, go_rig: Rig, transport: Transport
) -> None:
    with backends.descriptors(built_programs) as file:
        result = await grpcio_client.run(go_rig, transport, descriptors=file, server="grpc-go")
    assert result.failed == ()
    assert result.passed == 14


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.timeout(120)
async def test_grpcio_to_grpcio(
    built_programs: Programs, grpcio_rig: Rig, transport: Transport
) -> None:
    with backends.descriptors(built_programs) as file:
        result = await grpcio_client.run(grpcio_rig, transport, descriptors=file, server="grpcio")
    assert result.failed == ()
    assert result.passed == 14
