"""One cluster on a real API server: agents, a resolver, gateways, Pods that answer, and calls.

Agents have the rights of their own account and no others; everything a person does goes through
``kubectl``. Wants a network namespace of the test's own (``tests.testkit.namespace``).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.native.support import Backend, channel
from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, Federation, Process, conditions, process, until
from tests.testkit.kubernetes import KubernetesServer, install_released_crds_now
from tests.testkit.ports import free_port

CLUSTER = "west-a"
REGION = "us-west-1"
BASE_MANIFESTS = Path(__file__).parents[2] / "clusters" / "base"
PODS = {"blue": "10.77.1.1", "green": "10.77.1.2"}
POD_PORT = 9090
LEASE = "federation-system/federation-agent"

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
class Calls:
    """Calls made one after the other, and what came of them."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass
class KubernetesCluster:
    """The cluster; ``port`` is that of the Gateway's one listener."""

    kubernetes: KubernetesServer
    federation: Federation
    directory: Path
    port: int
    stack: contextlib.ExitStack
    lease: bool = False
    server: str = ""
    options: tuple[str, ...] = ()
    kubeconfig: Path | None = None
    agents: dict[str, Process] = field(default_factory=dict)
    xds: dict[str, str] = field(default_factory=dict)
    gateways: dict[str, str] = field(default_factory=dict)

    def kubectl(self, *arguments: str, stdin: str | None = None, ok: bool = True) -> str:
        """One command of kubectl."""
        return self.kubernetes.kubectl(*arguments, stdin=stdin, ok=ok)

    def prepare(self) -> None:
        """Make the account that agents run under, with its rights."""
        for manifest in (BASE_MANIFESTS / "namespace.yaml", BASE_MANIFESTS / "agent" / "rbac.yaml"):
            self.kubectl("apply", "-f", str(manifest))

    def token(self) -> Path:
        """A kubeconfig with a fresh token of the agents' account."""
        token = self.kubectl("create", "token", "federation-agent", "-n", "federation-system")
        path = self.kubernetes.write_kubeconfig("agent", token.strip())
        if self.server:
            config = json.loads(path.read_text())
            config["clusters"][0]["cluster"] = {"server": self.server}
            path.write_text(json.dumps(config))
        return path

    def start_agent(self, name: str, *options: str) -> Process:
        """An agent; several of them with a lease."""
        kubeconfig = self.kubeconfig or self.token()
        xds = self.xds.setdefault(name, f"127.0.0.1:{free_port()}")
        lease = ("--lease", LEASE, "--lease-identity", name) if self.lease else ()
        command = (
            *(*FEDCTL, *self.federation.options, "agent"),
            *("--cluster", CLUSTER, "--region", REGION, "--xds", xds),
            *("--source", "kubernetes", "--kubeconfig", str(kubeconfig)),
            *("--state-dir", str(self.directory / name), *lease, *self.options, *options),
        )
        started = self.stack.enter_context(process(self.directory / f"{name}.log", *command))
        self.agents[name] = started
        return started

    def start_gateway(self, name: str, *agents: str) -> str:
        """A gateway connected to the first of ``agents``; the address of its listener."""
        host = f"127.0.0.{10 + len(self.gateways)}"
        command = (
            *("-m", "gateway", "--name", name, "--cluster", CLUSTER),
            *("--agent", ",".join(self.xds[agent] for agent in agents)),
            *("--state-dir", str(self.directory / name), "--address", host),
        )
        log = self.directory / f"{name}.log"
        self.stack.enter_context(process(log, *command)).says("gateway started")
        self.gateways[name] = f"{host}:{self.port}"
        return self.gateways[name]

    def conditions(self, kind: str, namespace: str, name: str, at: str = "") -> dict[str, str]:
        """An object's conditions as ``tests.testkit.federation.conditions`` tells them."""
        return conditions(self.kubernetes.object(kind, namespace, name).get("status", {}), at)

    def programmed(self) -> str:
        """The Gateway's condition Programmed."""
        return self.conditions("gateway", "infra", "edge").get("Programmed", "")

    def route_to(self, backend: str) -> None:
        """Send everything to one of the Pods, as the documents do it."""
        patch = [
            {
                "op": "replace",
                "path": f"/spec/rules/0/backendRefs/{number}/weight",
                "value": int(name == backend),
            }
            for number, name in enumerate(PODS)
        ]
        self.patch("grpcroute", "app", "echo", patch)

    def patch(self, kind: str, namespace: str, name: str, patch: Sequence[Any]) -> None:
        """One JSON patch."""
        where = ("-n", namespace) if namespace else ()
        self.kubectl("patch", kind, name, *where, "--type=json", "-p", json.dumps(patch))

    def apply_all(self) -> None:
        """Create or change everything that the cluster begins with."""
        services = "".join(SERVICE.format(name=name, address=PODS[name]) for name in PODS)
        self.kubectl("apply", "-f", "-", stdin=BASE.format(port=self.port) + services)

    def call(self, gateway: str = "gw-1") -> str:
        """Which backend answers a call; empty: none did."""
        with channel(self.gateways[gateway]) as opened:
            return _call(opened)[0]

    def status(self) -> str:
        """What ``fedctl status`` prints."""
        return self.federation.fedctl("status").output

    @contextlib.contextmanager
    def load(self, *gateways: str) -> Iterator[Calls]:
        """Call each of ``gateways`` fifty times a second while the block runs."""
        calls, stop = Calls(), threading.Event()

        def run(gateway: str) -> None:
            with channel(self.gateways[gateway]) as opened:
                while not stop.wait(0.02):
                    answer, error = _call(opened)
                    if answer:
                        calls.answered += 1
                    else:
                        calls.failed.append(f"{time.monotonic():.2f} {gateway}: {error}")

        threads = [threading.Thread(target=run, args=(name,)) for name in gateways or self.gateways]
        for thread in threads:
            thread.start()
        try:
            yield calls
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def _call(opened: grpc.Channel) -> tuple[str, str]:
    try:
        _, call = opened.unary_unary("/test.Echo/Unary").with_call(b"", timeout=5)
    except grpc.RpcError as error:
        return "", str(error)
    return str(dict(call.initial_metadata()).get("x-served-by", "")), ""


@contextlib.contextmanager
def running_cluster(
    kubernetes: KubernetesServer, directory: Path, *, lease: bool = False
) -> Iterator[KubernetesCluster]:
    """A cluster without agents and gateways yet, whose route leads to the Pod ``blue``."""
    install_released_crds_now(kubernetes)
    with contextlib.ExitStack() as stack:
        for name, address in PODS.items():
            backend = Backend(name).start(POD_PORT, host=address)
            stack.callback(backend.stop)
        federation = Federation(stack.enter_context(running_etcd()).endpoint, directory)
        found = KubernetesCluster(kubernetes, federation, directory, free_port(), stack, lease)
        found.apply_all()
        found.prepare()
        resolver = (*FEDCTL, *federation.options, "resolver", "--name", "resolver-1")
        stack.enter_context(process(directory / "resolver.log", *resolver))
        yield found


def start_one(cluster: KubernetesCluster, *options: str) -> None:
    """One agent and one gateway, which serve."""
    agent = cluster.start_agent("agent", *options)
    cluster.start_gateway("gw-1", "agent")
    until(lambda: cluster.call() == "blue", agent.output)
