"""A cluster whose gateways are Pods: an agent with the rights of its account, and servers to call.

The agent, the resolver and etcd run beside the cluster in the test's network namespace; gateways
run as Pods (``tests.testkit.pods``) and are called at their Services' addresses. Servers stand at
Pod addresses with EndpointSlices written for them. Wants ``tests.testkit.namespace``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml

from tests.native.support import Backend, channel
from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, ROOT, Federation, Process, conditions, process, until
from tests.testkit.kubernetes import (
    KubernetesServer,
    install_released_crds_now,
    running_kubernetes,
)
from tests.testkit.pods import running_pods
from tests.testkit.ports import free_port

CLUSTERS = ROOT / "clusters"
CLUSTER = "west-a"
AGENT_HOST = "10.77.0.2"
GROUP = "gateway.networking.k8s.io"
PODS_START_S = 60.0
"""Processes of Python start slowly on a machine that does much else."""

_hosts = (f"10.77.{100 + n // 250}.{1 + n % 250}" for n in itertools.count())
IMAGES = {
    "federation": {
        "entrypoint": [sys.executable, *FEDCTL],
        "env": {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    }
}


def template(*, agent: str, namespace: str | None) -> dict[str, Any]:
    """The template of ``clusters/dedicated`` for gateways without an identity."""
    found: dict[str, Any] = yaml.safe_load((CLUSTERS / "dedicated/template.yaml").read_text())
    found["metadata"] = {} if namespace is None else {"namespace": namespace}
    found["spec"]["replicas"] = 1
    pod = found["spec"]["template"]["spec"]
    container = pod["containers"][0]
    told = ("--agent", "--identity-", "--trust-bundle", "--cluster", "--region", "--drain-grace")
    kept = [word for word in container["args"] if not word.startswith(told)]
    container["args"] = [*kept, f"--agent={agent}", f"--cluster={CLUSTER}", "--drain-grace=1"]
    container["env"] = [it for it in container["env"] if it["name"] == "POD_NAME"]
    container["volumeMounts"] = [it for it in container["volumeMounts"] if it["name"] == "state"]
    pod["volumes"] = [it for it in pod["volumes"] if it["name"] == "state"]
    pod["terminationGracePeriodSeconds"] = 5
    container["readinessProbe"]["periodSeconds"] = 1
    container.pop("lifecycle")
    return found


@dataclass
class GatewayCluster:
    """The running cluster; ``log`` is the agent's."""

    kubernetes: KubernetesServer
    federation: Federation
    xds: str
    directory: Path
    agent_options: Sequence[str] = ()
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    agents: list[Process] = field(default_factory=list)

    def start_agent(self) -> Process:
        """An agent of the cluster, the first or after ``stop_agent``."""
        self.kubernetes.kubectl("apply", "-f", str(CLUSTERS / "base/namespace.yaml"))
        self.kubernetes.kubectl("apply", "-f", str(CLUSTERS / "base/agent/rbac.yaml"))
        account = ("federation-agent", "-n", "federation-system")
        token = self.kubernetes.kubectl("create", "token", *account).strip()
        kubeconfig = self.kubernetes.write_kubeconfig("agent", token)
        name = f"agent-{len(self.agents)}"
        options = (
            *("agent", "--cluster", CLUSTER, "--region", "us-west-1", "--xds", self.xds),
            *("--source", "kubernetes", "--kubeconfig", str(kubeconfig)),
            *("--state-dir", str(self.directory / "agent"), *self.agent_options),
        )
        log = self.directory / f"{name}.log"
        started = process(log, *FEDCTL, *self.federation.options, *options)
        self.agents.append(self.stack.enter_context(started))
        return self.agents[-1]

    def stop_agent(self) -> None:
        """End the agent as a stopped Pod does."""
        self.agents[-1].command.terminate()
        self.agents[-1].ended()

    def log(self) -> str:
        """What the newest agent has written, its end."""
        return self.agents[-1].output()[-6000:]

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """``kubectl apply`` of objects."""
        self.kubernetes.apply(*objects)

    def serve(self, namespace: str, name: str) -> Backend:
        """A gRPC server at a Pod address, behind the Service ``name``."""
        host = next(_hosts)
        backend = Backend(name).start(9090, host=host)
        self.stack.callback(backend.stop)
        self.apply(*service(namespace, name, host))
        return backend

    def status(self, namespace: str, name: str) -> dict[str, Any]:
        """The status of a Gateway."""
        found = self.kubernetes.object("gateway", namespace, name).get("status", {})
        assert isinstance(found, dict)
        return found

    def conditions(self, namespace: str, name: str, at: str = "") -> dict[str, str]:
        """A Gateway's conditions."""
        return conditions(self.status(namespace, name), at)

    def addresses(self, namespace: str, name: str) -> list[str]:
        """A Gateway's addresses."""
        return [entry["value"] for entry in self.status(namespace, name).get("addresses", [])]

    def programmed(self, namespace: str, name: str) -> str:
        """The address of a Gateway, once it is programmed."""

        def ready() -> bool:
            told = self.conditions(namespace, name).get("Programmed", "")
            return told.startswith("True, Programmed")

        until(ready, lambda: self.told(namespace, name), within_s=PODS_START_S)
        return self.addresses(namespace, name)[0]

    def told(self, namespace: str, name: str) -> str:
        """What is there, for a failed wait."""
        shown = json.dumps(self.status(namespace, name), indent=1)
        pods = self.kubernetes.kubectl("get", "pods,services,deployments", "-A", "-o", "wide")
        return f"{shown}\n{pods}\n{self.log()}"

    def made(self, kind: str, gateway: str) -> list[dict[str, Any]]:
        """Objects of a kind that were made for the Gateway ``NAMESPACE/NAME``."""
        selector = "federation.dev/managed-by=gateway-infrastructure"
        shown = self.kubernetes.kubectl("get", kind, "-A", "-l", selector, "-o", "json")
        return [
            found
            for found in json.loads(shown)["items"]
            if found["metadata"]["annotations"]["federation.dev/gateway"] == gateway
        ]


def answer(address: str, **kwargs: Any) -> str:
    """Who answers a call to ``address``; the status code's name if nobody does."""
    with channel(address, **kwargs) as opened:
        try:
            _, call = opened.unary_unary("/test.Echo/Unary").with_call(b"", timeout=5)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(dict(call.initial_metadata()).get("x-served-by", ""))


def service(namespace: str, name: str, *hosts: str) -> list[dict[str, Any]]:
    """A Service without a selector and its EndpointSlice."""
    port = {"name": "grpc", "port": 9090}
    labels = {"kubernetes.io/service-name": name}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"ports": [port]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-1", "namespace": namespace, "labels": labels},
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}} for host in hosts],
        },
    ]


def gateway(
    namespace: str, name: str, *listeners: Mapping[str, Any], **spec: Any
) -> dict[str, Any]:
    """A Gateway of class ``istio``; without ``listeners`` one of HTTP on port 80."""
    every = {"namespaces": {"from": "All"}}
    plain = {"name": "grpc", "port": 80, "protocol": "HTTP"}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "gatewayClassName": "istio",
            "listeners": [{"allowedRoutes": every, **it} for it in (listeners or (plain,))],
            **spec,
        },
    }


def route(namespace: str, name: str, parent: str, *, to: str = "") -> dict[str, Any]:
    """A GRPCRoute of everything at the Gateway ``NAMESPACE/NAME`` to the Service of its name.

    ``to`` is the Service's namespace, where it is another one.
    """
    backend = {"namespace": to} if to else {}
    where, _, who = parent.partition("/")
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [{"name": who, "namespace": where}],
            "rules": [{"backendRefs": [{"name": name, "port": 9090, **backend}]}],
        },
    }


def named(kind: str, name: str, *, api_version: str = "v1", **fields: Any) -> dict[str, Any]:
    """An object without a namespace."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **fields}


def gateway_class(name: str = "istio") -> dict[str, Any]:
    """A GatewayClass of ours."""
    spec = {"controllerName": "federation.dev/gateway-controller"}
    return named("GatewayClass", name, api_version=f"{GROUP}/v1", spec=spec)


@contextlib.contextmanager
def running_gateway_cluster(
    directory: Path,
    *,
    dedicated_in: str | None = "",
    options: Sequence[str] = (),
    images: Mapping[str, Mapping[str, Any]] | None = None,
    channel: str = "standard",
) -> Iterator[GatewayCluster]:
    """The cluster with its class and its agent.

    ``dedicated_in`` is the namespace of dedicated gateways, ``None`` for each Gateway's own; empty:
    gateways are shared, and the test's to run. ``images`` are commands besides the federation's,
    ``channel`` is that of the Gateway API's CRDs.
    """
    xds = f"{AGENT_HOST}:{free_port()}"
    with contextlib.ExitStack() as stack:
        etcd = stack.enter_context(running_etcd())
        server = stack.enter_context(
            running_kubernetes(controllers=True, service_network="10.96.0.0/17")
        )
        install_released_crds_now(server, channel=channel)
        stack.enter_context(running_pods(server, {**IMAGES, **(images or {})}, directory / "pods"))
        federation = Federation(etcd.endpoint, directory)
        found = GatewayCluster(server, federation, xds, directory, options, stack)
        resolver = (*FEDCTL, *federation.options, "resolver", "--name", "resolver-1")
        stack.enter_context(process(directory / "resolver.log", *resolver))
        found.apply(gateway_class())
        if dedicated_in != "":
            place = "in-own-namespaces" if dedicated_in is None else "in-one-namespace"
            server.kubectl("apply", "-f", str(CLUSTERS / "base/namespace.yaml"))
            for manifest in ("rights", place):
                server.kubectl("apply", "-f", str(CLUSTERS / f"dedicated/{manifest}.yaml"))
            path = directory / "template.yaml"
            path.write_text(yaml.safe_dump(template(agent=xds, namespace=dedicated_in)))
            told = ("--gateway-mode", "dedicated", "--gateway-template", str(path))
            found.agent_options = (*options, *told)
        found.start_agent()
        yield found
