"""A running cluster in which everything is wrong at once, beside one good route.

Builders of the manifests, and ``Edge``: the cluster with its gateway's ports and calls through it.
"""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc

from federation.cli.lab.authority import Authority
from tests.native.support import Backend, backends, channel
from tests.testkit.etcd import EtcdServer
from tests.testkit.federation import CLUSTER, REGION, Federation, running_federation, until
from tests.testkit.ports import free_port

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: infra}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: grpc, port: {grpc}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}
  - name: tcp-only
    port: {tcp_only}
    protocol: HTTP
    allowedRoutes: {{namespaces: {{from: All}}, kinds: [{{kind: TCPRoute}}]}}
  - {{name: no-cert, port: {no_cert}, protocol: HTTPS, tls: {{certificateRefs: [{{name: gone}}]}}}}
  - {{name: tls, port: {tls}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}
  - {{name: taken, port: {taken}, protocol: HTTP}}
---
apiVersion: v1
kind: Secret
metadata: {{name: cert, namespace: infra}}
type: kubernetes.io/tls
data: {{tls.crt: {certificate}, tls.key: {key}}}
"""

SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: app}}
spec: {{ports: [{{name: grpc, port: 9090}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: echo-1, namespace: app, labels: {{kubernetes.io/service-name: echo}}}}
addressType: IPv4
ports: [{{name: grpc, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"""

ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: {name}, namespace: app}}
spec:
  parentRefs: [{{name: {gateway}, namespace: infra, sectionName: {section}}}]
  rules:
  - matches: [{{method: {{service: {package}.Echo}}}}]
    backendRefs: [{backend}]
"""

POLICY = """
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {{name: {name}, namespace: app}}
spec:
  targetRef: {{group: gateway.networking.k8s.io, kind: GRPCRoute, name: {route}}}
  {spec}
"""

IMPORT = """
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ServiceImport
metadata: {{name: {name}, namespace: app}}
spec: {{type: ClusterSetIP, ports: [{{port: 9090, protocol: TCP}}], resolution: DNS}}
"""

WEIGHTS = """
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: MultiClusterService
metadata: {name: echo-global, namespace: app}
spec:
  serviceImport: {name: echo-import}
  clusterBackends: [{cluster: us-west-1, weight: 60}, {cluster: mars-1, weight: 40}]
"""

PORTS = ("grpc", "tcp_only", "no_cert", "tls", "taken")
ECHO = "{name: echo, port: 9090}"


def route(name: str, backend: str = ECHO, *, gateway: str = "edge", section: str = "grpc") -> str:
    package = name.replace("-", "_")
    return ROUTE.format(
        name=name, package=package, backend=backend, gateway=gateway, section=section
    )


def policy(name: str, target: str, spec: str) -> str:
    return POLICY.format(name=name, route=target, spec=spec)


def imported(name: str) -> str:
    return f"{{group: gateway.networking.k8s.io, kind: ServiceImport, name: {name}, port: 9090}}"


def failover(source: str, target: str) -> str:
    rules = f"[{{from: {source}, to: {target}}}]"
    return f"failover: {{strategy: RegionFailover, regionFailover: {rules}}}"


class Edge:
    """The cluster with its gateway's ports and whoever holds the port `taken`."""

    def __init__(self, federation: Federation, ports: dict[str, int], holder: socket.socket):
        self.federation = federation
        self.ports = ports
        self.holder = holder
        self.becomes = federation.becomes

    def address(self, listener: str = "grpc") -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def call(self, name: str, listener: str = "grpc") -> str:
        """Who answers `NAME.Echo`, or the status and message that the call ends with."""
        with channel(self.address(listener)) as client:
            try:
                _, state = client.unary_unary(f"/{name}.Echo/Unary").with_call(b"", timeout=10)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
        return str(dict(state.initial_metadata())["x-served-by"])


@contextlib.contextmanager
def running_edge(etcd: EtcdServer, directory: Path) -> Iterator[Edge]:
    """The cluster with all objects applied, once its good route serves."""
    with (
        socket.create_server(("127.0.0.1", 0)) as holder,
        backends("echo-1") as (backend,),
        running_federation(etcd, directory) as federation,
    ):
        ports = {name: free_port() for name in PORTS} | {"taken": holder.getsockname()[1]}
        federation.apply(everything(ports, backend))
        found = Edge(federation, ports, holder)
        until(lambda: found.call("good") == "echo-1", lambda: found.call("good"))
        yield found


def everything(ports: dict[str, int], backend: Backend) -> str:
    pair = Authority("test").issue("grpc.example.com", dns=("grpc.example.com",))
    return "".join(
        [
            GATEWAY.format(
                **ports,
                certificate=base64.b64encode(pair.certificate_pem).decode(),
                key=base64.b64encode(pair.key_pem).decode(),
            ),
            SERVICE.format(port=backend.address.rpartition(":")[2]),
            route("good"),
            route("lost", gateway="gone"),
            route("refused", section="tcp-only"),
            route("missing", "{name: nothing, port: 9090}"),
            route("nowhere", imported("nothing-import")),
            IMPORT.format(name="nothing-import"),
            route("spread", imported("echo-import")),
            IMPORT.format(name="echo-import"),
            WEIGHTS,
            policy("older", "good", "retry: {attempts: 1}"),
            policy("younger", "good", "retry: {attempts: 2}"),
            policy("to-nowhere", "spread", failover(REGION, "venus-1")),
            route("back", imported("echo-import")),
            policy("to-itself", "back", failover(REGION, CLUSTER)),
        ]
    )
