"""The servers behind the gateway, most of them of grpc.testing.TestService."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.programs import Programs
from tests.conformance.rig import BackendCommand
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running

SERVICE = "grpc.testing.TestService"
EMPTY_CALL = f"/{SERVICE}/EmptyCall"


def grpc_go(programs: Programs) -> BackendCommand:
    """grpc-go's interop server as it is published."""
    return lambda port: [str(programs.interop_server), f"--port={port}"]


def reflecting(programs: Programs) -> BackendCommand:
    """The same service with server reflection."""
    return lambda port: [str(programs.testserver), f"--address={HOST}:{port}"]


def answering_all(programs: Programs) -> BackendCommand:
    """Answers every path and method by gRPC; no TestService."""
    return lambda port: [str(programs.anyserver), f"-address={HOST}:{port}"]


def grpcio(descriptors: Path) -> BackendCommand:
    """grpcio's asyncio server."""
    module = "tests.conformance.grpcio_server"
    return lambda port: [sys.executable, "-m", module, f"{HOST}:{port}", str(descriptors)]


@contextlib.contextmanager
def descriptors(programs: Programs) -> Iterator[Path]:
    """A file with the descriptors of the service, as grpc-go's server tells them by reflection."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "descriptors"
        command = reflecting(programs)(port)
        with running(command, (port,), Path(directory) / "server.log"):
            ask = [str(programs.grpcurl), "-plaintext", "-protoset-out", str(file)]
            ask += [f"{HOST}:{port}", "describe", SERVICE]
            subprocess.run(ask, check=True, capture_output=True, timeout=30)
        yield file
