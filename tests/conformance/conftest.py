"""The programs and the rigs that the conformance tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import backends, programs
from tests.conformance.programs import Programs
from tests.conformance.rig import Rig, running_rig


@pytest.fixture(scope="session")
def built_programs() -> Programs:
    """The programs written in Go, if they were built."""
    made = programs.built()
    if made is None:
        pytest.skip("programs in Go are not built: `make conformance` builds them once")
    return made


@pytest.fixture(scope="session")
def go_rig(built_programs: Programs) -> Iterator[Rig]:
    """The gateway before grpc-go's interop server."""
    with running_rig(backends.grpc_go(built_programs)) as rig:
        yield rig


@pytest.fixture(scope="session")
def reflecting_rig(built_programs: Programs) -> Iterator[Rig]:
    """The gateway before grpc-go's interop service with reflection."""
    with running_rig(backends.reflecting(built_programs)) as rig:
        yield rig


@pytest.fixture(scope="session")
def answering_rig(built_programs: Programs) -> Iterator[Rig]:
    """The gateway before a server that answers everything."""
    with running_rig(backends.answering_all(built_programs)) as rig:
        yield rig


@pytest.fixture(scope="session")
def grpcio_rig(built_programs: Programs) -> Iterator[Rig]:
    """The gateway before grpcio's asyncio server."""
    with backends.descriptors(built_programs) as file, running_rig(backends.grpcio(file)) as rig:
        yield rig
