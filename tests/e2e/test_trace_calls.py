"""``fedctl trace`` beside what gateways really did with the very call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import EAST, WEST
from tests.testkit.lab import Caller, Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

HOST = "traced.example.com"
USER = "com.example.api.UserService/GetUser"
ORDER = "com.example.api.OrderService/GetOrder"
ROUTES = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: traced, namespace: app}}
spec:
  hostnames: [{HOST}]
  parentRefs: [{{name: grpc-gateway, namespace: infra, sectionName: grpc}}]
  rules:
  - matches:
    - method: {{service: com.example.api.UserService, method: GetUser}}
      headers: [{{name: x-where, value: here}}]
    backendRefs: [{{name: user-service, port: 9090}}]
  - matches: [{{method: {{service: com.example.api.UserService, method: GetUser}}}}]
    backendRefs:
    - group: gateway.networking.k8s.io
      kind: ServiceImport
      name: user-service-import
      port: 9090
"""
CALLS = 20


@pytest.fixture
def caller(lab: Lab, tmp_path: Path) -> Iterator[Caller]:
    """A client of the west, which has the routes above."""
    path = tmp_path / "routes.yaml"
    path.write_text(ROUTES)
    lab.fedctl("apply", "-f", str(path), "--cluster", WEST)
    found = Caller(lab.gateway(WEST), lab.ca())
    try:
        lab.wait(
            lambda: "user-service" in found(USER, host=HOST),
            timeout_s=30,
            what=lambda: found(USER, host=HOST),
        )
        yield found
    finally:
        found.close()
        lab.fedctl("delete", "-f", str(path), "--cluster", WEST)


def recorded(
    lab: Lab, caller: Caller, method: str, headers: dict[str, str]
) -> list[dict[str, Any]]:
    """What the first gateway of the west records of some calls."""
    admin = lab.admin(WEST)
    command = [sys.executable, "-m", "federation.cli", "tap", "-o", "json", "--count", str(CALLS)]
    tap = subprocess.Popen(
        [*command, "--gateway", f"west-1={admin}", "--for", "60s"],
        env=os.environ | {"FEDERATION_LAB_DIR": str(lab.directory)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with ThreadPoolExecutor(1) as reader:
        lines = reader.submit(tap.communicate)
        while not lines.done():
            caller(method, host=HOST, headers=headers)
    found = [json.loads(line) for line in lines.result()[0].splitlines()]
    assert len(found) == CALLS
    return found


def typed(lab: Lab, method: str, *headers: str) -> dict[str, Any]:
    options = [part for header in headers for part in ("--header", header)]
    done = lab.fedctl(
        *("trace", "-o", "json", "--from", WEST, "--host", HOST, "--method", method, *options)
    )
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


def clusters(said: dict[str, Any]) -> dict[str, float]:
    """Shares by cluster; what is no import's is the own cluster's."""
    return {
        parts[4] if len(parts := it["upstream"].partition("@")[0].split("/")) > 4 else WEST: it[
            "percent"
        ]
        for it in said["destinations"]
    }


def of_record(lab: Lab, record: dict[str, Any], log: Path, *options: str) -> dict[str, Any]:
    """What is said of a line of an access log, found by its trace id."""
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    log.write_text(json.dumps(record | {"trace_id": trace_id}) + "\n")
    done = lab.fedctl("trace", trace_id, "--log", str(log), "-o", "json", *options)
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


def test_a_call_by_method_goes_where_it_is_said(lab: Lab, caller: Caller, tmp_path: Path) -> None:
    said = typed(lab, USER)
    assert clusters(said) == {WEST: 60, EAST: 40}
    for record in recorded(lab, caller, USER, {}):
        assert record["rule"] == said["rule"]
        assert record["destination_cluster"] in clusters(said)
    again = of_record(lab, record, tmp_path / "access.log")
    assert (again["rule"], again["destinations"]) == (said["rule"], said["destinations"])
    assert again["recorded"]["endpoint"] == record["endpoint"]


def test_a_call_by_header_goes_where_it_is_said(lab: Lab, caller: Caller, tmp_path: Path) -> None:
    said = typed(lab, USER, "x-where=here")
    assert clusters(said) == {WEST: 100}
    for record in recorded(lab, caller, USER, {"x-where": "here"}):
        assert (record["rule"], record["destination_cluster"]) == (said["rule"], WEST)
    # A record has no headers: without them another rule takes it, which is told.
    blind = of_record(lab, record, tmp_path / "access.log")
    assert blind["rule"] != record["rule"]
    assert any("x-where" in remark for remark in blind["remarks"])
    given = of_record(lab, record, tmp_path / "access.log", "--header", "x-where=here")
    assert given["rule"] == record["rule"]


def test_a_call_that_nothing_takes(lab: Lab, caller: Caller) -> None:
    said = typed(lab, ORDER)
    assert (said["rule"], said["destinations"]) == (None, [])
    assert "no rule fits" in said["outcome"]
    for record in recorded(lab, caller, ORDER, {}):
        assert record["answered_by"] == "gateway"
        assert not record["endpoint"]


def test_a_drain_is_in_the_answer_and_in_the_traffic(lab: Lab, caller: Caller) -> None:
    lab.fedctl("drain", EAST, "--over", "0s", "--grace", "1s")

    def drained() -> bool:
        return {cluster for cluster, part in clusters(typed(lab, USER)).items() if part} == {WEST}

    lab.wait(drained, timeout_s=30, what=lambda: str(typed(lab, USER)))
    assert any("drain" in why for part in typed(lab, USER)["destinations"] for why in part["why"])
    lab.wait(
        lambda: {r["destination_cluster"] for r in recorded(lab, caller, USER, {})} == {WEST},
        timeout_s=60,
        what="calls go west alone",
    )
