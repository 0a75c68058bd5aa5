"""The proxies that are measured: how each is started for the same path to the same backend."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench import agent
from tests.bench.envoy_config import envoy_config
from tests.bench.manifests import manifests
from tests.bench.setting import (
    AUTHORITY,
    GRPC_BODY,
    IDENTITY,
    METHOD,
    STREAMS_MAX,
    Security,
    Setting,
    TlsFiles,
)
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running

BIN = Path(sys.executable).parent
STARTS = 3


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy: its name in the table, where it listens, whose time counts."""

    name: str
    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """User and system time of the process and its children so far."""
        times = [each.cpu_times() for each in self._all()]
        return sum(each.user + each.system for each in times)

    def memory_bytes(self) -> int:
        """Resident memory of the process and its children."""
        return sum(each.memory_info().rss for each in self._all())

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


Start = Callable[[Setting], AbstractContextManager[Proxy]]


@contextlib.contextmanager
def backend(directory: Path, tls: TlsFiles | None = None) -> Iterator[int]:
    """nghttpd answering the method's path with a gRPC message and a status trailer.

    With ``tls`` it speaks TLS and wants a certificate of its clients.
    """
    root = directory / "htdocs"
    page = root / METHOD.lstrip("/")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(GRPC_BODY)
    port = free_port()
    command = ["nghttpd", f"--address={HOST}", f"--htdocs={root}"]
    command += ["--trailer=grpc-status: 0", "--no-content-length"]
    command += ["--no-tls", str(port)] if tls is None else ["--verify-client", str(port)]
    command += [] if tls is None else [str(tls.key), str(tls.certificate)]
    with running(command, (port,), directory / "nghttpd.log"):
        yield port


@contextlib.contextmanager
def gateway(setting: Setting) -> Iterator[Proxy]:
    """Our gateway: standalone from manifests, or with mutual TLS on both sides from an agent."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        if setting.security is Security.MUTUAL:
            command = stack.enter_context(_attached(setting, port))
        else:
            command = _standalone(setting, port)
        command += [f"--address={HOST}", f"--workers={setting.workers}", "--port-offset=0"]
        command += [f"--admin={HOST}:{free_port()}", "--cluster=bench"]
        log = setting.directory / "gateway.log"
        child = stack.enter_context(running(command, (port,), log))
        yield Proxy("gateway", port, psutil.Process(child.pid))


def _standalone(setting: Setting, port: int) -> list[str]:
    folder = setting.directory / "manifests"
    folder.mkdir(exist_ok=True)
    (folder / "bench.yaml").write_text(manifests(setting, port))
    return [str(BIN / "fedctl"), "standalone", f"--manifests={folder}"]


@contextlib.contextmanager
def _attached(setting: Setting, port: int) -> Iterator[list[str]]:
    snapshot = agent.mutual_tls(
        port=port,
        backend_port=setting.backend_port,
        host=AUTHORITY,
        path=METHOD,
        identity=IDENTITY,
    )
    tls = setting.tls
    with agent.serving(snapshot) as address:
        command = [sys.executable, "-m", "gateway", "--name=bench", f"--agent={address}"]
        command += [f"--state-dir={setting.directory / 'state'}", f"--trust-bundle={tls.ca}"]
        yield [*command, f"--identity-cert={tls.certificate}", f"--identity-key={tls.key}"]


@contextlib.contextmanager
def nghttpx(setting: Setting) -> Iterator[Proxy]:
    """nghttpx."""
    port, tls, directory = free_port(), setting.tls, setting.directory
    frontend = f"--frontend={HOST},{port}"
    far = f"--backend={HOST},{setting.backend_port};;proto=h2"
    # The distribution's configuration file opens a port of its own.
    command = ["nghttpx", "--conf=/dev/null", f"--workers={setting.workers}"]
    command += ["--no-ocsp", "--no-location-rewrite"]
    command += [f"--frontend-http2-max-concurrent-streams={STREAMS_MAX}"]
    command += ["--accesslog-file=/dev/null", f"--errorlog-file={directory / 'nghttpx-error.log'}"]
    match setting.security:
        case Security.PLAIN:
            command += [f"{frontend};no-tls", far]
        case Security.TLS:
            command += [frontend, far, str(tls.key), str(tls.certificate)]
        case Security.MUTUAL:
            command += [frontend, f"{far};tls;sni={AUTHORITY}", f"--cacert={tls.ca}"]
            command += ["--verify-client", f"--verify-client-cacert={tls.ca}"]
            command += [f"--client-cert-file={tls.certificate}"]
            command += [f"--client-private-key-file={tls.key}", str(tls.key), str(tls.certificate)]
    with running(command, (port,), directory / "nghttpx.log") as child:
        yield Proxy("nghttpx", port, psutil.Process(child.pid))


@contextlib.contextmanager
def envoy(setting: Setting) -> Iterator[Proxy]:
    """Envoy with the same route as static configuration."""
    port = free_port()
    config = setting.directory / "envoy.json"
    config.write_text(json.dumps(envoy_config(setting, port)))
    command = [str(BIN / "envoy"), "-c", str(config), "--concurrency", str(setting.workers)]
    command += ["--log-level", "error", "--disable-hot-restart"]
    with running(command, (port,), setting.directory / "envoy.log") as child:
        yield Proxy("envoy", port, psutil.Process(child.pid))


@contextlib.contextmanager
def haproxy(setting: Setting) -> Iterator[Proxy]:
    """HAProxy, which like nghttpx has neither a method match nor weights here."""
    port, tls = free_port(), setting.tls
    mutual = setting.security is Security.MUTUAL
    near = "proto h2" if setting.security is Security.PLAIN else f"ssl crt {tls.pair} alpn h2"
    near += f" ca-file {tls.ca} verify required" if mutual else ""
    far = f"ssl verify required ca-file {tls.ca} crt {tls.pair} sni str({AUTHORITY}) alpn h2"
    config = setting.directory / "haproxy.cfg"
    config.write_text(
        f"""global
  nbthread {setting.workers}
  tune.h2.max-concurrent-streams {STREAMS_MAX}
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
frontend near
  bind {HOST}:{port} {near}
  default_backend far
backend far
  server one {HOST}:{setting.backend_port} {far if mutual else "proto h2"}
"""
    )
    command = ["haproxy", "-db", "-f", str(config)]
    with running(command, (port,), setting.directory / "haproxy.log") as child:
        yield Proxy("haproxy", port, psutil.Process(child.pid))


PEERS: dict[str, Start] = {"nghttpx": nghttpx, "envoy": envoy, "haproxy": haproxy}
ALL: dict[str, Start] = {"gateway": gateway, **PEERS}


@contextlib.contextmanager
def started(start: Start, setting: Setting) -> Iterator[Proxy]:
    """The proxy on a port of its own, which somebody else may take before it does: then another."""
    with contextlib.ExitStack() as stack:
        for left in reversed(range(STARTS)):
            try:
                proxy = stack.enter_context(start(setting))
            except RuntimeError as failure:
                if not left:
                    raise
                print(failure)
            else:
                yield proxy
                return


@contextlib.contextmanager
def all_proxies(setting: Setting) -> Iterator[list[Proxy]]:
    """Everything that is installed, the gateway first; what is missing is named."""
    with contextlib.ExitStack() as stack:
        proxies = []
        for name, start in ALL.items():
            try:
                proxies.append(stack.enter_context(started(start, setting)))
            except FileNotFoundError:
                print(f"{name} is not installed and left out")
        yield proxies


def missing_programs() -> list[str]:
    """Programs of the harness itself that are not installed."""
    return [name for name in ("h2load", "nghttpd", "cargo") if shutil.which(name) is None]
