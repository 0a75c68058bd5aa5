"""One lab for all end-to-end tests; each test gets it whole again and with the example applied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit.lab import Lab

EXAMPLES = Path(__file__).parents[2] / "clusters" / "examples"
WEST, EAST = "us-west-1", "us-east-1"


@pytest.fixture(scope="session")
def started_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab")
    lab.fedctl("lab", "up", "--detach", "--rate", "0", timeout_s=180)
    yield lab
    lab.fedctl("lab", "down")
    assert not (lab.directory / "lab.json").exists()


@pytest.fixture
def lab(started_lab: Lab) -> Iterator[Lab]:
    """The lab with nothing broken, nothing drained and the multi-cluster example in force."""
    yield make_whole(started_lab)
    make_whole(started_lab)


def make_whole(lab: Lab) -> Lab:
    lab.fedctl("lab", "heal")
    lab.fedctl("lab", "start-etcd")
    for region in (WEST, EAST):
        lab.fedctl("lab", "restore", region)
    for region in (WEST, EAST):
        lab.fedctl("undrain", region, check=False)
    lab.fedctl("apply", "-f", str(EXAMPLES / "multi-cluster.yaml"))
    lab.wait(lambda: is_settled(lab), timeout_s=60, what="the lab is whole again")
    return lab


def is_settled(lab: Lab) -> bool:
    """Weights are as asked for, nobody is stale, no drain is left."""
    explained = lab.fedctl("explain", "app/user-service", "--from", WEST, "-o", "json", check=False)
    if explained.code != 0:
        return False
    rows = json.loads(explained.out)["clusters"]
    if not rows or any(row["weightBp"] != row["weightAskedBp"] for row in rows):
        return False
    status = lab.federation()
    return not status.get("drains") and not any(m.get("stale") for m in status["members"])
