"""The image: its Dockerfile is linted, and the steps in it are taken here, as far as they can be.

There is no Docker in tests. What is run is what the Dockerfile says: the wheel is built and
installed into an empty environment by its own commands, with other paths. Not run: the base images
and that the files of one stage fit the other.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.testkit.federation import ROOT

DOCKERFILE = ROOT / "Dockerfile"
BIN = Path(sys.executable).parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def steps() -> list[str]:
    """The commands of the Dockerfile's RUN lines, continuation lines joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    found = re.findall(r"^RUN (?:--mount=\S+\s+)*(.+)$", text, re.MULTILINE)
    return [" ".join(command.split()) for step in found for command in step.split("&&")]


def step(beginning: str) -> list[str]:
    (found,) = [one for one in steps() if one.startswith(beginning)]
    return found.split()


def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run(
        [str(BIN / "hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_as_nobody_without_a_shell() -> None:
    last = DOCKERFILE.read_text().rpartition("\nFROM ")[2]
    assert last.startswith("gcr.io/distroless/")
    assert "\nRUN " not in last
    assert "\nUSER 65532:65532\n" in last
    assert '\nENTRYPOINT ["/opt/federation/bin/fedctl"]\n' in last


def test_what_the_build_needs_is_sent_to_it() -> None:
    """Each COPY of a file is let through by .dockerignore."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name


@pytest.mark.skipif(
    not (TARGET / "release" / "lib_native.so").exists(),
    reason="would compile the core for minutes: run `make build` first",
)
@pytest.mark.timeout(600)
def test_the_wheel_of_its_steps_works_in_an_empty_environment(tmp_path: Path) -> None:
    wheels, place = tmp_path / "wheels", tmp_path / "federation"
    build = step("/tools/bin/maturin build")
    build[0], build[-1] = str(BIN / "maturin"), str(wheels)
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith((".rs", "Cargo.toml"))]
    pages = ROOT / "federation" / "console" / "assets"
    assets = {path.relative_to(ROOT).as_posix() for path in pages.rglob("*") if path.is_file()}
    assert assets
    assert assets <= set(names)
    make = step("python3 -m venv --without-pip")
    subprocess.run([sys.executable, *make[1:-1], str(place)], check=True)
    install = step("/tools/bin/pip --python")
    assert install[-1] == "/wheels/*.whl"
    python = str(place / "bin" / "python")
    words = [sys.executable, "-m", "pip", "--python", python, *install[3:-1], str(wheel)]
    # Dependencies are this environment's, so that nothing is fetched.
    subprocess.run([*words, "--no-deps"], cwd=ROOT, check=True, capture_output=True)
    (packages,) = (place / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    told = subprocess.run(
        [str(place / "bin" / "fedctl"), "--version"],
        cwd=tmp_path,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"fedctl \d+\.\d+\.\d+\n", told.stdout)
    where = "import federation, gateway._native as n; print(federation.__file__, n.__file__)"
    told = subprocess.run(
        [python, "-c", where], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert all(path.startswith(str(place)) for path in told.stdout.split())
