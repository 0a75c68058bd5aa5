"""Valid manifests that cannot work, in a running cluster: what their statuses and callers are told.

All bad objects stand beside one good route of the same gateway, which serves throughout.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import re
import socket
import ssl
import threading
from collections.abc import Iterator

import grpc
import pytest

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.cli.lab.authority import Authority
from federation.model.base import ClusterId
from federation.model.objects import GRPCRoute, ObjectKey
from federation.ports import Put
from federation.wire.etcd_keys import Keys
from tests.native.support import Backend, backends, channel
from tests.testkit.etcd import EtcdServer, free_port
from tests.testkit.federation import (
    CLUSTER,
    REGION,
    Federation,
    running_federation,
    until,
)

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: infra}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: grpc, port: {grpc}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}
  - name: http-only
    port: {http_only}
    protocol: HTTP
    allowedRoutes: {{namespaces: {{from: All}}, kinds: [{{kind: HTTPRoute}}]}}
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

PORTS = ("grpc", "http_only", "no_cert", "tls", "taken")
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


COMING_AND_GOING = {
    "orphan": route("orphan", gateway="nothing"),
    "astray": route("astray", section="nothing"),
    "empty": route("empty", "{name: nothing, port: 9090}"),
    "portless": route("portless", "{name: echo, port: 1}"),
    "foreign": route("foreign", "{name: echo, namespace: hidden, port: 9090}"),
    "unknown-import": route("unknown-import", imported("nothing")),
}
"""Routes that cannot work, by their names."""


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


@pytest.fixture(scope="module")
def edge(etcd_server: EtcdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    directory = tmp_path_factory.mktemp("federation")
    with (
        socket.create_server(("127.0.0.1", 0)) as holder,
        backends("echo-1") as (backend,),
        running_federation(etcd_server, directory) as federation,
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
            route("refused", section="http-only"),
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


def unmatched(edge: Edge, name: str) -> str:
    """What a caller is told for whom no route is in force."""
    address = edge.address()
    port = edge.ports["grpc"]
    return (
        f"UNIMPLEMENTED: no route for host `{address}`, path `/{name}.Echo/Unary` on listener "
        f"`infra/edge/{port}`: no rule of this host matches"
    )


def test_the_good_route_serves_beside_all_bad_objects(edge: Edge) -> None:
    edge.becomes(
        "grpcroute",
        "good",
        {
            "Accepted": "True, Accepted: attached to listener grpc",
            "ResolvedRefs": "True, ResolvedRefs: ",
        },
        at="edge",
    )
    edge.becomes(
        "gateway",
        "edge",
        {"Programmed": "True, Programmed: 1/1 gateways"},
        at="grpc",
        namespace="infra",
    )
    assert edge.call("good") == "echo-1"


def test_a_route_whose_gateway_is_missing(edge: Edge) -> None:
    edge.becomes(
        "grpcroute",
        "lost",
        {"Accepted": "False, NoMatchingParent: Gateway infra/gone does not exist"},
        at="gone",
    )
    assert edge.call("lost") == unmatched(edge, "lost")


def test_a_listener_that_takes_only_http_routes(edge: Edge) -> None:
    edge.becomes(
        "grpcroute",
        "refused",
        {
            "Accepted": "False, NotAllowedByListeners: Gateway infra/edge: listener http-only "
            "takes only HTTPRoute; its allowedRoutes.kinds would have to list GRPCRoute"
        },
        at="http-only",
    )
    edge.becomes(
        "gateway",
        "edge",
        {
            "ResolvedRefs": "False, InvalidRouteKinds: spec.listeners[1].allowedRoutes.kinds: "
            "HTTPRoute (gateway.networking.k8s.io) is not served; kinds served: GRPCRoute"
        },
        at="http-only",
        namespace="infra",
    )
    assert edge.call("refused") == unmatched(edge, "refused")


def test_a_missing_service(edge: Edge) -> None:
    edge.becomes(
        "grpcroute",
        "missing",
        {
            "Accepted": "True, Accepted: attached to listener grpc",
            "ResolvedRefs": "False, BackendNotFound: spec.rules[0].backendRefs[0]: Service "
            "app/nothing does not exist",
        },
        at="edge",
    )
    assert edge.call("missing") == (
        "UNAVAILABLE: GRPCRoute app/missing rule 0: spec.rules[0].backendRefs[0]: Service "
        "app/nothing does not exist"
    )


def test_a_missing_certificate(edge: Edge) -> None:
    edge.becomes(
        "gateway",
        "edge",
        {
            "ResolvedRefs": "False, InvalidCertificateRef: certificate not found: Secret "
            "infra/gone does not exist (spec.listeners[2].tls.certificateRefs[0])",
            "Programmed": "False, Invalid: the listener is not opened",
        },
        at="no-cert",
        namespace="infra",
    )
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", edge.ports["no_cert"])),
    ):
        pass


def test_two_policies_on_one_route(edge: Edge) -> None:
    edge.becomes(
        "backendtrafficpolicy",
        "older",
        {"Accepted": "True, Accepted: ", "Programmed": "True, Programmed: 1/1 gateways"},
        at="good",
    )
    edge.becomes(
        "backendtrafficpolicy",
        "younger",
        {
            "Accepted": "False, Conflicted: BackendTrafficPolicy app/older is older and "
            "holds GRPCRoute app/good; a route takes one policy, so merge the two or "
            "target another route"
        },
        at="good",
    )


def test_an_import_that_no_cluster_exports(edge: Edge) -> None:
    message = (
        "ServiceImport app/nothing-import: no cluster exports app/nothing-import or app/nothing; "
        "apply a ServiceExport where the Service is, or a MultiClusterService that lists that "
        "cluster"
    )
    edge.becomes(
        "serviceimport",
        "nothing-import",
        {
            "ResolvedRefs": f"False, BackendNotFound: {message}",
            "Ready": f"False, Pending: {message}",
        },
    )
    edge.becomes(
        "grpcroute",
        "nowhere",
        {"ResolvedRefs": f"False, BackendNotFound: spec.rules[0].backendRefs[0]: {message}"},
        at="edge",
    )
    assert edge.call("nowhere") == (
        f"UNAVAILABLE: GRPCRoute app/nowhere rule 0: spec.rules[0].backendRefs[0]: {message}"
    )


def test_an_unknown_cluster_in_cluster_backends(edge: Edge) -> None:
    edge.becomes(
        "multiclusterservice",
        "echo-global",
        {
            "Accepted": "True, Accepted: ",
            "BackendsReady": "False, UnknownCluster: spec.clusterBackends[1].cluster: no member "
            "cluster or region is named mars-1; members: west-a (us-west-1)",
        },
    )
    until(lambda: edge.call("spread") == "echo-1", lambda: edge.call("spread"))


def test_a_failover_to_a_region_that_no_cluster_has(edge: Edge) -> None:
    edge.becomes(
        "backendtrafficpolicy",
        "to-nowhere",
        {
            "Accepted": "True, Accepted: ",
            "FailoverReady": "False, NoAlternative: spec.failover.regionFailover[0].to: "
            "no cluster has the region or name venus-1; regions: us-west-1",
        },
        at="spread",
    )


def test_a_failover_to_the_same_clusters_by_another_name(edge: Edge) -> None:
    edge.becomes(
        "backendtrafficpolicy",
        "to-itself",
        {
            "Accepted": "True, Accepted: ",
            "FailoverReady": "False, NoAlternative: spec.failover.regionFailover[0]: from "
            "us-west-1 and to west-a both mean west-a, which cannot fail over to itself; name "
            "another region or cluster",
        },
        at="back",
    )


def test_bad_objects_come_and_go_under_calls(edge: Edge) -> None:
    federation = edge.federation
    stop, failures = threading.Event(), list[str]()

    def keep_calling() -> None:
        with channel(edge.address()) as client:
            method = client.unary_unary("/good.Echo/Unary")
            while not stop.wait(0.005):
                try:
                    method(b"", timeout=10)
                except grpc.RpcError as error:
                    failures.append(f"{error.code().name}: {error.details()}")

    caller = threading.Thread(target=keep_calling)
    caller.start()
    try:
        for name, manifests in COMING_AND_GOING.items():
            federation.apply(manifests)
            federation.apply(route(f"after-{name}"))
            edge.becomes(
                "grpcroute",
                f"after-{name}",
                {"Accepted": "True, Accepted: attached to listener grpc"},
                at="edge",
            )
            gone = federation.fedctl("delete", "grpcroute", "-n", "app", f"after-{name}", name)
            assert gone.exit_code == 0, gone.output
    finally:
        stop.set()
        caller.join()
    assert failures == []


def test_a_stored_object_that_cannot_be_read(edge: Edge) -> None:
    federation = edge.federation
    bad = ObjectKey(GRPCRoute.GROUP, GRPCRoute.KIND, "app", "garbled")
    stored_at = Keys(federation.prefix).object(ClusterId(CLUSTER), bad)
    asyncio.run(put(federation, stored_at, b'{"kind": "GRPCRoute"}'))
    shown = federation.fedctl("get", "grpcroute", "-n", "app", "-o", "name")
    assert shown.exit_code == 1
    assert "grpcroute.gateway.networking.k8s.io/good" in shown.stdout.splitlines()
    assert shown.stderr == (
        f"error: GRPCRoute app/garbled ({CLUSTER}): the stored object cannot be read: {stored_at}: "
        "GRPCRoute: apiVersion: required field is missing; apply it again, or delete it\n"
    )
    federation.apply(route("garbled"))
    edge.becomes(
        "grpcroute", "garbled", {"Accepted": "True, Accepted: attached to listener grpc"}, at="edge"
    )
    assert edge.call("garbled") == "echo-1"


async def put(federation: Federation, key: str, value: bytes) -> None:
    store = EtcdStore(EtcdSettings(endpoints=(federation.etcd,)))
    try:
        await store.commit([Put(key, value)])
    finally:
        await store.close()


def test_http1_on_a_grpc_listener(edge: Edge) -> None:
    assert http1(socket.create_connection(("127.0.0.1", edge.ports["grpc"]), 5)) == HTTP2_REQUIRED


def test_http1_over_tls(edge: Edge) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    raw = socket.create_connection(("127.0.0.1", edge.ports["tls"]), 5)
    assert http1(context.wrap_socket(raw)) == HTTP2_REQUIRED


HTTP2_REQUIRED = (
    "HTTP/1.1 505 HTTP Version Not Supported\r\n"
    "content-type: text/plain; charset=utf-8\r\n"
    "content-length: 182\r\n"
    "connection: close\r\n\r\n"
    "HTTP/2 required: this listener serves gRPC over HTTP/2 only. Use a gRPC client, or HTTP/2 "
    "with prior knowledge (for example `curl --http2-prior-knowledge`), or HTTPS with ALPN `h2`.\n"
)


def http1(connection: socket.socket) -> str:
    """The answer to an HTTP/1.1 request, until the gateway closes."""
    answer = b""
    with connection:
        connection.sendall(b"POST /good.Echo/Unary HTTP/1.1\r\nHost: example.com\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(4096):
                answer += part
    return answer.decode()


def test_a_duplicate_cluster_name(edge: Edge) -> None:
    with edge.federation.agent("twin", xds="127.0.0.1:0") as twin:
        assert twin.ended() == 1
    message = twin.output().splitlines()[-1]
    own, other = re.findall("instance ([0-9a-f]{32})", message)
    assert own != other
    assert message == (
        f'error: cluster "{CLUSTER}" has joined already: agent instance {own} in region {REGION} '
        f"owns the name (it is alive); this is instance {other}. Give this cluster another name, "
        "or start the agent with the state directory of that instance; to give the name up for "
        f"good, delete {edge.federation.prefix}state/members/{CLUSTER}"
    )


def test_a_port_in_use_until_it_is_free(edge: Edge) -> None:
    port = edge.ports["taken"]
    told = (
        f"False, Invalid: 0/1 gateways; gw-1 refused listeners infra/edge/{port}: cannot listen on "
        f"127.0.0.1:{port}: Address already in use (os error 98); free the port or choose another; "
        "it is tried again every few seconds"
    )
    served = "True, Programmed: 1/1 gateways"
    listener = functools.partial(edge.becomes, "gateway", "edge", namespace="infra")
    listener({"Programmed": told})
    listener({"Programmed": told}, at="taken")
    listener({"Programmed": served}, at="tls")
    assert edge.call("good") == "echo-1"
    edge.holder.close()
    listener({"Programmed": served}, at="taken")
