"""Pods of a test cluster as processes of this machine: ``tests/kubernetes/podrunner``.

They want a network namespace of the test's own (``tests.testkit.namespace``). A table says which
local command stands for which image.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from federation.cli.lab.kubernetes.go_programs import GoPrograms
from tests.testkit.federation import Process
from tests.testkit.kubernetes import KubernetesServer

PODRUNNER = GoPrograms(
    module=Path(__file__).parents[1] / "kubernetes" / "podrunner",
    name="podrunner",
    build_timeout_s=900,
    environment=(("CGO_ENABLED", "0"),),
    flags=("-ldflags=-s -w",),
)


@contextlib.contextmanager
def running_pods(
    server: KubernetesServer,
    images: Mapping[str, Mapping[str, Any]],
    directory: Path,
    *options: str,
) -> Iterator[Process]:
    """Run the Pods of ``server``; ``images`` are commands (``entrypoint``, ``command``, ``env``) by
    image name or prefix. Logs of containers and of podrunner are kept in ``directory``.

    Raises ``NoProgramsError`` where podrunner cannot be built.
    """
    program = PODRUNNER.build() / "podrunner"
    directory.mkdir(parents=True, exist_ok=True)
    table = directory / "images.json"
    table.write_text(json.dumps(images))
    command = [
        *(str(program), "--kubeconfig", str(server.kubeconfig)),
        *("--images", str(table), "--state", str(directory), *options),
    ]
    log = directory / "podrunner.log"
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        found = Process(started, log)
        found.says("podrunner is ready")
        yield found
    finally:
        started.terminate()
        started.wait(timeout=20)
