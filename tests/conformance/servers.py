"""HTTP/2 servers of several makers behind the gateway; clients are Go's net/http and h2load.

grpc-go and grpcio are served in ``interop``. A server that is not installed is left out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance import backends
from tests.conformance.backends import EMPTY_CALL
from tests.conformance.programs import Programs
from tests.conformance.results import Case, Result, Transport
from tests.conformance.rig import BackendCommand, running_rig
from tests.testkit.processes import HOST

EMPTY_MESSAGE = bytes(5)
UPLOAD_BYTES = 4 << 20
TIMEOUT_S = 60


@contextmanager
def net_http(programs: Programs) -> Iterator[BackendCommand]:
    """Go's net/http."""
    yield backends.answering_all(programs)


@contextmanager
def hyper(programs: Programs) -> Iterator[BackendCommand]:
    """hyper."""
    yield lambda port: [str(programs.hyper_server), f"{HOST}:{port}"]


@contextmanager
def node(_programs: Programs) -> Iterator[BackendCommand]:
    """Node's http2."""
    script = str(Path(__file__).with_name("node_server.js"))
    yield lambda port: ["node", script, HOST, str(port)]


@contextmanager
def nghttpd(_programs: Programs) -> Iterator[BackendCommand]:
    """nghttp2's server: the message is a file, the status a trailer."""
    with tempfile.TemporaryDirectory() as name:
        page = Path(name) / EMPTY_CALL.removeprefix("/")
        page.parent.mkdir(parents=True)
        page.write_bytes(EMPTY_MESSAGE)
        command = ["nghttpd", "--no-tls", f"--address={HOST}", f"--htdocs={name}"]
        command += ["--trailer=grpc-status: 0", "--no-content-length"]
        yield lambda port: [*command, str(port)]


SERVERS = {"net/http": net_http, "hyper": hyper, "node": node, "nghttpd": nghttpd}
"""By name; for those that are not built for the tests it is the name of the program."""


def present(programs: Programs) -> tuple[str, ...]:
    """The servers there are."""
    built = {"net/http": programs.anyserver, "hyper": programs.hyper_server}
    return tuple(
        name for name in SERVERS if (built[name].exists() if name in built else shutil.which(name))
    )


@dataclass(frozen=True, slots=True)
class Way:
    """How clients reach the gateway."""

    programs: Programs
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}{EMPTY_CALL}"

    def call(self, *, size: int = 0) -> dict[str, Any]:
        """What net/http got for a message of this size."""
        command = [str(self.programs.nethttp), f"-url={self.url}", f"-size={size}"]
        answer: dict[str, Any] = json.loads(_run(command))
        return answer


def unary(way: Way) -> None:
    answer = way.call()
    assert answer["status"] == 200, answer
    assert answer["trailer"] == {"Grpc-Status": ["0"]}, answer


def upload(way: Way) -> None:
    answer = way.call(size=UPLOAD_BYTES)
    assert answer["trailer"] == {"Grpc-Status": ["0"]}, answer


def load(way: Way) -> None:
    with tempfile.NamedTemporaryFile() as message:
        message.write(EMPTY_MESSAGE)
        message.flush()
        command = ["h2load", "--requests=2000", "--clients=5", "--max-concurrent-streams=20"]
        command += ["--header=content-type: application/grpc", f"--data={message.name}"]
        text = _run([*command, way.url])
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in text, text


def cases() -> tuple[Callable[[Way], None], ...]:
    """Those whose clients there are."""
    return (unary, upload, load) if shutil.which("h2load") else (unary, upload)


def run(programs: Programs, name: str) -> Result:
    """The cases with a server of this name, on the plain listener."""
    with SERVERS[name](programs) as command, running_rig(command) as rig:
        way = Way(programs, rig.port(Transport.PLAIN))
        done = tuple(Case(case.__name__, _fault(case, way)) for case in cases())
    return Result(f"{name} server", Transport.PLAIN, done)


def _fault(case: Callable[[Way], None], way: Way) -> str | None:
    try:
        case(way)
    except (AssertionError, subprocess.TimeoutExpired) as fault:
        return str(fault)[-500:]
    return None


def _run(command: list[str]) -> str:
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, f"{command[0]} ended with {ended.returncode}: {said}"
    return said
