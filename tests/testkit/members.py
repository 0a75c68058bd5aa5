"""Two member clusters on real API servers, each with an agent, a gateway and backends.

Everything stands in the network namespace of ``tests.testkit.namespace``: each cluster's gateway
has an address of its own there, and so has each backend, which EndpointSlices name. Objects are
applied by ``kubectl``; the agents have the rights of their own account and no others.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from federation.cli.lab.authority import Authority
from tests.native.support import SERVICE, Backend, channel
from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, ROOT, Federation, Process, conditions, process, until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.ports import free_port

REGIONS = {"us-west-1": "us-west", "us-east-1": "us-east"}
"""The members and their regions."""

START_S = 60.0
"""What a gateway's process may take on a machine that has much to do."""

LISTENER_PORT, EASTWEST_PORT, POD_PORT = 8080, 15444, 9090
MANIFESTS = ROOT / "clusters" / "base"

GATEWAY = """
apiVersion: v1
kind: Namespace
metadata: {name: infra}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: federation.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  gatewayClassName: istio
  listeners:
  - {name: grpc, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
"""


@dataclass
class Member:
    """One cluster: its API server and what runs in it."""

    name: str
    number: int
    server: KubernetesServer
    agent: Process = field(init=False)
    gateway: Process = field(init=False)
    _pods: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def region(self) -> str:
        return REGIONS[self.name]

    @property
    def address(self) -> str:
        """Where its gateway listens."""
        return f"10.77.100.{self.number}"

    def pod_address(self) -> str:
        """An address that no Pod of the cluster has had."""
        number = next(self._pods)
        return f"10.77.{self.number}{number // 250}.{number % 250 + 1}"

    def conditions(self, kind: str, namespace: str, name: str, at: str = "") -> dict[str, str]:
        """An object's conditions as ``tests.testkit.federation.conditions`` tells them."""
        return conditions(self.server.object(kind, namespace, name).get("status", {}), at)


@dataclass
class Members:
    """The two clusters and the federation they form."""

    west: Member
    east: Member
    federation: Federation

    @property
    def both(self) -> tuple[Member, Member]:
        return self.west, self.east


@contextlib.contextmanager
def running_members(
    servers: tuple[KubernetesServer, KubernetesServer],
    directory: Path,
    options: Callable[[Member], Sequence[str]] = lambda _member: (),
) -> Iterator[Members]:
    """Two members whose gateways are connected to each other and to their agents.

    ``options`` are further ones for the agent of a member.
    """
    authority = Authority("test")
    with contextlib.ExitStack() as stack:
        federation = Federation(stack.enter_context(running_etcd()).endpoint, directory)
        resolver = (*FEDCTL, *federation.options, "resolver", "--name", "resolver-1")
        stack.enter_context(process(directory / "resolver.log", *resolver))
        found = []
        for number, (name, server) in enumerate(zip(REGIONS, servers, strict=True), start=1):
            member = Member(name, number, server)
            _start(stack, member, federation, authority, directory, options(member))
            found.append(member)
        for member in found:
            until(
                lambda: "gateway started" in member.gateway.output(),  # noqa: B023
                member.gateway.output,
                within_s=START_S,
            )
        yield Members(found[0], found[1], federation)
        for member in found:
            assert ": 403" not in member.agent.output(), member.agent.output()
            # Nobody else writes statuses here: to think so is to mistake one's own writes.
            assert "changed by another" not in member.agent.output(), member.agent.output()


def _start(
    stack: contextlib.ExitStack,
    member: Member,
    federation: Federation,
    authority: Authority,
    directory: Path,
    options: Sequence[str],
) -> None:
    server = member.server
    for manifest in ("namespace.yaml", "agent/rbac.yaml"):
        server.kubectl("apply", "-f", str(MANIFESTS / manifest))
    server.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    server.kubectl("apply", "-f", "-", stdin=GATEWAY)
    account = ("federation-agent", "-n", "federation-system")
    kubeconfig = server.write_kubeconfig("agent", server.kubectl("create", "token", *account))
    xds = f"127.0.0.1:{free_port()}"
    agent = (
        *(*FEDCTL, *federation.options, "agent", "--cluster", member.name),
        *("--region", member.region, "--xds", xds, "--state-dir", str(directory / member.name)),
        *("--source", "kubernetes", "--kubeconfig", str(kubeconfig)),
        *options,
    )
    member.agent = stack.enter_context(process(directory / f"{member.name}.log", *agent))
    pair = authority.issue_gateway(f"{member.name}-gateway", cluster=member.name)
    files = {"crt": pair.certificate_pem, "key": pair.key_pem, "ca": authority.certificate_pem}
    paths = {ending: directory / f"{member.name}.{ending}" for ending in files}
    for ending, path in paths.items():
        path.write_bytes(files[ending])
    gateway = (
        *("-m", "gateway", "--name", f"{member.name}-gateway", "--cluster", member.name),
        *("--agent", xds, "--state-dir", str(directory / f"{member.name}-gateway")),
        *("--address", member.address, "--eastwest-address", f"{member.address}:{EASTWEST_PORT}"),
        *("--identity-cert", str(paths["crt"]), "--identity-key", str(paths["key"])),
        *("--trust-bundle", str(paths["ca"])),
    )
    log = directory / f"{member.name}-gateway.log"
    member.gateway = stack.enter_context(process(log, *gateway))


@dataclass
class Place:
    """A namespace in both clusters, with Services, their Pods, and a route of one host."""

    members: Members
    namespace: str
    _stack: contextlib.ExitStack
    backends: dict[str, Backend] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The host that the namespace's routes serve."""
        return f"{self.namespace}.example.com"

    def object(self, api_version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        """An object of the namespace."""
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}

    def service(
        self, member: Member, name: str = "users", *, pods: int = 1, **spec: Any
    ) -> list[Backend]:
        """A Service in ``member`` with running Pods, which call themselves NAME@CLUSTER."""
        port = {"name": "grpc", "port": POD_PORT, "protocol": "TCP"}
        started = [
            self._backend(f"{name}@{member.name}", member.pod_address()) for _ in range(pods)
        ]
        self.backends.update((backend.address, backend) for backend in started)
        member.server.apply(
            self.object("v1", "Service", name, spec={"ports": [port], **spec}),
            self.slice(name, started),
        )
        return started

    def slice(self, name: str, backends: list[Backend]) -> dict[str, Any]:
        """The EndpointSlice of a Service."""
        found = self.object("discovery.k8s.io/v1", "EndpointSlice", f"{name}-1")
        found["metadata"]["labels"] = {"kubernetes.io/service-name": name}
        hosts = [backend.address.rpartition(":")[0] for backend in backends]
        return found | {
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": POD_PORT}],
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}} for host in hosts],
        }

    def _backend(self, name: str, address: str) -> Backend:
        started = Backend(name).start(POD_PORT, host=address)
        self._stack.callback(started.stop)
        return started

    def export(self, *members: Member, name: str = "users") -> None:
        """Export a Service from ``members``, and wait for its import in both clusters."""
        for member in members:
            export = self.object("multicluster.x-k8s.io/v1beta1", "ServiceExport", name)
            member.server.apply(export)
        names = {member.name for member in members}
        kind = "serviceimports.multicluster.x-k8s.io"
        for member in self.members.both:

            def backed(member: Member = member) -> bool:
                status = member.server.object(kind, self.namespace, name).get("status", {})
                return names <= {entry["cluster"] for entry in status.get("clusters", [])}

            until(backed, lambda: member.agent.output()[-3000:])  # noqa: B023

    def route(
        self, *backends: Mapping[str, Any], matches: tuple[Mapping[str, Any], ...] = ()
    ) -> dict[str, Any]:
        """A GRPCRoute of the namespace's host with one rule."""
        rule: dict[str, Any] = {"backendRefs": [dict(backend) for backend in backends]}
        if matches:
            rule["matches"] = [dict(match) for match in matches]
        spec = {
            "parentRefs": [{"name": "edge", "namespace": "infra"}],
            "hostnames": [self.host],
            "rules": [rule],
        }
        return self.object("gateway.networking.k8s.io/v1", "GRPCRoute", "users", spec=spec)

    def said(self, member: Member, condition: str, *, kind: str = "grpcroute") -> str:
        """What a condition of the route says at its parent."""
        found = member.conditions(kind, self.namespace, "users", "edge")
        return found.get(condition, "")

    def call(self, member: Member, method: str = "Unary") -> str:
        """Who answers one call at the gateway of ``member``, or with which code it fails."""
        options = [("grpc.default_authority", self.host)]
        with channel(f"{member.address}:{LISTENER_PORT}", options=options) as opened:
            return _answer(opened, method)

    def answers(self, member: Member, count: int = 100) -> Counter[str]:
        """Who answers ``count`` calls, or with which codes they fail."""
        options = [("grpc.default_authority", self.host)]
        with channel(f"{member.address}:{LISTENER_PORT}", options=options) as opened:
            return Counter(_answer(opened) for _ in range(count))

    def becomes(self, member: Member, *expected: str) -> None:
        """Wait until calls are answered by each of ``expected`` and by nobody else."""
        until(
            lambda: set(self.answers(member, 40)) == set(expected),
            lambda: f"{self.answers(member, 40)}\n{member.agent.output()[-3000:]}",
        )

    @contextlib.contextmanager
    def calling(self, member: Member) -> Iterator[Counter[str]]:
        """Calls without a pause while the block runs; what they were answered is in the result."""
        seen: Counter[str] = Counter()
        ended = threading.Event()
        options = [("grpc.default_authority", self.host)]

        def work() -> None:
            with channel(f"{member.address}:{LISTENER_PORT}", options=options) as opened:
                while not ended.wait(0.005):
                    seen[_answer(opened)] += 1

        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield seen
        finally:
            ended.set()
            worker.join()


def _answer(opened: grpc.Channel, method: str = "Unary") -> str:
    try:
        _, call = opened.unary_unary(f"/{SERVICE}/{method}").with_call(b"", timeout=10)
    except grpc.RpcError as error:
        return str(error.code().name)
    return str(dict(call.initial_metadata()).get("x-served-by", ""))


_numbers = itertools.count(1)


@contextlib.contextmanager
def place(members: Members) -> Iterator[Place]:
    """A namespace of its own in both clusters; its Pods, exports and routes end with the block."""
    with contextlib.ExitStack() as stack:
        found = Place(members, f"place-{next(_numbers)}", stack)
        for member in members.both:
            member.server.kubectl("create", "namespace", found.namespace)
        try:
            yield found
        finally:
            exports = "serviceexports.multicluster.x-k8s.io,grpcroutes.gateway.networking.k8s.io"
            for member in members.both:
                member.server.kubectl("delete", exports, "--all", "-n", found.namespace)
