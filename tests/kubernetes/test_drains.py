"""Drain objects on real API servers: applied with kubectl, done by the resolver, told in status."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.testkit.etcd import EtcdServer, running_etcd
from tests.testkit.federation import FEDCTL, Federation, Process, conditions, process, until
from tests.testkit.kubernetes import EXPORTED_SERVICE, KubernetesServer
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(300)

BASE = Path(__file__).parents[2] / "clusters" / "base"
REGIONS = {"us-west-1": "us-west", "us-east-1": "us-east"}


@dataclass
class Cluster:
    """One member: its API server and its agent, which has the rights of its account alone."""

    name: str
    server: KubernetesServer
    federation: Federation
    xds: str

    @contextlib.contextmanager
    def agent(self) -> Iterator[Process]:
        """A run of the agent; its log is new each time."""
        token = self.server.kubectl(
            "create", "token", "federation-agent", "-n", "federation-system"
        )
        kubeconfig = self.server.write_kubeconfig("agent", token.strip())
        directory = self.federation.directory
        options = (
            *("agent", "--cluster", self.name, "--region", REGIONS[self.name]),
            *("--source", "kubernetes", "--kubeconfig", str(kubeconfig)),
            *("--xds", self.xds, "--state-dir", str(directory / self.name)),
        )
        log = directory / f"{self.name}.log"
        with process(log, *FEDCTL, *self.federation.options, *options) as running:
            yield running

    def gateway(self) -> contextlib.AbstractContextManager[Process]:
        """A gateway, so that the cluster has an entrance."""
        directory = self.federation.directory
        options = (
            *("-m", "gateway", "--name", f"{self.name}-gw", "--cluster", self.name),
            *("--agent", self.xds, "--state-dir", str(directory / f"{self.name}-gw")),
            *("--address", "127.0.0.1", "--eastwest-address", f"127.0.0.1:{free_port()}"),
        )
        return process(directory / f"{self.name}-gw.log", *options)

    def drain(self, name: str, target: str, **spec: Any) -> None:
        """``kubectl apply`` of a Drain."""
        spec = {"target": target, "over": "1s", "grace": "1s", **spec}
        document = {
            "apiVersion": "federation.dev/v1alpha1",
            "kind": "Drain",
            "metadata": {"name": name},
            "spec": spec,
        }
        self.server.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def undrain(self, name: str) -> None:
        """``kubectl delete`` of it."""
        self.server.kubectl("delete", "drain", name)

    def status(self, name: str) -> dict[str, Any]:
        """The object's status."""
        shown = json.loads(self.server.kubectl("get", "drain", name, "-o", "json"))
        status = shown.get("status", {})
        assert isinstance(status, dict)
        return status

    def phase(self, name: str) -> str:
        """The object's phase; empty: none yet."""
        return str(self.status(name).get("phase", ""))

    def becomes(self, name: str, phase: str) -> dict[str, Any]:
        """Wait for the phase; the status then."""
        until(lambda: self.phase(name) == phase, lambda: self.status(name))
        return self.status(name)


@dataclass
class Pair:
    """The federation of two clusters."""

    west: Cluster
    east: Cluster
    federation: Federation
    etcd: EtcdServer

    def drains(self) -> dict[str, dict[str, Any]]:
        """The list of ``fedctl status``, by name."""
        shown = json.loads(self.federation.fedctl("status", "-o", "json").stdout)
        return {entry["name"]: entry for entry in shown["drains"]}

    def serve(self) -> None:
        """Let both clusters export the service and have a gateway."""
        for cluster in (self.west, self.east):
            cluster.server.kubectl("apply", "-f", "-", stdin=EXPORTED_SERVICE)

        def whole() -> bool:
            shown = json.loads(self.federation.fedctl("status", "-o", "json").stdout)
            ready = [len(entry["clusters"]) for entry in shown["services"]]
            return ready == [2] and all(entry["gateways"] for entry in shown["members"])

        until(whole, lambda: self.federation.fedctl("status").stdout)


@pytest.fixture(scope="module")
def pair(
    kubernetes_pair: tuple[KubernetesServer, KubernetesServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("drains")
    with contextlib.ExitStack() as stack:
        etcd = stack.enter_context(running_etcd())
        federation = Federation(etcd.endpoint, directory)
        resolver = (*FEDCTL, *federation.options, "resolver", "--name", "resolver-1")
        stack.enter_context(process(directory / "resolver.log", *resolver))
        found = []
        for name, server in zip(REGIONS, kubernetes_pair, strict=True):
            server.kubectl("apply", "--server-side", "-f", str(BASE.parents[1] / "crds"))
            for manifest in (BASE / "namespace.yaml", BASE / "agent" / "rbac.yaml"):
                server.kubectl("apply", "-f", str(manifest))
            cluster = Cluster(name, server, federation, f"127.0.0.1:{free_port()}")
            stack.enter_context(cluster.gateway())
            found.append(cluster)
        yield Pair(found[0], found[1], federation, etcd)


@pytest.fixture
def running(pair: Pair) -> Iterator[Pair]:
    """Both agents running, both clusters serving, no Drain from before."""
    with pair.west.agent(), pair.east.agent():
        pair.serve()
        yield pair
        for cluster in (pair.west, pair.east):
            cluster.server.kubectl("delete", "drains", "--all")
        until(lambda: not pair.drains(), pair.drains)


def test_an_object_drains_and_its_end_undoes_it(running: Pair) -> None:
    west = running.west
    west.drain("maintenance", "us-west-1", over="3s", expires="1h")
    ramping = west.becomes("maintenance", "Ramping")
    assert set(ramping) >= {"startTime", "expirationTime", "percentMoved"}
    drained = west.becomes("maintenance", "Drained")
    assert drained["percentMoved"] == 100
    told = conditions(drained)
    assert told["Accepted"] == "True, Accepted: "
    assert told["Drained"] == "True, Drained: 100 % of the traffic is moved away"
    generations = {entry["observedGeneration"] for entry in drained["conditions"]}
    assert generations == {1}
    listed = running.drains()["us-west-1:maintenance"]
    assert (listed["target"], listed["progress"]) == ("us-west-1", "Drained")
    assert listed["requestedBy"] == "Drain maintenance in us-west-1"
    west.undrain("maintenance")
    until(lambda: not running.drains(), running.drains)


def test_kubectl_lists_it_in_columns(running: Pair) -> None:
    running.west.drain("listed", "us-west-1", service={"namespace": "app", "name": "users"})
    running.west.becomes("listed", "Drained")
    heading, line = running.west.server.kubectl("get", "fdr", "listed").splitlines()
    assert heading.split() == [
        *("NAME", "TARGET", "SERVICE", "PHASE", "MOVED", "STREAMS", "ACCEPTED", "EXPIRES", "AGE"),
    ]
    assert line.split()[:5] == ["listed", "us-west-1", "users", "Drained", "100"]
    assert "True" in line.split()
    assert "listed" in running.west.server.kubectl("get", "federation", "-A")


def test_what_the_rest_cannot_carry_is_refused_until_it_can(running: Pair) -> None:
    running.west.drain("first", "us-west-1")
    running.west.becomes("first", "Drained")
    running.east.drain("second", "us-east-1")
    refused = running.east.becomes("second", "Refused")
    assert conditions(refused)["Accepted"] == (
        "False, Refused: draining us-east-1 would leave no healthy cluster for app/users "
        "(us-west-1 is drained). Use force: true to drain all the same"
    )
    assert "second in us-east-1: draining us-east-1 would" in running.federation.fedctl(
        "status"
    ).stdout.replace("Drain ", "")
    running.west.undrain("first")
    running.east.becomes("second", "Drained")


def test_another_cluster_is_none_of_its_business(running: Pair) -> None:
    running.west.drain("others", "us-east-1")
    refused = running.west.becomes("others", "Refused")
    assert conditions(refused)["Accepted"].startswith("False, NotPermitted: objects of us-west-1")


def test_fedctl_and_objects_are_one_list(running: Pair) -> None:
    running.west.drain("object", "us-west-1")
    running.west.becomes("object", "Drained")
    done = running.federation.fedctl("drain", "us-east-1", "--over", "1s")
    assert done.exit_code == 5, done.output
    assert "us-west-1 is drained" in done.output
    done = running.federation.fedctl("undrain", "us-west-1")
    assert done.exit_code == 5, done.output
    assert "kubectl delete drain object" in done.output


def test_an_api_server_that_is_away_undoes_nothing(running: Pair) -> None:
    west = running.west
    west.drain("kept", "us-west-1")
    west.becomes("kept", "Drained")
    west.server.kill_api()
    running.east.drain("meanwhile", "nowhere")  # the federation goes on, and shows it
    running.east.becomes("meanwhile", "Refused")
    assert running.drains()["us-west-1:kept"]["requested"]
    west.server.start_api()
    assert west.becomes("kept", "Drained")


def test_a_restart_of_the_agent_undoes_nothing(pair: Pair) -> None:
    with pair.east.agent():
        with pair.west.agent():
            pair.serve()
            pair.west.drain("kept", "us-west-1")
            pair.west.becomes("kept", "Drained")
            begun = pair.west.status("kept")["startTime"]
        with pair.west.agent() as again:
            again.says("heartbeat is present")
            pair.west.drain("later", "nowhere")
            pair.west.becomes("later", "Refused")
            assert pair.west.status("kept")["startTime"] == begun
            pair.west.undrain("kept")
            pair.west.undrain("later")
            until(lambda: not pair.drains(), pair.drains)
