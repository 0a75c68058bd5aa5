"""One cluster of a federation as real processes: etcd, a resolver, an agent and a gateway.

Driven as users drive it: manifests through ``fedctl apply``, statuses through ``fedctl get``, calls
through the gateway. Listeners' ports in manifests are ports of this machine (no offset). The
gateway has no identity of the clusterset, so its east-west port stays shut.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from typer.testing import CliRunner, Result

from federation.cli.main import app
from tests.testkit.etcd import EtcdServer
from tests.testkit.ports import free_port

CLUSTER, REGION = "west-a", "us-west-1"
ROOT = Path(__file__).parents[2]
DEADLINE_S = 40.0

T = TypeVar("T")


def until(look: Callable[[], T], what: Callable[[], object], *, within_s: float = DEADLINE_S) -> T:
    """The first true value of ``look``; fails after the deadline, saying ``what`` is there."""
    deadline = time.monotonic() + within_s
    tick = threading.Event()
    while not (value := look()):
        assert time.monotonic() < deadline, what()
        tick.wait(0.05)
    return value


@dataclass
class Process:
    """A started process whose output (both streams) is kept in a file."""

    command: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """All that it has written."""
        return self.log.read_text(errors="replace")

    def says(self, text: str) -> None:
        """Wait until it has written ``text``."""

        def said() -> bool:
            return text in self.output() or self.command.poll() is not None

        until(said, self.output)
        assert text in self.output(), self.output()

    def ended(self) -> int:
        """Wait for its exit code."""
        return self.command.wait(DEADLINE_S)


@contextlib.contextmanager
def process(log: Path, *arguments: str) -> Iterator[Process]:
    """``python ARGUMENTS``, killed at the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        command = subprocess.Popen(
            [sys.executable, *arguments], stdout=out, stderr=out, env=environment, cwd=ROOT
        )
    try:
        yield Process(command, log)
    finally:
        command.kill()
        command.wait()


FEDCTL = ("-c", "from federation.cli.main import main; main()")


@dataclass
class Federation:
    """A running cluster, by the store it stands on."""

    etcd: str
    directory: Path
    prefix: str = field(default_factory=lambda: f"/test/{uuid4().hex}/")

    @property
    def options(self) -> tuple[str, ...]:
        """Global options that point ``fedctl`` here."""
        return ("--etcd", self.etcd, "--prefix", self.prefix)

    def fedctl(self, *arguments: str, stdin: str | None = None) -> Result:
        """One ``fedctl`` command."""
        return CliRunner().invoke(app, [*self.options, *arguments], input=stdin)

    def apply(self, manifests: str) -> None:
        """Apply manifests that are all valid."""
        done = self.fedctl("apply", "-f", "-", "--cluster", CLUSTER, stdin=manifests)
        assert done.exit_code == 0, done.output

    def agent(self, name: str, *, xds: str) -> contextlib.AbstractContextManager[Process]:
        """An agent of the cluster; ``name`` tells its files apart."""
        state = ("--state-dir", str(self.directory / name))
        cluster = ("--cluster", CLUSTER, "--region", REGION)
        return process(
            self.directory / f"{name}.log",
            *(*FEDCTL, *self.options, "agent", *cluster, "--xds", xds, *state),
        )

    def status(self, kind: str, name: str, namespace: str = "app") -> dict[str, Any]:
        """The status of an object as ``fedctl get -o json`` shows it."""
        shown = self.fedctl("get", kind, name, "-n", namespace, "-o", "json")
        assert shown.exit_code == 0, shown.output
        status = json.loads(shown.stdout).get("status", {})
        assert isinstance(status, dict)
        return status

    def becomes(
        self,
        kind: str,
        name: str,
        expected: dict[str, str],
        *,
        at: str = "",
        namespace: str = "app",
    ) -> None:
        """Wait until the conditions at ``at`` are ``expected`` (see ``conditions``)."""
        seen: dict[str, str] = {}

        def look() -> bool:
            nonlocal seen
            seen = conditions(self.status(kind, name, namespace), at)
            return all(seen.get(condition) == text for condition, text in expected.items())

        until(look, lambda: f"{kind} {name} {at}: {json.dumps(seen, indent=2)}")


def conditions(status: dict[str, Any], at: str = "") -> dict[str, str]:
    """Conditions by type as `STATUS, REASON: MESSAGE`.

    ``at`` is empty for the object itself, or the name of a listener, parent or ancestor.
    """
    found = status.get("conditions", []) if not at else []
    for entry in status.get("listeners", []):
        found += entry["conditions"] if entry["name"] == at else []
    for entry in status.get("parents", []):
        ref = entry["parentRef"]
        found += entry["conditions"] if at in (ref["name"], ref.get("sectionName")) else []
    for entry in status.get("ancestors", []):
        found += entry["conditions"] if entry["ancestorRef"]["name"] == at else []
    return {
        entry["type"]: f"{entry['status']}, {entry['reason']}: {entry.get('message', '')}"
        for entry in found
    }


@contextlib.contextmanager
def running_federation(etcd: EtcdServer, directory: Path) -> Iterator[Federation]:
    """A cluster whose gateway is connected; objects are the test's to apply."""
    federation = Federation(etcd.endpoint, directory)
    xds = f"127.0.0.1:{free_port()}"
    gateway = (
        *("-m", "gateway", "--name", "gw-1", "--cluster", CLUSTER, "--agent", xds),
        *("--state-dir", str(directory / "gateway"), "--address", "127.0.0.1"),
    )
    with contextlib.ExitStack() as stack:
        resolver = (*FEDCTL, *federation.options, "resolver", "--name", "resolver-1")
        stack.enter_context(process(directory / "resolver.log", *resolver))
        stack.enter_context(federation.agent("agent", xds=xds))
        stack.enter_context(process(directory / "gateway.log", *gateway)).says("gateway started")
        yield federation
