"""``--endpoint-dial``: this cluster's own endpoints at the addresses that are dialled for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.agent.state import dialled_snapshot
from federation.cli.main import app
from federation.model.base import ClusterId, Region
from federation.model.snapshot import Endpoint, EndpointSet, LocalityEndpoints, Snapshot

OWN = Endpoint("198.18.0.1", 9090)
PEER = Endpoint("198.18.0.1", 9090, peer=True)


def snapshot(*endpoints: Endpoint) -> Snapshot:
    west = LocalityEndpoints(ClusterId("west"), Region("west"), 0, 1, endpoints)
    return Snapshot(ClusterId("west"), endpoint_sets=(EndpointSet("app/users:9090", (west,)),))


def test_endpoints_are_mapped_and_peers_are_not() -> None:
    leaving = replace(OWN, draining=True)
    found = dialled_snapshot(
        snapshot(OWN, PEER, leaving, Endpoint("198.18.0.2", 9090)),
        {"198.18.0.1:9090": "127.0.0.1:4000"},
    )
    here = Endpoint("127.0.0.1", 4000)
    assert found == snapshot(here, PEER, replace(here, draining=True), Endpoint("198.18.0.2", 9090))


def test_ipv6_is_written_with_brackets() -> None:
    found = dialled_snapshot(snapshot(Endpoint("fd00::1", 80)), {"[fd00::1]:80": "[::1]:8080"})
    assert found == snapshot(Endpoint("::1", 8080))


def test_without_a_map_nothing_is_made_anew() -> None:
    given = snapshot(OWN)
    assert dialled_snapshot(given, {}) is given


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected a JSON object"),
        ('{"a:1": 2}', "expected a JSON object"),
        ('{"a:1": "b"}', '"b" is not HOST:PORT'),
        ('{"a": "b:1"}', '"a" is not HOST:PORT'),
        ("{", "Expecting property name"),
    ],
)
def test_a_wrong_map_ends_the_agent_before_it_starts(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "dial.json"
    path.write_text(text)
    options = ["agent", "--cluster", "a", "--region", "b", "--endpoint-dial", str(path)]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())
