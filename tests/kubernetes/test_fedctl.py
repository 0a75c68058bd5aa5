"""``fedctl`` on real API servers: what ``check`` finds there, and the logs of Pods."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.adapters.kubernetes import ConnectionSettings, connected
from tests.kubernetes.looking import EAST, WEST
from tests.testkit import namespace
from tests.testkit.etcd import EtcdServer
from tests.testkit.federation import until
from tests.testkit.kubernetes import KubernetesServer, install_crds, running_kubernetes
from tests.testkit.lab import FEDCTL, ORPHAN, KubernetesLab, Result
from tests.testkit.pods import running_pods

pytestmark = pytest.mark.timeout(240)

SAYS = """
import json, os, sys, time
for number, level in enumerate(("info", "warning", "error")):
    line = {"time": 1_700_000_000 + number + float(os.environ["LATER"]), "level": level}
    print(json.dumps(line | {"event": f"said {number}", "peer": "east"}), flush=True)
time.sleep(1000)
"""
TICKS = """
import itertools, json, time
for number in itertools.count():
    print(json.dumps({"time": time.time(), "level": "info", "event": f"tick {number}"}), flush=True)
    time.sleep(0.5)
"""
IMAGES = {
    "example.test/says": {"entrypoint": [sys.executable, "-c", SAYS]},
    "example.test/ticks": {"entrypoint": [sys.executable, "-c", TICKS]},
}
POD = """
apiVersion: v1
kind: Pod
metadata:
  name: %(name)s
  namespace: federation-system
  labels: {app.kubernetes.io/component: %(component)s}
spec:
  containers:
  - name: %(component)s
    image: example.test/%(image)s
    env: [{name: LATER, value: "%(later)s"}]
  - name: sidecar
    image: example.test/says
    env: [{name: LATER, value: "100"}]
---
"""


def fedctl(*arguments: str) -> Result:
    done = subprocess.run(
        [str(FEDCTL), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


def context_of(server: KubernetesServer) -> str:
    """The context of the server's kubeconfig."""
    return str(yaml.safe_load(server.kubeconfig.read_text())["current-context"])


def check(etcd: EtcdServer, server: KubernetesServer, area: str) -> tuple[int, dict[str, Any]]:
    """``fedctl check`` of the cluster ``west`` at ``server``."""
    done = fedctl(
        *("--etcd", etcd.endpoint, "check", "--only", area, "-o", "json"),
        *("--kubeconfig", str(server.kubeconfig), "--context", f"west={context_of(server)}"),
    )
    assert done.out, done.err
    return done.code, json.loads(done.out)


async def install(server: KubernetesServer, definitions: list[dict[str, Any]]) -> None:
    async with connected(ConnectionSettings(server.kubeconfig)) as connection:
        await install_crds(connection, definitions)


async def test_kinds_that_are_missing_or_older(
    own_kubernetes: KubernetesServer, etcd_server: EtcdServer
) -> None:
    server = own_kubernetes
    code, report = check(etcd_server, server, "crds")
    missing = {it["what"].split()[0]: it for it in report["findings"]}
    assert code == 1
    assert {"Gateway", "GRPCRoute", "ServiceImport", "Drain"} <= set(missing)
    assert "it is not there" in missing["Drain"]["why"]
    assert missing["Drain"]["severity"] == "error"
    assert missing["Drain"]["next"] == "fedctl crds | kubectl apply --server-side -f -"
    assert "docs/kubernetes.md" in missing["Gateway"]["next"]

    ours = list(yaml.safe_load_all(fedctl("crds").out))
    drain = next(it for it in ours if it["spec"]["names"]["kind"] == "Drain")
    (now,) = [version["name"] for version in drain["spec"]["versions"]]
    drain["spec"]["versions"][0]["name"] = "v1alpha0"
    await install(server, [drain])
    _, report = check(etcd_server, server, "crds")
    (older,) = [it for it in report["findings"] if it["what"].startswith("Drain is not served")]
    assert now in older["what"]
    assert older["why"] == "it serves federation.dev/v1alpha0; objects of it are not read"

    server.kubectl("delete", "crd", drain["metadata"]["name"])
    server.kubectl("apply", "--server-side", "-f", "-", stdin=fedctl("crds").out)

    def ours_are_there() -> bool:
        found = check(etcd_server, server, "crds")[1]["findings"]
        assert "Gateway" in {it["what"].split()[0] for it in found}
        return {it["severity"] for it in found} == {"warning"}

    until(ours_are_there, lambda: str(check(etcd_server, server, "crds")))


def test_an_api_server_that_is_away_is_told(
    own_kubernetes: KubernetesServer, etcd_server: EtcdServer
) -> None:
    own_kubernetes.kill_api()
    for area in ("crds", "policies"):
        _, report = check(etcd_server, own_kubernetes, area)
        assert report["findings"] == []
        assert [it["area"] for it in report["unexamined"]] == [area]
        assert "west: GET " in report["unexamined"][0]["why"]


def test_objects_on_api_servers(lab: KubernetesLab) -> None:
    lab.kubectl(WEST, "apply", "-f", "-", stdin=ORPHAN)

    def told() -> list[dict[str, Any]]:
        done = lab.fedctl(
            *("check", "--only", "policies", "--only", "routes", "--only", "crds", "-o", "json"),
            *("--context", WEST, "--context", f"{EAST}={EAST}"),
            check=False,
        )
        report = json.loads(done.out)
        assert report["unexamined"] == [], report
        assert done.code == (1 if report["findings"] else 0)
        return list(report["findings"])

    def found(subject: str, words: str) -> bool:
        return any(it["subject"] == subject and words in it["what"] and it["next"] for it in told())

    orphan = f"{WEST}: BackendTrafficPolicy app/orphan"
    until(lambda: found(orphan, "Accepted is False (TargetNotFound)"), lambda: str(told()))
    route = f"{WEST}: GRPCRoute app/nowhere"
    until(lambda: found(route, "ResolvedRefs is False (BackendNotFound)"), lambda: str(told()))
    (finding,) = [it for it in told() if it["subject"] == route]
    command = finding["next"].partition(": ")[2]
    assert command == f"kubectl --context {WEST} describe grpcroute nowhere -n app"
    assert not [it for it in told() if it["area"] == "crds" or EAST in it["subject"]]


@pytest.fixture(scope="module")
def talking(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesServer]:
    """A cluster with an agent's and a gateway's Pod that write, and a Pod without an image."""
    if not namespace.inside():
        pytest.skip("wants its own network: make test-kubernetes")
    state = tmp_path_factory.mktemp("pods")
    with (
        running_kubernetes(controllers=True, service_network="10.96.0.0/17") as server,
        running_pods(server, IMAGES, state, "--node", "node-a=zone-a"),
    ):
        server.kubectl("create", "namespace", "federation-system")
        pods = (
            ("agent-0", "agent", "0", "says"),
            ("gateway-0", "gateway", "0.5", "says"),
            ("gateway-pending", "gateway", "0", "nobody-has-it"),
            ("resolver-0", "resolver", "0", "ticks"),
        )
        names = ("name", "component", "later", "image")
        text = "".join(POD % dict(zip(names, pod, strict=True)) for pod in pods)
        until(
            lambda: "default" in server.kubectl("get", "sa", "-n", "federation-system", ok=False),
            lambda: "no service account",
        )
        server.kubectl("apply", "-f", "-", stdin=text)
        yield server


def logs(server: KubernetesServer, *options: str) -> Result:
    config = ("--kubeconfig", str(server.kubeconfig), "--context", f"west={context_of(server)}")
    return fedctl("logs", *config, "-o", "json", *options)


def test_logs_of_pods_come_by_time_and_one_that_cannot_be_read_hides_none(
    talking: KubernetesServer,
) -> None:
    def said() -> list[tuple[str, str]]:
        shown = logs(talking, "--component", "agent", "--component", "gateway")
        lines = map(json.loads, shown.out.splitlines())
        return [(line["component"], line["event"]) for line in lines]

    whole = [
        (component, f"said {number}") for number in range(3) for component in ("agent", "gateway")
    ]
    until(lambda: said() == whole, lambda: str(logs(talking)))
    shown = logs(talking, "--component", "gateway", "--level", "warning", "--field", "peer=east")
    assert shown.code == 1
    assert "reading logs of gateway-pending in west: " in shown.err
    events = [json.loads(line) for line in shown.out.splitlines()]
    assert [(it["source"], it["cluster"], it["event"]) for it in events] == [
        ("gateway-0", "west", "said 1"),
        ("gateway-0", "west", "said 2"),
    ]
    agents = logs(talking, "--component", "agent", "--tail", "1")
    assert agents.code == 0
    assert [json.loads(line)["event"] for line in agents.out.splitlines()] == ["said 2"]


def test_logs_of_pods_are_followed(talking: KubernetesServer) -> None:
    config = ("--kubeconfig", str(talking.kubeconfig), "--context", context_of(talking))
    chosen = ("--component", "resolver", "--component", "agent", "--tail", "1", "-o", "json")
    until(lambda: logs(talking, "--component", "resolver").out, lambda: str(logs(talking)))
    following = subprocess.Popen(
        [str(FEDCTL), "logs", "--follow", *config, *chosen],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    with following:
        try:
            lines = [json.loads(following.stdout.readline()) for _ in range(6)]
            following.send_signal(signal.SIGINT)
            assert following.wait(timeout=20) == 130
        finally:
            following.kill()
    ticks = [int(it["event"].split()[1]) for it in lines if it["component"] == "resolver"]
    assert len(ticks) >= 5
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))


def test_logs_of_a_context_that_is_not_there(talking: KubernetesServer, tmp_path: Path) -> None:
    none = tmp_path / "none"
    shown = fedctl("logs", "--kubeconfig", str(none), "--context", "west")
    assert shown.code == 1
    assert "error: reading logs of west: " in shown.err
    assert str(none) in shown.err
