"""Programs that tests build from Go modules of this repository, kept in the user's cache.

Decides: where a build is kept (under a name that changes with everything it is built from) and how
many builds are. Leaves to Go: fetching modules and checking them against ``go.sum``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

KEPT_BUILDS = 3
"""Of several checkouts or branches; a build is some 100 MB."""


class NoProgramsError(Exception):
    """The programs cannot be had here: Go is not installed, or its modules cannot be fetched."""


def need_go() -> None:
    """Raise ``NoProgramsError`` where there is no Go."""
    if shutil.which("go") is None:
        raise NoProgramsError("Go is not installed; install Go 1.26 or newer")


@dataclass(frozen=True, slots=True)
class GoPrograms:
    """The programs of the Go module in ``module``, called ``name`` in the cache.

    ``packages`` are what is built, by Go's own patterns; ``environment`` is added for the build.
    """

    module: Path
    name: str
    packages: tuple[str, ...] = ("./...",)
    build_timeout_s: int = 900
    environment: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """Where the programs are once they are built."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        sources = [*sorted(self.module.rglob("*.go")), *sorted(self.module.glob("go.*"))]
        texts = [[str(path.relative_to(self.module)), path.read_text()] for path in sources]
        key = hashlib.sha256(json.dumps([texts, self.flags]).encode()).hexdigest()[:12]
        return cache / "federation" / f"{self.name}-{key}"

    def build(self) -> Path:
        """The folder with the programs, built if need be.

        Raises ``NoProgramsError``, and ``CalledProcessError`` for what does not compile.
        """
        directory = self.directory
        if directory.is_dir():
            return directory
        need_go()
        self._fetch()
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as place:
            made = Path(place) / "bin"
            command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath"]
            subprocess.run(
                [*command, *self.flags, "-o", f"{made}/", *self.packages],
                cwd=self.module,
                check=True,
                timeout=self.build_timeout_s,
                env=os.environ | dict(self.environment),
            )
            made.rename(directory)
        self._remove_old()
        return directory

    def _fetch(self) -> None:
        """Fetch what is not in the module cache yet."""
        command = ["go", "list", "-mod=readonly", "-deps", "-f", "{{.Dir}}", *self.packages]
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

    def _remove_old(self) -> None:
        builds = sorted(
            self.directory.parent.glob(f"{self.name}-*"), key=lambda build: build.stat().st_mtime
        )
        for before in builds[:-KEPT_BUILDS]:
            shutil.rmtree(before, ignore_errors=True)
