"""CoreDNS as a cluster runs it, built from ``tests/kubernetes/coredns``: Pods ask it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from federation.cli.lab.kubernetes.go_programs import GoPrograms
from tests.testkit.federation import ROOT, Process

COREDNS = GoPrograms(
    module=Path(__file__).parents[1] / "kubernetes" / "coredns",
    name="coredns",
    packages=(".",),
    build_timeout_s=1800,
    environment=(("CGO_ENABLED", "0"),),
    flags=("-ldflags=-s -w",),
)

STANZA = ROOT / "clusters" / "base" / "dns" / "Corefile"
"""What the manifests say about names of the clusterset."""


@contextlib.contextmanager
def running_coredns(directory: Path, *, address: str, federation_dns: str) -> Iterator[Process]:
    """CoreDNS at port 53 of ``address`` with the stanza that leads to ``federation_dns``.

    Raises ``NoProgramsError`` where it cannot be built.
    """
    program = COREDNS.build() / "coredns"
    directory.mkdir(parents=True, exist_ok=True)
    corefile = directory / "Corefile"
    bound = STANZA.read_text().replace("    errors\n", f"    bind {address}\n    errors\n", 1)
    corefile.write_text(bound)
    log = directory / "coredns.log"
    with log.open("wb") as output:
        started = subprocess.Popen(
            [str(program), "-conf", str(corefile)],
            stdout=output,
            stderr=output,
            env=os.environ | {"FEDERATION_DNS": federation_dns},
        )
    try:
        found = Process(started, log)
        found.says("CoreDNS-1.")
        yield found
    finally:
        started.kill()
        started.wait()
