"""Imports that are used: by Pods of two clusters, by address and by name (KEP-1645).

What the MCS API's suite asks of Connectivity, DNS, EndpointSlice, StrictPortConflict and Headless.
Pods are processes with addresses of their own; they ask CoreDNS, which passes the clusterset's
names on to the agents. The paragraphs are those of the KEP
(keps/sig-multicluster/1645-multi-cluster-services-api).
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from tests.native.support import SERVICE, channel
from tests.testkit import federation, namespace
from tests.testkit.coredns import running_coredns
from tests.testkit.federation import Process
from tests.testkit.kubernetes import (
    KubernetesServer,
    install_released_crds_now,
    running_kubernetes,
)
from tests.testkit.members import (
    EASTWEST_PORT,
    POD_PORT,
    Member,
    Members,
    place,
    running_members,
)
from tests.testkit.pods import running_pods

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(300),
]

DATA = Path(__file__).parent / "data"
IMAGES = {
    "example.test/hello": {"entrypoint": [sys.executable, str(DATA / "hello_server.py")]},
    "example.test/request": {"entrypoint": [sys.executable, str(DATA / "pod_server.py")]},
}
IMPORTS = "serviceimports.multicluster.x-k8s.io"
EXPORTS = "serviceexports.multicluster.x-k8s.io"
API = "multicluster.x-k8s.io/v1beta1"
SERVICE_LABEL = "multicluster.kubernetes.io/service-name"
SOURCE_LABEL = "multicluster.kubernetes.io/source-cluster"
POLICIES = Path(__file__).parents[2] / "crds" / "observabilitypolicies.yaml"
TCP = {"name": "tcp", "port": 42, "protocol": "TCP"}
UDP = {"name": "udp", "port": 42, "protocol": "UDP"}
DNS_PORT = 15053
PATIENCE_S = 60.0
"""Pods of two clusters, their gateways and name servers share one machine."""
_numbers = itertools.count(1)
T = TypeVar("T")


def until(look: Callable[[], T], what: Callable[[], object]) -> T:
    """`tests.testkit.federation.until` with more patience."""
    return federation.until(look, what, within_s=PATIENCE_S)


def front(member: Member) -> list[dict[str, Any]]:
    """The Service in front of the member's gateway, and its slice."""
    metadata = {"name": "federation-gateway", "namespace": "federation-system"}
    port = {"name": "east-west", "port": EASTWEST_PORT}
    spec = {"ports": [port], "externalIPs": [member.address]}
    labels = {"kubernetes.io/service-name": "federation-gateway"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": labels},
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": [{"addresses": [member.address], "conditions": {"ready": True}}],
        },
    ]


def dns_address(number: int) -> str:
    """Where the CoreDNS of a cluster answers; its agent answers there at ``DNS_PORT``."""
    return f"10.77.53.{number}"


@dataclass
class Cluster:
    """A member whose Pods run."""

    member: Member
    pods: Process
    members: Members

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def server(self) -> KubernetesServer:
        return self.member.server

    def told(self) -> str:
        """What is there, for a failed wait."""
        listed = self.server.kubectl(
            "get", f"pods,services,endpointslices,{IMPORTS}", "-A", "-o", "wide"
        )
        return f"{listed}\n{self.pods.output()[-1500:]}\n{self.member.agent.output()[-3000:]}"


@dataclass
class Clusterset:
    """Both clusters, and a namespace in both that is this test's own."""

    west: Cluster
    east: Cluster
    namespace: str

    @property
    def both(self) -> tuple[Cluster, Cluster]:
        return self.west, self.east

    @property
    def name(self) -> str:
        """The name of the import."""
        return f"hello.{self.namespace}.svc.clusterset.local"

    def object(self, api_version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        """An object of the namespace."""
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}

    def pod(self, name: str, image: str, *args: str, **spec: Any) -> dict[str, Any]:
        """A Pod with one container."""
        address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        container = {"name": "main", "image": image, "args": list(args), "env": [address]}
        found = self.object("v1", "Pod", name, spec={"containers": [container], **spec})
        found["metadata"]["labels"] = {"app": image.rpartition("/")[2]}
        return found

    def service(self, cluster: Cluster, *ports: dict[str, Any], **spec: Any) -> str:
        """Service `hello` with one Pod that listens at 42; returns the Pod's address."""
        spec = {"selector": {"app": "hello"}, "ports": list(ports or (TCP, UDP)), **spec}
        cluster.server.apply(
            self.pod("hello", "example.test/hello", "42", "$(POD_IP)"),
            self.object("v1", "Service", "hello", spec=spec),
        )
        return self.address(cluster, "hello")

    def address(self, cluster: Cluster, pod: str) -> str:
        """The address of a Pod, once it is ready."""

        def ready() -> str:
            status = cluster.server.object("pod", self.namespace, pod).get("status", {})
            found = {entry["type"]: entry["status"] for entry in status.get("conditions", [])}
            return str(status["podIP"]) if found.get("Ready") == "True" else ""

        return until(ready, cluster.told)

    def export(self, *clusters: Cluster) -> None:
        """Export `hello`, one after the other, so that the first is the oldest."""
        names: set[str] = set()
        for cluster in clusters:
            cluster.server.apply(self.object(API, "ServiceExport", "hello"))
            names.add(cluster.name)
            for seen in self.both:
                until(lambda: self._exporters(seen) == names, seen.told)  # noqa: B023

    def unexport(self, cluster: Cluster) -> None:
        """Take the export of `hello` back."""
        cluster.server.kubectl("delete", EXPORTS, "hello", "-n", self.namespace)

    def _exporters(self, cluster: Cluster) -> set[str]:
        status = cluster.server.object(IMPORTS, self.namespace, "hello").get("status", {})
        return {entry["cluster"] for entry in status.get("clusters", [])}

    def imported(self, cluster: Cluster) -> dict[str, Any]:
        """The import, once it has what its type has."""

        def whole() -> dict[str, Any]:
            found = cluster.server.object(IMPORTS, self.namespace, "hello")
            spec = found.get("spec", {})
            return found if spec.get("ips") or spec.get("type") == "Headless" else {}

        return until(whole, cluster.told)

    def slices(self, cluster: Cluster) -> list[dict[str, Any]]:
        """The EndpointSlices of the import."""
        selector = f"{SERVICE_LABEL}=hello"
        shown = cluster.server.kubectl(
            "get", "endpointslices", "-n", self.namespace, "-l", selector, "-o", "json"
        )
        return list(json.loads(shown)["items"])

    def ask(self, cluster: Cluster, path: str) -> str:
        """What the requesting Pod of ``cluster`` answers to ``path``; empty when it cannot."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        at = self.address(cluster, "request")
        try:
            with opener.open(f"http://{at}:8080/{path}", timeout=20) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return ""

    def hello(self, cluster: Cluster, at: str = "", port: int = 42) -> str:
        """Which Pod says hello at ``at`` (the import's name) to a Pod of ``cluster``."""
        said = self.ask(cluster, f"say?{at or self.name}:{port}")
        found = re.fullmatch(r"pod ip (\S+)\n", said)
        return found[1] if found else said

    def dig(self, cluster: Cluster, name: str, rdtype: str = "A") -> list[str]:
        """What a Pod of ``cluster`` is answered."""
        return sorted(self.ask(cluster, f"dig?{name}+{rdtype}").split("\n"))[1:]


@pytest.fixture(scope="module")
def clusters(
    programs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Cluster]]:
    """Two clusters with Pods, gateways and names."""
    if shutil.which("dig") is None:
        pytest.skip("dig is missing (package bind9-dnsutils)")
    directory = tmp_path_factory.mktemp("traffic")
    with contextlib.ExitStack() as stack:
        servers = []
        for network in ("10.96.0.0/17", "10.96.128.0/17"):
            server = stack.enter_context(
                running_kubernetes(controllers=True, service_network=network)
            )
            install_released_crds_now(server)
            server.kubectl("apply", "--server-side", "-f", str(POLICIES))
            server.kubectl("create", "namespace", "federation-system")
            servers.append(server)
        members = stack.enter_context(
            running_members((servers[0], servers[1]), directory, _options)
        )
        found = []
        for member in members.both:
            member.server.apply(*front(member))
            pods = stack.enter_context(_pods(member, directory))
            found.append(Cluster(member, pods, members))
            answers = (dns_address(member.number), f"{dns_address(member.number)}:{DNS_PORT}")
            place = directory / f"coredns-{member.number}"
            try:
                stack.enter_context(
                    running_coredns(place, address=answers[0], federation_dns=answers[1])
                )
            except NoProgramsError as error:
                pytest.skip(f"no CoreDNS to test with: {error}")
        yield found[0], found[1]


def _options(member: Member) -> tuple[str, ...]:
    return (
        *("--gateway-service", "federation-system/federation-gateway"),
        *("--dns", f"{dns_address(member.number)}:{DNS_PORT}"),
    )


def _pods(member: Member, directory: Path) -> contextlib.AbstractContextManager[Process]:
    number = member.number
    return running_pods(
        member.server,
        IMAGES,
        directory / f"pods-{number}",
        *("--bridge", f"pods{number}", "--pod-network", f"10.78.{number}.0/24"),
        *("--load-balancers", f"10.77.20{number}.0/24", "--dns", dns_address(number)),
        *("--node", f"node-{number}"),
    )


@pytest.fixture
def here(clusters: tuple[Cluster, Cluster]) -> Iterator[Clusterset]:
    """A namespace in both clusters with a Pod that makes requests."""
    found = Clusterset(*clusters, f"traffic-{next(_numbers)}")
    for cluster in found.both:
        cluster.server.kubectl("create", "namespace", found.namespace)
        cluster.server.apply(found.pod("request", "example.test/request"))
    yield found
    for cluster in found.both:
        cluster.server.kubectl("delete", EXPORTS, "--all", "-n", found.namespace)
        running = ("statefulsets,pods", "--all", "-n", found.namespace, "--now", "--wait=false")
        cluster.server.kubectl("delete", *running)


def test_what_is_not_exported_is_not_reached(here: Clusterset) -> None:
    """ "Exporting services": only exported services are accessible through the clusterset."""
    here.service(here.west)
    for cluster in here.both:
        assert here.hello(cluster) == ""
        assert here.dig(cluster, here.name) == []


def test_an_exported_service_is_reached_from_every_cluster(here: Clusterset) -> None:
    """ "ClusterSetIP", "DNS": by the import's address and by its name, exporter included."""
    pod = here.service(here.west)
    here.export(here.west)
    for cluster in here.both:
        (address,) = here.imported(cluster)["spec"]["ips"]
        until(lambda: here.hello(cluster) == pod, cluster.told)  # noqa: B023
        assert here.hello(cluster, at=address) == pod


def test_only_the_exporting_cluster_is_reached(here: Clusterset) -> None:
    """ "Exporting services": a Service of the same name that is not exported takes no part."""
    pod = here.service(here.west)
    here.service(here.east)
    here.export(here.west)
    for cluster in here.both:
        until(lambda: here.hello(cluster) == pod, cluster.told)  # noqa: B023
        assert {here.hello(cluster) for _ in range(10)} == {pod}


def test_a_conflicting_port_is_served_by_the_cluster_that_has_it(here: Clusterset) -> None:
    """ "Service Port": the oldest's number holds, and the other cluster gets no traffic for it."""
    pod = here.service(here.west, TCP)
    here.service(here.east, {"name": "tcp", "port": 4242, "protocol": "TCP", "targetPort": 42})
    here.export(here.west, here.east)
    for cluster in here.both:
        until(lambda: here.hello(cluster) == pod, cluster.told)  # noqa: B023
        assert {here.hello(cluster) for _ in range(10)} == {pod}


def test_each_port_is_served_by_the_clusters_that_expose_it(here: Clusterset) -> None:
    """ "Service Port": of the union, each port leads only where it is exposed."""
    first = here.service(here.west, TCP)
    second = here.service(
        here.east, {"name": "tcp2", "port": 4242, "protocol": "TCP", "targetPort": 42}
    )
    here.export(here.west, here.east)
    for cluster in here.both:
        for port, pod in ((42, first), (4242, second)):
            until(lambda: here.hello(cluster, port=port) == pod, cluster.told)  # noqa: B023
            assert {here.hello(cluster, port=port) for _ in range(10)} == {pod}


def test_there_is_an_address_for_each_family(here: Clusterset) -> None:
    """ "ClusterSetIP": one for each of the import's families, in their order."""
    here.service(here.west)
    here.export(here.west)
    for cluster in here.both:
        spec = here.imported(cluster)["spec"]
        assert len(spec["ips"]) == len(spec["ipFamilies"])
        for address, family in zip(spec["ips"], spec["ipFamilies"], strict=True):
            assert f"IPv{ipaddress.ip_address(address).version}" == family


def test_slices_say_what_they_are_and_go_with_the_export(here: Clusterset) -> None:
    """ "Using EndpointSlice objects to track endpoints"."""
    here.service(here.west)
    here.export(here.west)
    for cluster in here.both:
        (found,) = until(lambda: here.slices(cluster), cluster.told)  # noqa: B023
        labels = found["metadata"]["labels"]
        assert labels[SERVICE_LABEL] == "hello"
        assert labels[SOURCE_LABEL] in {member.name for member in here.both}
        manager = labels["endpointslice.kubernetes.io/managed-by"]
        assert manager != "endpointslice-controller.k8s.io"
        assert found["endpoints"]
    here.unexport(here.west)
    for cluster in here.both:
        until(lambda: not here.slices(cluster), cluster.told)  # noqa: B023
        kinds = f"services,{IMPORTS}"
        until(
            lambda: "derived-" not in _names(cluster, kinds, here.namespace),  # noqa: B023
            cluster.told,
        )


def _names(cluster: Cluster, kinds: str, namespace: str) -> str:
    return cluster.server.kubectl("get", kinds, "-n", namespace, "-o", "name")


def test_the_name_is_the_cluster_set_ip(here: Clusterset) -> None:
    """ "DNS": A records of `<service>.<ns>.svc.clusterset.local` are the import's addresses."""
    here.service(here.west)
    here.export(here.west)
    for cluster in here.both:
        ips = here.imported(cluster)["spec"]["ips"]
        until(lambda: here.dig(cluster, here.name) == ips, cluster.told)  # noqa: B023
        # None of these may be there: "DNS", and the specification's "PTR".
        assert here.dig(cluster, f"{here.west.name}.{here.name}") == []
        assert here.dig(cluster, "dns-version.clusterset.local", "TXT") == ['"1.0.0"']


def test_srv_is_of_named_ports(here: Clusterset) -> None:
    """ "DNS": SRV of `_<port>._<protocol>.<service>…`, and of the service itself."""
    here.service(here.west)
    here.export(here.west)
    for cluster in here.both:
        expected = [f"0 100 42 {here.name}."]
        until(lambda: here.dig(cluster, here.name, "SRV") == expected, cluster.told)  # noqa: B023
        assert here.dig(cluster, f"_tcp._tcp.{here.name}", "SRV") == expected
        assert here.dig(cluster, f"_udp._udp.{here.name}", "SRV") == expected
        assert here.dig(cluster, f"_none._tcp.{here.name}", "SRV") == []


def test_a_headless_name_is_the_pods(here: Clusterset) -> None:
    """ "DNS": A records of a headless service are its ready endpoints; SRV names each."""
    pod = here.service(here.west, TCP, clusterIP="None")
    here.export(here.west)
    host = pod.replace(".", "-")
    for cluster in here.both:
        assert "ips" not in here.imported(cluster)["spec"]
        until(lambda: here.dig(cluster, here.name) == [pod], cluster.told)  # noqa: B023
        target = f"{host}.{here.west.name}.{here.name}."
        assert here.dig(cluster, here.name, "SRV") == [f"0 100 42 {target}"]
    here.west.server.kubectl("delete", "pod", "hello", "-n", here.namespace, "--now")
    for cluster in here.both:
        until(lambda: here.dig(cluster, here.name) == [], cluster.told)  # noqa: B023


def test_pods_of_a_stateful_set_have_names_by_host_and_cluster(here: Clusterset) -> None:
    """ "DNS": `<hostname>.<clusterid>.<service>.<ns>.svc.clusterset.local`."""
    container = {
        "name": "main",
        "image": "example.test/hello",
        "args": ["42", "$(POD_IP)"],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }
    template = {"metadata": {"labels": {"app": "hello"}}, "spec": {"containers": [container]}}
    spec = {
        "selector": {"matchLabels": {"app": "hello"}},
        "serviceName": "hello",
        "replicas": 2,
        "template": template,
    }
    here.west.server.apply(
        here.object("apps/v1", "StatefulSet", "hello", spec=spec),
        here.object(
            "v1",
            "Service",
            "hello",
            spec={"clusterIP": "None", "selector": {"app": "hello"}, "ports": [TCP]},
        ),
    )
    here.export(here.west)

    def complete(cluster: Cluster) -> dict[str, str]:
        hosts = {
            endpoint.get("hostname", ""): endpoint["addresses"][0]
            for entry in here.slices(cluster)
            for endpoint in entry.get("endpoints") or ()
            if endpoint["conditions"]["ready"]
        }
        return hosts if len(hosts) == 2 else {}

    for cluster in here.both:
        hosts = until(lambda: complete(cluster), cluster.told)  # noqa: B023
        assert set(hosts) == {"hello-0", "hello-1"}
        (labels,) = ({entry["metadata"]["labels"][SOURCE_LABEL] for entry in here.slices(cluster)},)
        assert labels == {here.west.name}
        for host, address in hosts.items():
            name = f"{host}.{here.west.name}.{here.name}"
            until(lambda: here.dig(cluster, name) == [address], cluster.told)  # noqa: B023


def test_calls_to_the_address_go_where_routes_to_the_import_go(
    clusters: tuple[Cluster, Cluster],
) -> None:
    """Ports that say what they speak: each call is balanced, and fails over, by itself."""
    west, east = clusters
    with place(west.members) as there:
        for cluster in clusters:
            there.service(cluster.member)
        there.export(west.member, east.member)

        def address() -> str:
            spec = east.server.object(IMPORTS, there.namespace, "users")["spec"]
            return next(iter(spec.get("ips", ())), "")

        # One connection all the time: it is calls that move.
        with channel(f"{until(address, east.told)}:{POD_PORT}") as opened:
            until(lambda: answer(opened) == "users@us-east-1", east.told)
            assert {answer(opened) for _ in range(50)} == {"users@us-east-1"}
            local = east.server.object("endpointslice", there.namespace, "users-1")
            gone = there.slice("users", [])
            gone["endpoints"] = [
                {"addresses": entry["addresses"], "conditions": {"ready": False}}
                for entry in local["endpoints"]
            ]
            east.server.apply(gone)
            until(lambda: answer(opened) == "users@us-west-1", east.told)
            assert {answer(opened) for _ in range(50)} == {"users@us-west-1"}


def test_a_policy_for_an_import_has_a_line_for_each_call_to_its_address(
    clusters: tuple[Cluster, Cluster],
) -> None:
    west, east = clusters
    with place(west.members) as there:
        there.service(west.member)
        there.export(west.member)
        told = f"line of {there.namespace}: %RULE% %METHOD% %DESTINATION_CLUSTER% %GRPC_STATUS%"
        policy = {
            "apiVersion": "gateway.networking.k8s.io/v1alpha3",
            "kind": "ObservabilityPolicy",
            "metadata": {"name": "told", "namespace": there.namespace},
            "spec": {
                "targetRef": {
                    "group": "multicluster.x-k8s.io",
                    "kind": "ServiceImport",
                    "name": "users",
                },
                "accessLog": {"type": "File", "format": {"type": "Text", "text": told}},
            },
        }
        east.server.apply(policy)

        def accepted() -> bool:
            found = east.member.conditions(
                "observabilitypolicy", there.namespace, "told", at="users"
            )
            return found.get("Programmed", "").startswith("True")

        until(accepted, east.told)
        spec = east.server.object(IMPORTS, there.namespace, "users")["spec"]
        line = (
            f"line of {there.namespace}: import {there.namespace}/users:{POD_PORT} "
            f"/{SERVICE}/Unary us-west-1 OK"
        )
        with channel(f"{spec['ips'][0]}:{POD_PORT}") as opened:
            until(lambda: answer(opened) == "users@us-west-1", east.told)
            until(lambda: line in east.member.gateway.output(), east.member.gateway.output)
        assert f"line of {there.namespace}" not in west.member.gateway.output()


def answer(opened: grpc.Channel) -> str:
    """Who answers a call, or with which code it fails."""
    try:
        _, call = opened.unary_unary(f"/{SERVICE}/Unary").with_call(b"", timeout=10)
    except grpc.RpcError as error:
        return str(error.code().name)
    return str(dict(call.initial_metadata()).get("x-served-by", ""))


def test_a_name_that_cannot_be_resolved_says_why(here: Clusterset) -> None:
    """`ServiceImport DNS resolution failed` is a condition with its cause."""
    here.service(here.west, TCP, clusterIP="None")
    here.west.server.kubectl("delete", "pod", "hello", "-n", here.namespace, "--now")
    here.export(here.west)

    def said() -> str:
        return here.east.member.conditions(IMPORTS, here.namespace, "hello").get("DNSResolved", "")

    until(lambda: said().startswith("False, NoReadyEndpoints"), here.east.told)
    assert "ServiceImport DNS resolution failed" in said()
    here.west.server.apply(here.pod("hello", "example.test/hello", "42", "$(POD_IP)"))
    until(lambda: said().startswith("True, Resolved"), here.east.told)


def test_names_and_addresses_outlive_an_agent(here: Clusterset) -> None:
    """What was given out stays: "ClusterSetIP" is constant for the life of the import."""
    pod = here.service(here.west)
    here.export(here.west)
    until(lambda: here.hello(here.east) == pod, here.east.told)
    before = here.imported(here.east)["spec"]["ips"]
    derived = here.imported(here.east)["metadata"]["annotations"][
        "multicluster.kubernetes.io/derived-service"
    ]
    here.east.server.kubectl("delete", "service", derived, "-n", here.namespace)
    until(lambda: derived in _names(here.east, "services", here.namespace), here.east.told)
    assert here.imported(here.east)["spec"]["ips"] == before
    until(lambda: here.hello(here.east, at=before[0]) == pod, here.east.told)


def test_ports_that_are_not_carried_are_said(here: Clusterset) -> None:
    """UDP is in the import and not carried: the status says so."""
    here.service(here.west)
    here.export(here.west)

    def said() -> str:
        return here.east.member.conditions(IMPORTS, here.namespace, "hello").get("PortsServed", "")

    until(lambda: said().startswith("False, UnsupportedProtocol"), here.east.told)
    assert "port udp 42/UDP" in said()
