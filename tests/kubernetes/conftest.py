"""Control planes for the tests of this folder, or the line that says why there are none.

They are built before the first test, since a first build takes minutes and tests have seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.cli.lab.kubernetes.control_plane import PROGRAMS
from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from tests.testkit.kubernetes import (
    KubernetesServer,
    install_released_crds_now,
    running_kubernetes,
)
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


@pytest.fixture(scope="session")
def kubernetes(request: pytest.FixtureRequest) -> Iterator[KubernetesServer]:
    """An API server with the released CRDs that tests share; each keeps to names of its own."""
    for server in _server(request):
        install_released_crds_now(server)
        yield server


@pytest.fixture
def own_kubernetes(request: pytest.FixtureRequest) -> Iterator[KubernetesServer]:
    """An API server of one's own, to break."""
    yield from _server(request)


def _server(request: pytest.FixtureRequest) -> Iterator[KubernetesServer]:
    if missing := request.config.stash.get(MISSING, ""):
        pytest.skip(missing)
    with running_kubernetes() as server:
        yield server


@pytest.fixture(scope="module")
def kubernetes_pair(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[KubernetesServer, KubernetesServer]]:
    """Two clusters side by side, with the released CRDs."""
    for west in _server(request):
        for east in _server(request):
            for server in (west, east):
                install_released_crds_now(server)
            yield west, east
