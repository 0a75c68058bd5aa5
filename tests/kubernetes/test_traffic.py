"""One cluster on a real API server: an agent, a resolver, a gateway, and calls through it.

Everything a person does goes through ``kubectl``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.native.support import Backend, channel
from tests.testkit import namespace
from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, Federation, Process, conditions, process, until
from tests.testkit.kubernetes import KubernetesServer, install_released_crds_now
from tests.testkit.ports import free_port

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(120),
]

CLUSTER = "west-a"
BASE_MANIFESTS = Path(__file__).parents[2] / "clusters" / "base"
PODS = {"blue": "10.77.1.1", "green": "10.77.1.2"}
POD_PORT = 9090

BASE = """
apiVersion: v1
kind: Namespace
metadata: {{name: infra}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: app}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: istio}}
spec: {{controllerName: federation.dev/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: infra}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: grpc, port: {port}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: echo, namespace: app}}
spec:
  parentRefs: [{{name: edge, namespace: infra}}]
  rules:
  - backendRefs:
    - {{name: blue, port: 9090, weight: 1}}
    - {{name: green, port: 9090, weight: 0}}
"""

SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: app}}
spec: {{ports: [{{name: grpc, port: 9090}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: app, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: grpc, port: 9090}}]
endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]
"""


@dataclass
class Cluster:
    """The running cluster."""

    kubernetes: KubernetesServer
    federation: Federation
    port: int
    xds: str
    agent: Process = field(init=False)

    def start_agent(self, state: Path) -> contextlib.AbstractContextManager[Process]:
        """An agent with the rights of its own account, and no others."""
        for manifest in (BASE_MANIFESTS / "namespace.yaml", BASE_MANIFESTS / "agent" / "rbac.yaml"):
            self.kubectl("apply", "-f", str(manifest))
        token = self.kubectl("create", "token", "federation-agent", "-n", "federation-system")
        kubeconfig = self.kubernetes.write_kubeconfig("agent", token.strip())
        options = (
            *("agent", "--cluster", CLUSTER, "--region", "us-west-1", "--xds", self.xds),
            *("--source", "kubernetes", "--kubeconfig", str(kubeconfig)),
            *("--state-dir", str(state)),
        )
        log = state.with_suffix(".log")
        return process(log, *FEDCTL, *self.federation.options, *options)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """One command of kubectl, which must succeed."""
        return self.kubernetes.kubectl(*arguments, stdin=stdin)

    def conditions(self, kind: str, name: str, at: str = "") -> dict[str, str]:
        """An object's conditions as ``tests.testkit.federation.conditions`` tells them."""
        shown: dict[str, Any] = json.loads(
            self.kubectl("get", kind, name, "-n", "app", "-o", "json")
        )
        return conditions(shown.get("status", {}), at)

    def call(self) -> str:
        """Which backend answers a call; empty: none did."""
        with channel(f"127.0.0.1:{self.port}") as opened:
            try:
                _, call = opened.unary_unary("/test.Echo/Unary").with_call(b"", timeout=5)
            except grpc.RpcError:
                return ""
        return str(dict(call.initial_metadata()).get("x-served-by", ""))


@pytest.fixture
def cluster(own_kubernetes: KubernetesServer, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose gateway serves the route."""
    install_released_crds_now(own_kubernetes)
    port, xds = free_port(), f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        for name, address in PODS.items():
            backend = Backend(name).start(POD_PORT, host=address)
            stack.callback(backend.stop)
        federation = Federation(stack.enter_context(running_etcd()).endpoint, tmp_path)
        found = Cluster(own_kubernetes, federation, port, xds)
        services = "".join(SERVICE.format(name=name, address=PODS[name]) for name in PODS)
        found.kubectl("apply", "-f", "-", stdin=BASE.format(port=port) + services)
        gateway = (
            *("-m", "gateway", "--name", "gw-1", "--cluster", CLUSTER, "--agent", xds),
            *("--state-dir", str(tmp_path / "gateway"), "--address", "127.0.0.1"),
        )
        resolver = (*FEDCTL, *federation.options, "resolver", "--name", "resolver-1")
        stack.enter_context(process(tmp_path / "resolver.log", *resolver))
        found.agent = stack.enter_context(found.start_agent(tmp_path / "agent"))
        stack.enter_context(process(tmp_path / "gateway.log", *gateway)).says("gateway started")
        until(lambda: found.call() == "blue", found.agent.output)
        yield found


def test_weights_follow_a_json_patch(cluster: Cluster) -> None:
    patch = [
        {"op": "replace", "path": "/spec/rules/0/backendRefs/0/weight", "value": 0},
        {"op": "replace", "path": "/spec/rules/0/backendRefs/1/weight", "value": 1},
    ]
    cluster.kubectl(
        "patch", "grpcroute", "echo", "-n", "app", "--type=json", "-p", json.dumps(patch)
    )
    until(lambda: cluster.call() == "green", cluster.call)


def test_statuses_are_there_for_kubectl(cluster: Cluster) -> None:
    def accepted() -> bool:
        return (
            cluster.conditions("grpcroute", "echo", "edge")
            .get("Accepted", "")
            .startswith("True, Accepted")
        )

    until(accepted, lambda: cluster.conditions("grpcroute", "echo", "edge"))
    shown = cluster.kubectl("get", "gateway", "edge", "-n", "infra", "-o", "json")
    programmed = conditions(json.loads(shown)["status"])["Programmed"]
    assert programmed.startswith("True, Programmed"), programmed
    shown = cluster.kubectl("get", "gatewayclass", "istio", "-o", "json")
    assert conditions(json.loads(shown)["status"])["Accepted"].startswith("True, Accepted")
    # All of it with the rights of clusters/base/agent/rbac.yaml.
    assert ": 403" not in cluster.agent.output(), cluster.agent.output()


def test_traffic_goes_on_while_the_api_server_is_away(cluster: Cluster) -> None:
    cluster.kubernetes.kill_api()
    assert [cluster.call() for _ in range(20)] == ["blue"] * 20
    cluster.kubernetes.start_api()
    cluster.kubectl("delete", "endpointslice", "blue-1", "-n", "app")
    until(lambda: cluster.call() == "", cluster.call)


def test_an_agent_without_its_state_is_still_this_clusters(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A Pod that starts elsewhere has no state directory, and the same name."""
    cluster.agent.command.kill()
    cluster.agent.command.wait()
    with cluster.start_agent(tmp_path / "elsewhere") as again:
        again.says("heartbeat is present")
        cluster.kubectl("delete", "endpointslice", "blue-1", "-n", "app")
        until(lambda: cluster.call() == "", again.output)
