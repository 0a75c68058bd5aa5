"""``make conformance``: build, run everything, print it and renew ``docs/conformance.md``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conformance import (
    backends,
    clients,
    grpcio_client,
    h2spec,
    interop,
    programs,
    report,
    servers,
)
from tests.conformance.differential import run as differential
from tests.conformance.programs import Programs
from tests.conformance.results import Result, Transport
from tests.conformance.rig import Rig, running_rig
from tests.testkit.envoy import ENVOY
from tests.testkit.processes import ROOT

PAGE = ROOT / "docs" / "conformance.md"
DIFFERENTIAL_SEEDS = range(40)


def main() -> int:
    """The exit code: 0 when every case passed, or when Go is missing and that was said."""
    try:
        built = programs.build()
    except programs.NoGoError as reason:
        print(f"make conformance: skipped: {reason}", file=sys.stderr)
        return 0
    results = []
    for result in _all(built):
        passed = f"{result.passed:4} of {len(result.cases)}"
        print(f"{result.suite:38} {result.transport.value:6} {passed}", flush=True)
        for case in result.failed:
            print(f"  failed: {case.name}: {case.fault}")
        results.append(result)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(report.text(results, _missing(built)))
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 1 if any(result.failed for result in results) else 0


def _all(built: Programs) -> Iterator[Result]:
    with backends.descriptors(built) as descriptors:
        with running_rig(backends.answering_all(built)) as rig:
            yield from (h2spec.run_routed(built, rig, transport) for transport in Transport)
        with running_rig(backends.grpc_go(built)) as rig:
            yield from (h2spec.run(built, rig, transport) for transport in Transport)
            cases = interop.CASES + interop.ORCA_CASES
            yield from _interop(built, rig, cases, descriptors, server="grpc-go")
        with running_rig(backends.grpcio(descriptors)) as rig:
            yield from _interop(built, rig, interop.CASES, descriptors, server="grpcio")
        with running_rig(backends.reflecting(built)) as rig:
            yield from (clients.run(built, rig, transport) for transport in Transport)
    yield from (servers.run(built, name) for name in servers.present(built))
    if ENVOY is not None:
        with tempfile.TemporaryDirectory() as folder:
            yield asyncio.run(differential.run(Path(folder), DIFFERENTIAL_SEEDS)).result()


def _missing(built: Programs) -> list[str]:
    absent_servers = set(servers.SERVERS).difference(servers.present(built))
    absent_envoy = ["Envoy"] if ENVOY is None else []
    return [*clients.missing(), *sorted(absent_servers), *absent_envoy]


def _interop(
    built: Programs, rig: Rig, cases: tuple[str, ...], descriptors: Path, *, server: str
) -> Iterator[Result]:
    for transport in Transport:
        yield interop.run(built, rig, transport, cases=cases, server=server)
        yield asyncio.run(grpcio_client.run(rig, transport, descriptors=descriptors, server=server))


if __name__ == "__main__":
    sys.exit(main())
