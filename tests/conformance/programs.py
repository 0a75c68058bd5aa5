"""The programs written in Go, and the one in Rust: which there are, and where they are built.

Decides: that they live in the user's cache, under a name that changes with their sources and the
versions asked for in ``go/go.mod`` and ``hyper/Cargo.lock``. Leaves to Go and cargo: fetching and
checking.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

MODULE = Path(__file__).with_name("go")
CRATE = Path(__file__).with_name("hyper")
BUILD_TIMEOUT_S = 900
KEPT_BUILDS = 3
"""Of several checkouts or branches; a build is some 100 MB."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the built programs."""

    directory: Path

    @property
    def h2spec(self) -> Path:
        return self.directory / "h2spec"

    @property
    def grpcurl(self) -> Path:
        return self.directory / "grpcurl"

    @property
    def interop_client(self) -> Path:
        return self.directory / "client"

    @property
    def interop_server(self) -> Path:
        return self.directory / "server"

    @property
    def ghz(self) -> Path:
        return self.directory / "ghz"

    @property
    def hyper_server(self) -> Path:
        """hyper as a server; there if cargo was, when the programs were built."""
        return self.directory / "hyper-server"

    @property
    def testserver(self) -> Path:
        """grpc-go's interop service with reflection."""
        return self.directory / "testserver"

    @property
    def nethttp(self) -> Path:
        """A gRPC call with net/http alone."""
        return self.directory / "nethttp"

    @property
    def anyserver(self) -> Path:
        """Answers whatever it is asked, by gRPC."""
        return self.directory / "anyserver"

    @property
    def asgrpc(self) -> Path:
        """A relay that makes every request one of gRPC."""
        return self.directory / "asgrpc"


class NoGoError(Exception):
    """Go is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "Go is not installed: h2spec, gRPC interop, grpcurl and net/http are left out; "
            "install Go 1.25 or newer to run them"
        )


def built() -> Programs | None:
    """The programs, if they were built before."""
    directory = _directory()
    return Programs(directory) if directory.is_dir() else None


def build() -> Programs:
    """The programs, built if need be. Raises ``NoGoError`` or ``CalledProcessError``."""
    if (programs := built()) is not None:
        return programs
    if shutil.which("go") is None:
        raise NoGoError
    directory = _directory()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as place:
        made = Path(place) / "bin"
        # The word "tool" stands for all of go.mod's tools.
        command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath"]
        command += ["-o", f"{made}/", "tool", "./..."]
        subprocess.run(command, cwd=MODULE, check=True, timeout=BUILD_TIMEOUT_S)
        if shutil.which("cargo") is not None:
            _build_hyper(Path(place), made)
        made.rename(directory)
    _remove_old_builds(directory.parent)
    return Programs(directory)


def _build_hyper(place: Path, made: Path) -> None:
    target = place / "target"
    command = ["cargo", "build", "--release", "--locked", "-q", f"--target-dir={target}"]
    subprocess.run(command, cwd=CRATE, check=True, timeout=BUILD_TIMEOUT_S)
    (target / "release" / "hyper-server").rename(made / "hyper-server")


def _remove_old_builds(cache: Path) -> None:
    builds = sorted(cache.glob("conformance-*"), key=lambda build: build.stat().st_mtime)
    for build_before in builds[:-KEPT_BUILDS]:
        shutil.rmtree(build_before, ignore_errors=True)


def hyper_version() -> str:
    """As locked."""
    packages = tomllib.loads((CRATE / "Cargo.lock").read_text())["package"]
    return next(str(package["version"]) for package in packages if package["name"] == "hyper")


def versions() -> dict[str, str]:
    """The versions of the modules that ``go.mod`` names, by module path; needs no Go."""
    lines = (line.split() for line in (MODULE / "go.mod").read_text().splitlines())
    words = (line[1:] if line[:1] == ["require"] else line for line in lines)
    return {word[0]: word[1] for word in words if len(word) > 1 and word[1].startswith("v")}


def _directory() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    sources = [*sorted(MODULE.rglob("*.go")), MODULE / "go.mod", MODULE / "go.sum"]
    sources += [CRATE / "src" / "main.rs", CRATE / "Cargo.toml", CRATE / "Cargo.lock"]
    texts = [[str(path.relative_to(MODULE.parent)), path.read_text()] for path in sources]
    key = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]
    return cache / "federation" / f"conformance-{key}"
