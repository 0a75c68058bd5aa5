"""One lab for all end-to-end tests; each test gets it whole again and with the example applied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.testkit.lab import Lab, ask

EXAMPLES = Path(__file__).parents[2] / "clusters" / "examples"
WEST, EAST = "us-west-1", "us-east-1"
SERVICE = {"namespace": "app", "name": "user-service"}
WEIGHTS = {region: {WEST: 6_000, EAST: 4_000} for region in (WEST, EAST)}


@pytest.fixture(scope="session")
def started_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab")
    lab.fedctl("lab", "up", "--detach", "--rate", "0", timeout_s=180)
    yield lab
    lab.fedctl("lab", "down")
    assert not (lab.directory / "lab.json").exists()


@pytest.fixture
def lab(started_lab: Lab) -> Lab:
    """The lab with nothing broken, nothing drained and the multi-cluster example in force."""
    make_whole(started_lab)
    return started_lab


def make_whole(lab: Lab) -> None:
    """Mend what the test before has broken, and wait until that has reached the gateways."""
    if not mend(lab) and not unsettled(lab):
        return
    lab.fedctl("apply", "-f", str(EXAMPLES / "multi-cluster.yaml"))
    lab.wait(
        lambda: unsettled(lab) == [], timeout_s=60, what=lambda: f"whole again: {unsettled(lab)}"
    )


def mend(lab: Lab) -> bool:
    """Undo the faults and drains that are in force; says whether there was any."""
    found = lab.status()
    if found["partitioned"]:
        lab.fedctl("lab", "heal")
    dead = {p["name"]: p["cluster"] for p in found["processes"] if not p["alive"]}
    if "etcd" in dead:
        lab.fedctl("lab", "start-etcd")
    # A region rather than its processes one by one, each with a command of its own.
    for name in sorted({cluster or name for name, cluster in dead.items()} - {"etcd"}):
        lab.fedctl("lab", "restore", name)
    drains = [drain["target"] for drain in lab.federation()["drains"] if drain["requested"]]
    for target in drains:
        lab.fedctl("undrain", target)
    return bool(found["partitioned"] or dead or drains)


def unsettled(lab: Lab) -> list[str]:
    """What is not yet as it is in a whole lab."""
    status = lab.federation()
    found = [f"{member['cluster']} {member}" for member in status["members"] if not is_well(member)]
    found += [f"drain of {drain['target']}" for drain in status["drains"]]
    service = next((s for s in status["services"] if s["service"] == SERVICE), None)
    if service is None or service["weightsBp"] != WEIGHTS:
        found.append(f"user-service {service}")
    for gateway in (*lab.gateways(WEST), *lab.gateways(EAST)):
        found += gateway_problems(gateway["name"], gateway["admin"])
    return found


def is_well(member: dict[str, Any]) -> bool:
    return not member["stale"] and member["quarantine"] is None and member["gateways"] == 2


def gateway_problems(name: str, admin: str) -> list[str]:
    """Why a gateway is not in sync, and which endpoints of the service it holds to be down."""
    state = ask(admin, "/ready")["state"]
    down = [
        f"{name}: {endpoint['address']} of {endpoint['cluster']} is down or out"
        for endpoint in ask(admin, "/stats")["core"]["endpoints"]
        if endpoint["cluster"].startswith("import/app/user-service")
        and (endpoint["down"] or endpoint["ejected_until_unix_ms"] is not None)
    ]
    return ([] if state == "InSync" else [f"{name}: {state}"]) + down
