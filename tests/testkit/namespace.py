"""``python -m tests.testkit.namespace COMMAND…``: run a command in a network namespace of its own.

EndpointSlices take no loopback addresses, so what stands in for Pods needs others. In the namespace
all of ``POD_NETWORK`` and ``SERVICE_NETWORK`` is local (Pods that run, of ``tests.testkit.pods``,
are on bridges in it with other addresses); it ends with its last process. Making one
wants root, or user namespaces that the kernel gives to everyone; without either, nothing is run and
the line says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

POD_NETWORK = "10.77.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
INSIDE = "FEDERATION_TEST_NAMESPACE"
"""Set in the environment of what runs in the namespace."""

_SET_UP = f"""
ip link set lo up &&
ip addr add {POD_NETWORK} dev lo &&
ip addr add {SERVICE_NETWORK} dev lo &&
exec "$@"
"""


def inside() -> bool:
    """Whether this process runs in such a namespace."""
    return INSIDE in os.environ


def why_not() -> str:
    """Why no namespace can be made here; empty: it can."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"the program `{program}` is missing (packages util-linux and iproute2)"
    tried = subprocess.run(
        [*_unshare(), "ip", "link", "set", "lo", "up"], check=False, capture_output=True, text=True
    )
    return "" if tried.returncode == 0 else f"no network namespace: {tried.stderr.strip()}"


def _unshare() -> list[str]:
    return ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]


def prepared() -> bool:
    """Whether commands can run in namespaces here; builds what they cannot fetch inside.

    Where they cannot, a line says why.
    """
    if reason := why_not():
        print(f"skipped: {reason}", file=sys.stderr)
        return False
    from federation.cli.lab.kubernetes.control_plane import PROGRAMS
    from federation.cli.lab.kubernetes.crds import released_crds
    from federation.cli.lab.kubernetes.go_programs import NoProgramsError
    from tests.testkit.coredns import COREDNS
    from tests.testkit.flagger import FLAGGER
    from tests.testkit.pods import PODRUNNER

    try:  # modules can be fetched out here alone
        PROGRAMS.build()
        PODRUNNER.build()
        released_crds()
    except NoProgramsError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return False
    for programs in (COREDNS, FLAGGER):
        try:
            programs.build()
        except NoProgramsError as error:
            print(f"no {programs.name} to test with: {error}", file=sys.stderr)
    return True


def main() -> None:
    """Replace this process by the command in a new namespace."""
    if not prepared():
        return
    shell = ["/bin/sh", "-c", _SET_UP, "sh", *sys.argv[1:]]
    environment = os.environ | {INSIDE: "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*_unshare(), *shell]
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main()
