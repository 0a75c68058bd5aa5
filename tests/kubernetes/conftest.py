"""Control planes for the tests of this folder, or the line that says why there are none.

They are built before the first test, since a first build takes minutes and tests have seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from federation.cli.lab.kubernetes.control_plane import PROGRAMS
from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from tests.testkit.flagger import FLAGGER
from tests.testkit.kubernetes import (
    KubernetesServer,
    install_released_crds_now,
    running_kubernetes,
)
from tests.testkit.lab import Caller, KubernetesLab
from tests.testkit.pods import PODRUNNER

HERE = Path(__file__).parent
MISSING = pytest.StashKey[str]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what this folder's tests need, when any of them is to run."""
    if session.config.option.collectonly:
        return
    if not any(HERE in item.path.parents for item in session.items):
        return
    try:
        PROGRAMS.build()
        PODRUNNER.build()
    except NoProgramsError as error:
        session.config.stash[MISSING] = f"no Kubernetes to test with: {error}"
    if any(item.path.name == "test_progressive.py" for item in session.items):
        with contextlib.suppress(NoProgramsError):
            FLAGGER.build()


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> None:
    """What clusters are made of is built, or the test is skipped with the line that says why."""
    if missing := request.config.stash.get(MISSING, ""):
        pytest.skip(missing)


@pytest.fixture(scope="session")
def kubernetes(programs: None) -> Iterator[KubernetesServer]:
    """An API server with the released CRDs that tests share; each keeps to names of its own."""
    for server in _server():
        install_released_crds_now(server)
        yield server


@pytest.fixture(scope="session")
def started_lab(
    programs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KubernetesLab]:
    """The lab on API servers that tests share, without clients; gone at the end."""
    found = KubernetesLab(tmp_path_factory.mktemp("lab") / "lab")
    found.fedctl("lab", "up", "--kubernetes", "--detach", "--rate", "0", timeout_s=180)
    pids = [process["pid"] for process in found.status()["processes"]]
    yield found
    found.fedctl("lab", "down")
    assert not found.directory.exists()
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert [p.pid for p in left if p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture
def lab(started_lab: KubernetesLab) -> KubernetesLab:
    """The lab with nothing but its first objects."""
    started_lab.clear()
    return started_lab


@pytest.fixture
def call(lab: KubernetesLab) -> Iterator[Caller]:
    """A client of us-west-1."""
    with lab.caller("us-west-1") as found:
        yield found


@pytest.fixture
def own_kubernetes(programs: None) -> Iterator[KubernetesServer]:
    """An API server of one's own, to break."""
    yield from _server()


def _server() -> Iterator[KubernetesServer]:
    with running_kubernetes() as server:
        yield server


@pytest.fixture(scope="module")
def kubernetes_pair(
    programs: None,
) -> Iterator[tuple[KubernetesServer, KubernetesServer]]:
    """Two clusters side by side, with the released CRDs."""
    for west in _server():
        for east in _server():
            for server in (west, east):
                install_released_crds_now(server)
            yield west, east
