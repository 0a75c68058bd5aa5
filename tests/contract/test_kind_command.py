"""``fedctl kind`` where Docker or kind is missing, and with the real kind and nothing behind it.

There is no Docker in tests: a stand-in says what a daemon without containers would. What is
installed into clusters, and the demo, run for real in ``tests/kubernetes/test_deployment.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from federation.cli.kind.clusters import released_urls
from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from tests.contract.test_kind_config import KINDCHECK
from tests.testkit.federation import FEDCTL, ROOT

INSTEAD = "`make lab` runs the same two regions on this machine without Docker"
STAND_IN = """#!/bin/sh
echo "$@" >> "$0.log"
[ "$1" = info ] || [ "$1" = build ] || [ "$1" = ps ]
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH of its own, without anything."""
    made = tmp_path / "bin"
    made.mkdir()
    return made


def put(programs: Path, name: str, text: str) -> None:
    path = programs / name
    path.write_text(text)
    path.chmod(0o755)


def kind(programs: Path, command: str) -> tuple[int, str]:
    """Exit code and words of ``fedctl kind COMMAND``."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("FEDERATION")},
        "PATH": f"{programs}:/bin:/usr/bin" if (programs / "docker").exists() else str(programs),
        "XDG_STATE_HOME": str(programs.parent / "state"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, *FEDCTL, "kind", command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["up", "demo", "down"])
def test_without_docker_it_says_what_to_use_instead(programs: Path, command: str) -> None:
    code, words = kind(programs, command)
    assert code == 1
    missing = "Docker is not installed; install it, or take what needs none"
    assert words == f"error: {missing}: {INSTEAD}\n"


def test_a_docker_that_does_not_answer_is_told_with_its_words(programs: Path) -> None:
    put(programs, "docker", "#!/bin/sh\necho 'Cannot connect to the daemon' >&2\nexit 1\n")
    put(programs, "kind", "#!/bin/sh\nexit 1\n")
    code, words = kind(programs, "up")
    assert code == 1
    assert "error: Docker does not answer: docker info" in words
    assert "Cannot connect to the daemon; start it, or: `make lab`" in words


@pytest.fixture
def with_kind(programs: Path) -> Path:
    try:
        built = KINDCHECK.build() / "kind"
    except NoProgramsError as error:
        pytest.skip(str(error))
    (programs / "kind").symlink_to(built)
    put(programs, "docker", STAND_IN)
    return programs


def test_up_builds_the_image_and_kind_takes_the_command(with_kind: Path) -> None:
    """kind gets as far as asking Docker what it is, which the stand-in cannot say."""
    code, words = kind(with_kind, "up")
    assert code == 1
    assert "building the image\nmaking cluster federation-us-west-1\n" in words
    assert "ERROR: failed to create cluster: unexpected end of JSON input" in words
    assert "unknown flag" not in words
    asked = (with_kind / "docker.log").read_text().splitlines()
    assert f"build -t federation:kind {ROOT}" in asked


def test_the_image_is_loaded_by_a_command_that_kind_knows(with_kind: Path) -> None:
    command = ("load", "docker-image", "federation:kind", "--name", "federation-us-west-1")
    done = subprocess.run(
        [str(with_kind / "kind"), *command],
        env={"PATH": f"{with_kind}:/bin:/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'image: "federation:kind" not present locally' in done.stderr


def test_demo_wants_clusters_and_down_removes_what_there_is(with_kind: Path) -> None:
    code, words = kind(with_kind, "demo")
    assert code == 1
    assert "federation-us-west-1, federation-us-east-1 are not there; make them" in words
    state = with_kind.parent / "state" / "federation" / "kind"
    state.mkdir(parents=True)
    code, words = kind(with_kind, "down")
    assert code == 0, words
    assert not state.exists()


def test_released_kinds_are_those_that_the_project_names() -> None:
    urls = released_urls()
    assert len(urls) == 3
    assert all("/v" in url and "{" not in url for url in urls)
