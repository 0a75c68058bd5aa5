"""Flagger's own router for the Gateway API (``tests/kubernetes/flagger``), step by step."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from federation.cli.lab.kubernetes.go_programs import GoPrograms

FLAGGER = GoPrograms(
    module=Path(__file__).parents[1] / "kubernetes" / "flagger",
    name="flagger",
    build_timeout_s=900,
    environment=(("CGO_ENABLED", "0"),),
    flags=("-ldflags=-s -w",),
)


class RouterError(Exception):
    """What Flagger's code reports."""


class Router:
    """The running router of one Canary."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def reconcile(self) -> None:
        """Make the HTTPRoute, or mend it.

        This version reports an error when it has just made one; its controller then tries again.
        """
        try:
            self._ask("reconcile")
        except RouterError:
            self._ask("reconcile")

    def set_routes(self, primary: int, canary: int) -> None:
        """Set both weights."""
        self._ask(f"weights {primary} {canary}")

    def get_routes(self) -> tuple[int, int]:
        """The weights as the router reads them back."""
        found = self._ask("get")
        return found["primary"], found["canary"]

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline() or '{"error": "the router ended"}')
        assert isinstance(found, dict)
        if "error" in found:
            raise RouterError(found["error"])
        return found


@contextlib.contextmanager
def running_router(
    kubeconfig: Path, canary: Mapping[str, Any], directory: Path
) -> Iterator[Router]:
    """A router for ``canary`` against the current context. Raises ``NoProgramsError``."""
    given = directory / "canary.json"
    given.write_text(json.dumps(canary))
    command = [str(FLAGGER.build() / "flagger"), "--kubeconfig", str(kubeconfig)]
    with subprocess.Popen(
        [*command, "--canary", str(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Router(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)
