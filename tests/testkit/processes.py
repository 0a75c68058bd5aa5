"""Processes that tests and benchmarks start: ready once they accept on their ports, ended with the
block.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
READY_TIMEOUT_S = 30.0
END_TIMEOUT_S = 10.0


@contextlib.contextmanager
def running(
    command: Sequence[str], ports: Sequence[int], log: Path, *, host: str = HOST
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ready once it accepts on its ports; what it says goes to ``log``.

    Raises ``RuntimeError`` with the end of the log when it does not listen in time, and
    ``FileNotFoundError`` when the program is not installed.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        for port in ports:
            _await_accepting(host, port, child, log)
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _await_accepting(host: str, port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(
        f"{child.args!r} does not listen on {host}:{port}:\n{log.read_text()[-2000:]}"
    )
