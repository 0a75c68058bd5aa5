"""What goes wrong in a running cluster: bad objects under calls, foreign clients, names and ports.

Everything else of the cluster serves meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator

import grpc
import pytest

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.model.base import ClusterId
from federation.model.objects import GRPCRoute, ObjectKey
from federation.ports import Put
from federation.wire.etcd_keys import Keys
from tests.native.support import channel
from tests.testkit.bad_objects import Edge, imported, route, running_edge
from tests.testkit.etcd import EtcdServer
from tests.testkit.federation import CLUSTER, REGION, Federation

IN_USE = f"{os.strerror(errno.EADDRINUSE)} (os error {errno.EADDRINUSE})"

COMING_AND_GOING = {
    "orphan": route("orphan", gateway="nothing"),
    "astray": route("astray", section="nothing"),
    "empty": route("empty", "{name: nothing, port: 9090}"),
    "portless": route("portless", "{name: echo, port: 1}"),
    "foreign": route("foreign", "{name: echo, namespace: hidden, port: 9090}"),
    "unknown-import": route("unknown-import", imported("nothing")),
}
"""Routes that cannot work, by their names."""


@pytest.fixture(scope="module")
def edge(etcd_server: EtcdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with running_edge(etcd_server, tmp_path_factory.mktemp("edge")) as running:
        yield running


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


def test_grpc_over_http1(edge: Edge) -> None:
    assert http1(socket.create_connection(("127.0.0.1", edge.ports["grpc"]), 5)) == HTTP2_REQUIRED


def test_grpc_over_http1_and_tls(edge: Edge) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    raw = socket.create_connection(("127.0.0.1", edge.ports["tls"]), 5)
    assert http1(context.wrap_socket(raw)) == HTTP2_REQUIRED


HTTP2_REQUIRED = (
    "HTTP/1.1 505 HTTP Version Not Supported\r\n"
    "content-type: text/plain; charset=utf-8\r\n"
    "content-length: 217\r\n"
    "connection: close\r\n\r\n"
    "HTTP/2 required: gRPC needs HTTP/2. Use a gRPC client, or HTTP/2 with prior knowledge (for "
    "example `curl --http2-prior-knowledge`), or HTTPS with ALPN `h2`. gRPC-Web "
    "(`application/grpc-web`) works over HTTP/1.1, too.\n"
)


def http1(connection: socket.socket) -> str:
    """The answer to a call of gRPC over HTTP/1.1, until the gateway closes."""
    answer = b""
    with connection:
        fields = b"Host: example.com\r\nContent-Type: application/grpc\r\nConnection: close\r\n"
        connection.sendall(b"POST /good.Echo/Unary HTTP/1.1\r\n" + fields + b"\r\n")
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
        f"127.0.0.1:{port}: {IN_USE}; free the port or choose another; "
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
