"""The load generators: h2load, and ``load/`` (on hyper's ``h2``) for what h2load cannot do."""

from __future__ import annotations

import contextlib
import re
import resource
import select
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.bench.proxies import Proxy
from tests.bench.setting import AUTHORITY, GRPC_BODY, METHOD, Security, TlsFiles
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running

CONNECTIONS = 8
STREAMS = 16
CRATE = Path(__file__).with_name("load")
LOAD_TIMEOUT_S = 300
READY_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: CPU seconds of the proxy for what was done, how much that was, and how fast."""

    cpu_s: float
    done: float
    per_s: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds for each."""
        return self.cpu_s / self.done * 1e6

    @property
    def busy(self) -> float:
        """How many cores' worth of time the proxy used on average."""
        return self.cpu_s / (self.done / self.per_s)


def median(samples: list[Sample], what: str) -> float:
    """The median of one property."""
    return statistics.median(getattr(sample, what) for sample in samples)


@cache
def program() -> Path:
    """The built generator; builds it once."""
    target = Path.home() / ".cache" / "federation" / "bench-load"
    command = ["cargo", "build", "--release", "--locked", "-q", f"--target-dir={target}"]
    subprocess.run(command, cwd=CRATE, check=True, timeout=900)
    return target / "release" / "bench-load"


def allow_many_files() -> None:
    """As many open files as the system allows this process and what it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def server(directory: Path) -> Iterator[int]:
    """The generator's own server, for streams."""
    port = free_port()
    command = [str(program()), "serve", f"--port={port}"]
    with running(command, (port,), directory / "server.log"):
        yield port


def unary(proxy: Proxy, security: Security, tls: TlsFiles, *, calls: int) -> Sample:
    """``calls`` unary calls; by h2load, unless the client needs a certificate."""
    if security is Security.MUTUAL:
        return own(proxy, "unary", total=calls, tls=tls)
    with _request() as request:
        command = _command(proxy.port, security, request, calls=calls)
        return _h2load(proxy, command, calls=calls)


def paced(proxy: Proxy, *, calls: int, per_s: int) -> Sample:
    """``calls`` plain unary calls, ``per_s`` of them a second."""
    with _request() as request:
        command = _command(proxy.port, Security.PLAIN, request, calls=calls)
        command.insert(-1, f"--rps={per_s // CONNECTIONS}")
        return _h2load(proxy, command, calls=calls)


def own(
    proxy: Proxy, command: str, *, total: int, tls: TlsFiles | None = None, **options: int
) -> Sample:
    """A load of the own generator; ``RuntimeError`` when not all of it succeeded."""
    words = [str(program()), command, f"--port={proxy.port}", f"--total={total}"]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words += tls_options(tls)
    before_s = proxy.cpu_s()
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=LOAD_TIMEOUT_S
    )
    used_s = proxy.cpu_s() - before_s
    if done.returncode != 0:
        raise RuntimeError(f"{proxy.name}: not every {command} succeeded: {done.stderr}")
    return Sample(used_s, total, float(done.stdout.split()[-1]))


def tls_options(tls: TlsFiles | None) -> list[str]:
    """The generator's options for mutual TLS."""
    if tls is None:
        return []
    return [f"--ca={tls.ca}", f"--certificate={tls.certificate}", f"--key={tls.key}"]


@contextlib.contextmanager
def _request() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        request = Path(name) / "request"
        request.write_bytes(GRPC_BODY)
        yield request


def _command(port: int, security: Security, request: Path, *, calls: int) -> list[str]:
    command = ["h2load", f"--requests={calls}", f"--clients={CONNECTIONS}"]
    command += [f"--max-concurrent-streams={STREAMS}", f"--data={request}", "--threads=1"]
    command += ["--header=content-type: application/grpc", "--header=te: trailers"]
    command += [f"--header=:authority: {AUTHORITY}"]
    return [*command, f"{security.scheme}://{HOST}:{port}{METHOD}"]


def _h2load(proxy: Proxy, command: list[str], *, calls: int) -> Sample:
    before_s = proxy.cpu_s()
    rate = _run(proxy.name, command, calls)
    return Sample(proxy.cpu_s() - before_s, calls, rate)


def _run(name: str, command: list[str], calls: int) -> float:
    """Calls a second. Raises ``RuntimeError`` unless every one succeeded."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=LOAD_TIMEOUT_S
    )
    succeeded = re.search(r"(\d+) succeeded, (\d+) failed", done.stdout)
    codes = re.search(r"status codes: (\d+) 2xx", done.stdout)
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", done.stdout)
    if not (succeeded and codes and rate) or int(codes[1]) != calls or int(succeeded[2]):
        raise RuntimeError(f"{name}: not every call succeeded:\n{done.stdout}")
    return float(rate[1])


def latencies_us(port: int, *, rate: float, seconds: float) -> list[int]:
    """Times of plain unary calls that are sent at ``rate`` a second in all, sorted."""
    each = max(1, round(rate / CONNECTIONS))
    calls = CONNECTIONS * max(1, round(each * seconds))
    with _request() as request:
        log = request.with_name("log")
        command = _command(port, Security.PLAIN, request, calls=calls)
        _run(str(port), [*command[:-1], f"--rps={each}", f"--log-file={log}", command[-1]], calls)
        return sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())


@contextlib.contextmanager
def held(proxy: Proxy, *, connections: int, streams: int) -> Iterator[bool]:
    """Connections with open streams that say nothing, once all are there; False when they are not
    in time or the proxy refuses some.
    """
    command = [str(program()), "hold", f"--port={proxy.port}"]
    command += [f"--connections={connections}", f"--streams={streams}"]
    holder = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        yield _is_ready(holder)
    finally:
        holder.stdin.close()
        holder.kill()
        holder.wait()
        holder.stdout.close()


def _is_ready(holder: subprocess.Popen[str]) -> bool:
    ready, _, _ = select.select([holder.stdout], [], [], READY_TIMEOUT_S)
    return bool(ready) and holder.stdout is not None and "ready" in holder.stdout.readline()


def settled_memory(proxy: Proxy) -> int:
    """The proxy's memory once it has stopped changing."""
    before = proxy.memory_bytes()
    for _ in range(20):
        time.sleep(0.1)
        now = proxy.memory_bytes()
        if abs(now - before) < 64 << 10:
            return now
        before = now
    return before
