"""The programs that kind clusters want, and running them.

Decides: what is said when one is missing or does not answer, and what to use instead.
Leaves to others: what they are asked to do (``clusters``, ``install``).
Invariants: a command that fails is an error with the command and its own words; nothing is waited
for without a bound.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSTEAD = "`make lab` runs the same two regions on this machine without Docker"
COMMAND_TIMEOUT_S = 600.0
SHOWN_MAX = 2000
"""Characters of a failed command's own words that an error repeats; the last ones."""


class ToolError(Exception):
    """A program is missing, or a command of it failed; the message says which and what to do."""


def need_kind() -> None:
    """Raise ``ToolError`` where kind clusters cannot be made."""
    for program, what in (("docker", "Docker"), ("kind", "kind"), ("kubectl", "kubectl")):
        if find(program) is None:
            raise ToolError(
                f"{what} is not installed; install it, or take what needs none: {INSTEAD}"
            )
    try:
        run("docker", "info", "--format", "{{.ServerVersion}}", timeout_s=30)
    except ToolError as error:
        raise ToolError(f"Docker does not answer: {error}; start it, or: {INSTEAD}") from error


def find(program: str) -> str | None:
    """Where a program is: on the PATH, or beside this Python (kubectl comes with the tools)."""
    beside = Path(sys.executable).parent / program
    return shutil.which(program) or (str(beside) if beside.is_file() else None)


def run(
    program: str,
    *arguments: str,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> str:
    """What a command prints; ``environment`` is added to ours.

    Raises ``ToolError`` when it fails or takes too long.
    """
    command = (find(program) or program, *arguments)
    shown = " ".join((program, *arguments))
    try:
        done = subprocess.run(
            command,
            input=stdin,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except OSError as error:
        raise ToolError(f"{shown}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{shown}: no answer within {timeout_s:.0f} s") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-SHOWN_MAX:]
        raise ToolError(f"{shown}: {words}")
    return done.stdout


def run_shown(program: str, *arguments: str, cwd: Path | None = None) -> None:
    """Run a command whose own progress is shown. Raises ``ToolError`` when it fails."""
    done = subprocess.run((find(program) or program, *arguments), check=False, cwd=cwd)
    if done.returncode != 0:
        raise ToolError(f"{program} {' '.join(arguments)}: exit code {done.returncode}, see above")


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl towards one cluster."""

    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What one command prints. Raises ``ToolError``."""
        return run("kubectl", "--kubeconfig", str(self.kubeconfig), *arguments, stdin=stdin)

    def apply(self, *arguments: str, stdin: str | None = None) -> str:
        """Server-side apply, as the one who installs."""
        return self(
            *("apply", "--server-side", "--force-conflicts", "--field-manager=fedctl"),
            *arguments,
            stdin=stdin,
        )


def listed(objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Objects as one document."""
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}
