"""What Gateways and routes refer to, on an API server: classes, Services, certificates, policies.

Each change is made by ``kubectl`` and seen in the statuses and by real clients.
"""

from __future__ import annotations

import itertools
import json
import queue
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from cryptography import x509

from tests.native.certificates import Authority, Leaf
from tests.native.support import channel
from tests.testkit import namespace
from tests.testkit.federation import FEDCTL, conditions, process, until
from tests.testkit.gateway_cluster import (
    CLUSTER,
    CLUSTERS,
    GROUP,
    GatewayCluster,
    answer,
    gateway,
    gateway_class,
    named,
    route,
    running_gateway_cluster,
)
from tests.testkit.ports import free_port

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(120),
]

HOST = "127.0.0.1"
NAME = "users.example.com"
_namespaces = (f"refs-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def cluster(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayCluster]:
    """A cluster with one gateway, on ports of this machine."""
    directory = tmp_path_factory.mktemp("references")
    with running_gateway_cluster(directory) as found:
        found.kubernetes.kubectl("apply", "--server-side", "-f", str(CLUSTERS.parent / "crds"))
        options = (
            *("gateway", "--name", "gw-1", "--cluster", CLUSTER, "--agent", found.xds),
            *("--state-dir", str(directory / "gateway"), "--address", HOST),
        )
        started = found.stack.enter_context(process(directory / "gateway.log", *FEDCTL, *options))
        started.says("gateway started")
        yield found


@pytest.fixture
def where(cluster: GatewayCluster) -> str:
    """A namespace of the test's own."""
    name = next(_namespaces)
    cluster.apply(named("Namespace", name))
    return name


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def grant(cluster: GatewayCluster, where: str, source: str, kind: str, to: str) -> None:
    """Let objects of ``kind`` in namespace ``source`` refer to objects of kind ``to`` here."""
    spec = {
        "from": [{"group": GROUP, "kind": kind, "namespace": source}],
        "to": [{"group": "", "kind": to}],
    }
    found = named("ReferenceGrant", "grant", api_version=f"{GROUP}/v1beta1", spec=spec)
    found["metadata"]["namespace"] = where
    cluster.apply(found)


def revoke(cluster: GatewayCluster, where: str) -> None:
    cluster.kubernetes.kubectl("delete", "referencegrant", "grant", "-n", where)


def becomes(
    cluster: GatewayCluster, kind: str, key: str, condition: str, start: str, at: str
) -> None:
    """Wait until a condition of ``NAMESPACE/NAME`` begins with ``start``."""
    where, _, name = key.partition("/")

    def told() -> str:
        status = cluster.kubernetes.object(kind, where, name).get("status", {})
        return conditions(status, at).get(condition, "")

    until(lambda: told().startswith(start), told)


# Classes.


def test_a_class_is_ours_by_its_controller_alone(cluster: GatewayCluster, where: str) -> None:
    theirs = gateway_class(f"theirs-{where}")
    theirs["spec"] = {"controllerName": "example.com/another"}
    cluster.apply(gateway_class(f"ours-{where}"), theirs)
    ports = {name: free_port() for name in ("ours", "theirs")}
    for name, port in ports.items():
        listener = {"name": "grpc", "port": port, "protocol": "HTTP"}
        cluster.apply(gateway(where, name, listener, gatewayClassName=f"{name}-{where}"))
    becomes(cluster, "gateway", f"{where}/ours", "Programmed", "True", "")
    becomes(cluster, "gatewayclass", f"/ours-{where}", "Accepted", "True, Accepted", "")
    found = cluster.kubernetes.object("gatewayclass", "", f"theirs-{where}")["status"]
    assert [entry["status"] for entry in found["conditions"]] == ["Unknown"]
    found = cluster.status(where, "theirs")
    assert {entry["status"] for entry in found["conditions"]} == {"Unknown"}
    assert not found.get("listeners")
    # The route that both have as parents shows that nobody opened the other's port.
    cluster.serve(where, "users")
    both = route(where, "users", f"{where}/ours")
    both["spec"]["parentRefs"].append({"name": "theirs"})
    cluster.apply(both)
    until(lambda: answer(f"{HOST}:{ports['ours']}") == "users", cluster.log)
    assert answer(f"{HOST}:{ports['theirs']}") == "UNAVAILABLE"
    parents = cluster.kubernetes.object("grpcroute", where, "users")["status"]["parents"]
    assert [entry["parentRef"]["name"] for entry in parents] == ["ours"]


# Services of other namespaces.


def test_a_route_reaches_a_service_while_it_is_granted(cluster: GatewayCluster, where: str) -> None:
    other = f"{where}-servers"
    cluster.apply(named("Namespace", other))
    cluster.serve(other, "users")
    port = free_port()
    listener = {"name": "grpc", "port": port, "protocol": "HTTP"}
    cluster.apply(gateway(where, "edge", listener))
    cluster.apply(route(where, "users", f"{where}/edge", to=other))
    refused = "False, RefNotPermitted"
    key = f"{where}/users"
    becomes(cluster, "grpcroute", key, "ResolvedRefs", refused, "edge")
    until(lambda: answer(f"{HOST}:{port}") == "UNAVAILABLE", cluster.log)
    grant(cluster, other, where, "GRPCRoute", "Service")
    until(lambda: answer(f"{HOST}:{port}") == "users", cluster.log)
    becomes(cluster, "grpcroute", key, "ResolvedRefs", "True", "edge")
    revoke(cluster, other)
    until(lambda: answer(f"{HOST}:{port}") == "UNAVAILABLE", cluster.log)
    becomes(cluster, "grpcroute", key, "ResolvedRefs", refused, "edge")
    # Whether there is such a Service shows to nobody who may not know.
    shown = json.dumps(cluster.kubernetes.object("grpcroute", where, "users")["status"])
    cluster.apply(route(where, "users", f"{where}/edge", to=f"{where}-nowhere"))
    becomes(cluster, "grpcroute", key, "ResolvedRefs", refused, "edge")
    hidden = json.dumps(cluster.kubernetes.object("grpcroute", where, "users")["status"])
    assert _told(hidden, f"{where}-nowhere") == _told(shown, other)


def _told(status: str, other: str) -> str:
    (parent,) = json.loads(status)["parents"]
    (found,) = (it for it in parent["conditions"] if it["type"] == "ResolvedRefs")
    return str(found["message"]).replace(other, "NAMESPACE")


# Certificates.


def secret(where: str, leaf: Leaf, *, broken: bool = False) -> dict[str, Any]:
    certificate = "no certificate" if broken else leaf.certificate
    found = named("Secret", "cert", type="kubernetes.io/tls")
    found["metadata"]["namespace"] = where
    return found | {"stringData": {"tls.crt": certificate, "tls.key": leaf.key}}


def https(where: str, port: int, **ref: str) -> dict[str, Any]:
    listener = {
        "name": "grpc",
        "port": port,
        "protocol": "HTTPS",
        "hostname": NAME,
        "tls": {"certificateRefs": [{"name": "cert", **ref}]},
    }
    return gateway(where, "edge", listener)


def shown_serial(port: int) -> int:
    """The serial number of the certificate that a new handshake is shown; 0: there is none."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((HOST, port), timeout=5) as raw,
            trusting.wrap_socket(raw, server_hostname=NAME) as made,
        ):
            der = made.getpeercert(binary_form=True)
    except OSError:
        return 0
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def serial(leaf: Leaf) -> int:
    return x509.load_pem_x509_certificate(leaf.certificate.encode()).serial_number


def tls(authority: Authority) -> dict[str, Any]:
    """Options of a client that checks the certificate."""
    return {
        "credentials": grpc.ssl_channel_credentials(authority.pem.encode()),
        "options": (("grpc.ssl_target_name_override", NAME),),
    }


def test_a_gateway_uses_a_certificate_while_it_is_granted(
    cluster: GatewayCluster, where: str, authority: Authority
) -> None:
    other, leaf, port = f"{where}-keys", authority.leaf(NAME), free_port()
    cluster.apply(named("Namespace", other), secret(other, leaf))
    cluster.serve(where, "users")
    cluster.apply(https(where, port, namespace=other), route(where, "users", f"{where}/edge"))
    key = f"{where}/edge"
    becomes(cluster, "gateway", key, "ResolvedRefs", "False, RefNotPermitted", "grpc")
    assert shown_serial(port) == 0
    grant(cluster, other, where, "Gateway", "Secret")
    until(lambda: shown_serial(port) == serial(leaf), cluster.log)
    until(lambda: answer(f"{HOST}:{port}", **tls(authority)) == "users", cluster.log)
    becomes(cluster, "gateway", key, "ResolvedRefs", "True", "grpc")
    revoke(cluster, other)
    until(lambda: shown_serial(port) == 0, cluster.log)
    becomes(cluster, "gateway", key, "ResolvedRefs", "False, RefNotPermitted", "grpc")
    assert answer(f"{HOST}:{port}", **tls(authority)) == "UNAVAILABLE"


def test_certificates_change_under_open_connections(
    cluster: GatewayCluster, where: str, authority: Authority
) -> None:
    first, second, third = (authority.leaf(NAME) for _ in range(3))
    port, key = free_port(), f"{where}/edge"
    cluster.serve(where, "users")
    cluster.apply(secret(where, first), https(where, port), route(where, "users", key))
    until(lambda: answer(f"{HOST}:{port}", **tls(authority)) == "users", cluster.log)
    assert shown_serial(port) == serial(first)
    said: queue.Queue[bytes | None] = queue.Queue()
    with channel(f"{HOST}:{port}", **tls(authority)) as opened:
        call = opened.stream_stream("/test.Echo/Bidi")
        answers = call(iter(said.get, None))

        def still_open(word: bytes) -> None:
            said.put(word)
            assert next(answers) == word

        still_open(b"with the first")
        cluster.apply(secret(where, second))
        until(lambda: shown_serial(port) == serial(second), cluster.log)
        still_open(b"with the second")
        # What is no certificate changes nothing, but it is said.
        cluster.apply(secret(where, third, broken=True))
        start = "False, InvalidCertificateRef"
        becomes(cluster, "gateway", key, "ResolvedRefs", start, "grpc")
        told = cluster.conditions(where, "edge", "grpc")
        assert "its last good certificate stays in use" in told["ResolvedRefs"]
        assert told["Programmed"].startswith("True")
        assert shown_serial(port) == serial(second)
        # An agent that never saw the good one goes on with it as well.
        cluster.stop_agent()
        cluster.start_agent().says("snapshot published")
        probe = {"name": "probe", "port": free_port(), "protocol": "HTTP"}
        cluster.apply(gateway(where, "probe", probe))
        becomes(cluster, "gateway", f"{where}/probe", "Programmed", "True", "")
        assert shown_serial(port) == serial(second)
        still_open(b"with what was the second")
        cluster.apply(secret(where, third))
        until(lambda: shown_serial(port) == serial(third), cluster.log)
        becomes(cluster, "gateway", key, "ResolvedRefs", "True", "grpc")
        still_open(b"with the third")
        said.put(None)
        assert list(answers) == []
        assert answers.code() is grpc.StatusCode.OK
    assert answer(f"{HOST}:{port}", **tls(authority)) == "users"
    cluster.kubernetes.kubectl("delete", "secret", "cert", "-n", where)
    until(lambda: shown_serial(port) == 0, cluster.log)


# Policies.


def policy(where: str, target: str, **spec: Any) -> dict[str, Any]:
    ref = {"group": GROUP, "kind": "GRPCRoute", "name": target}
    found = named("BackendTrafficPolicy", "retry", api_version=f"{GROUP}/v1alpha3")
    found["metadata"]["namespace"] = where
    return found | {"spec": {"targetRef": ref, "retry": {"attempts": 2}, **spec}}


def test_a_policy_says_what_became_of_it_at_its_target(cluster: GatewayCluster, where: str) -> None:
    port = free_port()
    listener = {"name": "grpc", "port": port, "protocol": "HTTP"}
    cluster.serve(where, "users")
    cluster.apply(gateway(where, "edge", listener), policy(where, "users"))
    key = f"{where}/retry"
    becomes(cluster, "backendtrafficpolicy", key, "Accepted", "False, TargetNotFound", "users")
    cluster.apply(route(where, "users", f"{where}/edge"))
    becomes(cluster, "backendtrafficpolicy", key, "Accepted", "True, Accepted", "users")
    becomes(cluster, "backendtrafficpolicy", key, "Programmed", "True, Programmed", "users")
    found = cluster.kubernetes.object("backendtrafficpolicy", where, "retry")
    (ancestor,) = found["status"]["ancestors"]
    assert ancestor["controllerName"] == "federation.dev/gateway-controller"
    assert ancestor["ancestorRef"] == {
        "group": GROUP,
        "kind": "GRPCRoute",
        "name": "users",
        "namespace": where,
    }
    generations = {entry["observedGeneration"] for entry in ancestor["conditions"]}
    assert generations == {found["metadata"]["generation"]}
    # What another controller says of the policy stays beside it.
    theirs = {**ancestor, "controllerName": "example.com/another"}
    patch = json.dumps({"status": {"ancestors": [theirs, ancestor]}})
    kubectl = cluster.kubernetes.kubectl
    kubectl(
        *("patch", "backendtrafficpolicy", "retry", "-n", where),
        *("--subresource=status", "--type=merge", "-p", patch),
    )
    cluster.apply(policy(where, "users", retry={"attempts": 3}))

    def controllers() -> dict[str, int]:
        shown = cluster.kubernetes.object("backendtrafficpolicy", where, "retry")
        return {
            entry["controllerName"]: entry["conditions"][0]["observedGeneration"]
            for entry in shown["status"]["ancestors"]
        }

    wanted = {"federation.dev/gateway-controller": 2, "example.com/another": 1}
    until(lambda: controllers() == wanted, controllers)
    kubectl("delete", "grpcroute", "users", "-n", where)
    becomes(cluster, "backendtrafficpolicy", key, "Accepted", "False, TargetNotFound", "users")


def test_an_observability_policy_says_what_became_of_it(
    cluster: GatewayCluster, where: str
) -> None:
    others = f"{where}-collectors"
    cluster.apply(named("Namespace", others))
    cluster.serve(others, "otel-collector")
    port = free_port()
    cluster.serve(where, "users")
    cluster.apply(gateway(where, "edge", {"name": "grpc", "port": port, "protocol": "HTTP"}))
    cluster.apply(route(where, "users", f"{where}/edge"))
    until(lambda: answer(f"{HOST}:{port}") == "users", cluster.log)
    collector = {"name": "otel-collector", "namespace": others, "port": 9090}
    observed = named("ObservabilityPolicy", "observed", api_version=f"{GROUP}/v1alpha3")
    observed["metadata"]["namespace"] = where
    observed["spec"] = {
        "targetRef": {"group": GROUP, "kind": "Gateway", "name": "edge"},
        "tracing": {"provider": {"type": "OTel", "backendRef": collector}, "samplingRate": 10},
    }
    cluster.apply(observed)
    key, refused = f"{where}/observed", "False, RefNotPermitted"
    becomes(cluster, "observabilitypolicy", key, "ResolvedRefs", refused, "edge")
    becomes(cluster, "observabilitypolicy", key, "Accepted", "True, Accepted", "edge")
    # No calls, no readiness: a collector is nothing that traffic needs.
    assert answer(f"{HOST}:{port}") == "users"
    grant(cluster, others, where, "ObservabilityPolicy", "Service")
    becomes(cluster, "observabilitypolicy", key, "ResolvedRefs", "True", "edge")
    becomes(cluster, "observabilitypolicy", key, "Programmed", "True, Programmed", "edge")
    affected = f"{GROUP}/ObservabilityPolicyAffected"
    becomes(cluster, "gateway", f"{where}/edge", affected, "True, PolicyAffected", "")
    found = cluster.kubernetes.object("observabilitypolicy", where, "observed")
    (ancestor,) = found["status"]["ancestors"]
    assert ancestor["controllerName"] == "federation.dev/gateway-controller"
    assert {entry["observedGeneration"] for entry in ancestor["conditions"]} == {
        found["metadata"]["generation"]
    }
    younger = {**observed, "metadata": {"name": "younger", "namespace": where}}
    cluster.apply(younger)
    conflict = f"False, Conflicted: ObservabilityPolicy {key} is older"
    becomes(cluster, "observabilitypolicy", f"{where}/younger", "Accepted", conflict, "edge")
    cluster.kubernetes.kubectl("delete", "observabilitypolicy", "observed", "-n", where)
    becomes(
        cluster, "observabilitypolicy", f"{where}/younger", "Accepted", "True, Accepted", "edge"
    )
    assert answer(f"{HOST}:{port}") == "users"
