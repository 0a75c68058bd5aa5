"""Everyday HTTP/2 clients on the gateway: grpcurl, ghz, curl, nghttp, h2load and Go's net/http.

The backend is grpc-go's interop service with reflection. A client that is not installed is left
out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.backends import EMPTY_CALL, SERVICE
from tests.conformance.programs import Programs
from tests.conformance.results import Case, Result, Transport
from tests.conformance.rig import SERVER_NAME, Rig
from tests.testkit.processes import HOST

TIMEOUT_S = 30
EMPTY_MESSAGE = bytes(5)
GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")


@dataclass(frozen=True, slots=True)
class Ways:
    """How clients reach the gateway, and where they find what they send."""

    programs: Programs
    rig: Rig
    transport: Transport
    message: Path
    """A file with one empty gRPC message."""

    @property
    def is_tls(self) -> bool:
        return self.transport is Transport.TLS

    @property
    def authority(self) -> str:
        """Host and port; the certificate is good for the host."""
        return f"{SERVER_NAME if self.is_tls else HOST}:{self.rig.port(self.transport)}"

    def url(self, path: str) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{path}"


def grpcurl_list(ways: Ways) -> None:
    services = _grpcurl(ways, [], ["list"]).split()
    assert SERVICE in services, services


def grpcurl_describe(ways: Ways) -> None:
    text = _grpcurl(ways, [], ["describe", SERVICE])
    assert "rpc StreamingOutputCall" in text, text


def grpcurl_unary(ways: Ways) -> None:
    asked = {"responseSize": 3, "payload": {"body": "AAAA"}}
    text = _grpcurl(ways, ["-d", json.dumps(asked)], [f"{SERVICE}/UnaryCall"])
    assert json.loads(text) == {"payload": {"body": "AAAA"}}, text


def grpcurl_stream(ways: Ways) -> None:
    asked = {"responseParameters": [{"size": 1}, {"size": 2}]}
    text = _grpcurl(ways, ["-d", json.dumps(asked)], [f"{SERVICE}/StreamingOutputCall"])
    assert text.count('"body"') == 2, text


def grpcurl_status(ways: Ways) -> None:
    asked = {"responseStatus": {"code": 9, "message": "not now"}}
    text = _grpcurl(ways, ["-d", json.dumps(asked)], [f"{SERVICE}/UnaryCall"], status=64 + 9)
    assert "Code: FailedPrecondition\n  Message: not now" in text, text


def ghz_unary(ways: Ways) -> None:
    asked = {"responseSize": 10, "payload": {"body": "AAAA"}}
    report = _ghz(ways, "UnaryCall", asked, ["--total=500", "--connections=4", "--concurrency=20"])
    assert report["statusCodeDistribution"] == {"OK": 500}, report["statusCodeDistribution"]


def ghz_stream(ways: Ways) -> None:
    asked = {"responseParameters": [{"size": 1}, {"size": 40_000}]}
    report = _ghz(ways, "StreamingOutputCall", asked, ["--total=100", "--concurrency=10"])
    assert report["statusCodeDistribution"] == {"OK": 100}, report["statusCodeDistribution"]


def nethttp_call(ways: Ways) -> None:
    answer = _nethttp(ways, "application/grpc")
    assert answer["proto"] == "HTTP/2.0", answer
    assert answer["status"] == 200, answer
    assert answer["trailer"]["Grpc-Status"] == ["0"], answer


def nethttp_other_content_type(ways: Ways) -> None:
    answer = _nethttp(ways, "application/json")
    assert answer["status"] == 415, answer


def curl_call(ways: Ways) -> None:
    text = _curl(ways, *_headers(), "--data-binary", f"@{ways.message}", ways.url(EMPTY_CALL))
    assert text.startswith("HTTP/2 200"), text
    assert "grpc-status: 0" in text, text


def curl_no_grpc(ways: Ways) -> None:
    text = _curl(ways, ways.url("/"))
    assert text.startswith("HTTP/2 415"), text
    assert "the rule that matches takes gRPC only" in text, text


def curl_http1(ways: Ways) -> None:
    text = _curl(ways, "--http1.1", *_headers(), "--data", "", ways.url(EMPTY_CALL))
    assert text.startswith("HTTP/1.1 505"), text
    assert "HTTP/2 required" in text, text


def nghttp_call(ways: Ways) -> None:
    command = ["nghttp", "--verbose", "--no-verify-peer", f"--data={ways.message}"]
    text = _run([*command, *_headers(), ways.url(EMPTY_CALL)])
    assert ":status: 200" in text, text
    assert "grpc-status: 0" in text, text


def h2load_calls(ways: Ways) -> None:
    command = ["h2load", "--requests=500", "--clients=5", "--max-concurrent-streams=10"]
    text = _run([*command, f"--data={ways.message}", *_headers(), ways.url(EMPTY_CALL)])
    assert "500 succeeded, 0 failed, 0 errored, 0 timeout" in text, text


CASES: tuple[Callable[[Ways], None], ...] = (
    grpcurl_list,
    grpcurl_describe,
    grpcurl_unary,
    grpcurl_stream,
    grpcurl_status,
    ghz_unary,
    ghz_stream,
    nethttp_call,
    nethttp_other_content_type,
    curl_call,
    curl_no_grpc,
    curl_http1,
    nghttp_call,
    h2load_calls,
)
"""The first word of each is its client."""

INSTALLED_APART = ("curl", "nghttp", "h2load")


def missing() -> tuple[str, ...]:
    """Clients of the machine that are not installed."""
    return tuple(name for name in INSTALLED_APART if shutil.which(name) is None)


def present_cases() -> tuple[Callable[[Ways], None], ...]:
    """The cases whose clients there are."""
    absent = missing()
    return tuple(case for case in CASES if case.__name__.partition("_")[0] not in absent)


def run(programs: Programs, rig: Rig, transport: Transport) -> Result:
    """Every case whose client there is."""
    with tempfile.TemporaryDirectory() as directory:
        message = Path(directory) / "message"
        message.write_bytes(EMPTY_MESSAGE)
        ways = Ways(programs, rig, transport, message)
        done = tuple(Case(case.__name__, _fault(case, ways)) for case in present_cases())
    return Result("everyday clients", transport, done)


def _fault(case: Callable[[Ways], None], ways: Ways) -> str | None:
    try:
        case(ways)
    except (AssertionError, subprocess.TimeoutExpired) as fault:
        return str(fault)[-500:]
    return None


def _run(command: list[str], *, status: int = 0) -> str:
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    said = ended.stdout + ended.stderr
    assert ended.returncode == status, f"{command[0]} ended with {ended.returncode}: {said}"
    return said


def _grpcurl(ways: Ways, options: list[str], question: list[str], *, status: int = 0) -> str:
    security = ["-cacert", str(ways.rig.authority)] if ways.is_tls else ["-plaintext"]
    command = [str(ways.programs.grpcurl), *security, *options, ways.authority, *question]
    return _run(command, status=status)


def _ghz(ways: Ways, method: str, asked: dict[str, object], options: list[str]) -> dict[str, Any]:
    security = [f"--cacert={ways.rig.authority}"] if ways.is_tls else ["--insecure"]
    command = [str(ways.programs.ghz), *security, *options, "--format=json"]
    command += [f"--call={SERVICE}.{method}", f"--data={json.dumps(asked)}", ways.authority]
    report: dict[str, Any] = json.loads(_run(command))
    return report


def _nethttp(ways: Ways, content_type: str) -> dict[str, Any]:
    command = [str(ways.programs.nethttp), f"-url={ways.url(EMPTY_CALL)}"]
    command += [f"-content-type={content_type}"]
    command += [f"-ca={ways.rig.authority}"] if ways.is_tls else []
    answer: dict[str, Any] = json.loads(_run(command))
    return answer


def _curl(ways: Ways, *arguments: str) -> str:
    """Headers, body and trailers as curl shows them."""
    http2 = "--http2" if ways.is_tls else "--http2-prior-knowledge"
    command = ["curl", "--silent", "--show-error", "--include", "--output", "-", http2]
    command += ["--cacert", str(ways.rig.authority)] if ways.is_tls else []
    return _run([*command, *arguments])


def _headers() -> list[str]:
    return [word for header in GRPC_HEADERS for word in ("--header", header)]
