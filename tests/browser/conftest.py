"""The console against the whole lab, in a real browser: one lab and one browser for all tests."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.testkit.browser import HINT, PATIENCE_MS, Visit, chromium, running_browser, visiting
from tests.testkit.lab import Lab
from tests.testkit.ports import free_port
from tests.testkit.processes import running

EXAMPLE = Path(__file__).parents[2] / "clusters" / "examples" / "multi-cluster.yaml"
WEST, EAST = "us-west-1", "us-east-1"
CALLS_PER_S = 40

expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where no browser is, nothing here runs; these tests wait for whole regions otherwise."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(240))
            item.add_marker(pytest.mark.skipif(chromium() is None, reason=HINT))


@pytest.fixture(scope="session")
def started_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("console") / "lab")
    lab.fedctl("lab", "up", "--detach", "--rate", str(CALLS_PER_S), timeout_s=180)
    lab.fedctl("apply", "-f", str(EXAMPLE))
    yield lab
    lab.fedctl("lab", "down")


@pytest.fixture
def lab(started_lab: Lab) -> Iterator[Lab]:
    """The lab; what a test broke or drained is mended after it."""
    yield started_lab
    dead = {p["name"]: p["cluster"] for p in started_lab.status()["processes"] if not p["alive"]}
    if "etcd" in dead:
        started_lab.fedctl("lab", "start-etcd")
    for name in sorted({cluster or name for name, cluster in dead.items()} - {"etcd"}):
        started_lab.fedctl("lab", "restore", name)
    for drain in started_lab.federation()["drains"]:
        if drain["requested"]:
            started_lab.fedctl("undrain", drain["target"])
    started_lab.wait(
        lambda: is_whole(started_lab),
        timeout_s=60,
        what=lambda: f"whole again: {started_lab.federation()}",
    )


def is_whole(lab: Lab) -> bool:
    found = lab.federation()
    return not found["drains"] and not any(member["stale"] for member in found["members"])


@contextlib.contextmanager
def running_console(lab: Lab, log: Path, *options: str, port: int | None = None) -> Iterator[str]:
    """A console of ``lab`` with ``options``; gives its address."""
    port = port or free_port()
    command = (
        *(sys.executable, "-m", "federation.cli", "--etcd", lab.first_status["etcd"]),
        *("console", "--listen", f"127.0.0.1:{port}", *options),
    )
    with running(command, [port], log):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def console(started_lab: Lab) -> str:
    """The lab's own console, which may write."""
    return str(started_lab.first_status["console"]).rstrip("/")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser a module: while Playwright lives, no other test of the process may run an event
    loop of its own."""
    with running_browser() as found:
        yield found


@pytest.fixture
def visit(browser: Browser, console: str) -> Iterator[Visit]:
    """A desktop page; the browser must have had nothing to complain of at the end."""
    with visiting(browser, console) as found:
        yield found
        assert found.complaints == []


@pytest.fixture
def phone(browser: Browser, console: str) -> Iterator[Visit]:
    with visiting(browser, console, phone=True) as found:
        yield found
        assert found.complaints == []
