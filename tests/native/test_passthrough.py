"""TLS passed through by server name: real gRPC servers that terminate TLS themselves."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from gateway.driver import Driver
from tests.native.certificates import Authority, Leaf
from tests.native.support import (
    DEADLINE_S,
    Backend,
    EchoHandler,
    backends,
    call,
    channel,
    cluster,
    core,
    endpoints,
    failure,
    listener,
    locality,
    numbers,
    route,
    serve,
    table,
    update,
    wait_until,
)
from tests.testkit.ports import free_port


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


class TlsBackend(Backend):
    """A gRPC server with its own certificate."""

    def secure(self, leaf: Leaf) -> TlsBackend:
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((EchoHandler(self),))
        pair = (leaf.key.encode(), leaf.certificate.encode())
        credentials = grpc.ssl_server_credentials([pair])
        port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"
        self._server.start()
        return self


@contextlib.contextmanager
def tls_backends(ca: Authority, *names: str) -> Iterator[list[TlsBackend]]:
    started = [TlsBackend(name).secure(ca.leaf(name)) for name in names]
    try:
        yield started
    finally:
        for backend in started:
            backend.stop()


def chain(target: str, *server_names: str, **passthrough: Any) -> dict[str, Any]:
    weighted = [{"cluster": target, "weight": 1}]
    inner = {"name": target, "weighted": weighted} | passthrough
    return {"server_names": list(server_names), "passthrough": inner}


def passing(*chains: dict[str, Any], **clusters: list[str]) -> dict[str, Any]:
    tls = {"chains": list(chains)}
    return update(
        listeners=[listener(tls=tls, route_table=None)],
        clusters=[cluster(name, connect_timeout_ms=500) for name in clusters],
        endpoints=[endpoints(locality(*found), name=name) for name, found in clusters.items()],
    )


@contextlib.contextmanager
def tls_channel(address: str, name: str, ca: Authority) -> Iterator[grpc.Channel]:
    options = (("grpc.ssl_target_name_override", name),)
    credentials = grpc.ssl_channel_credentials(ca.pem.encode())
    with channel(address, credentials=credentials, options=options) as client:
        yield client


def raw_tls(address: str, name: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
    try:
        return context.wrap_socket(plain, server_hostname=name)
    except BaseException:
        plain.close()
        raise


@pytest.fixture
def driver() -> Iterator[Driver]:
    with core(handshake_timeout_ms=500) as driver:
        yield driver


def test_the_server_name_chooses_the_cluster(driver: Driver, ca: Authority) -> None:
    with tls_backends(ca, "a.example.com", "x.example.org") as [first, second]:
        document = passing(
            chain("first", "a.example.com"),
            chain("second", "*.example.org"),
            first=[first.address],
            second=[second.address],
        )
        address = serve(driver, document)
        for backend in (first, second):
            with tls_channel(address, backend.name, ca) as client:
                assert call(client, b"x" * 3_000_000)[1] == backend.name
        found = numbers(driver)
        assert found["passthrough_accepted"] == 2
        assert found["passthrough_bytes_up"] > 6_000_000
        assert found["passthrough_bytes_down"] > 6_000_000
        wait_until(lambda: numbers(driver)["passthrough_connections"] == 0, "all closed")
        wait_until(lambda: numbers(driver)["downstream_connections"] == 0, "all gone")


def test_an_unknown_name_is_refused_by_an_alert(driver: Driver) -> None:
    document = passing(chain("a", "a.example.com"), a=["127.0.0.1:1"])
    address = serve(driver, document)
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        raw_tls(address, "b.example.com")
    assert numbers(driver)["passthrough_unknown_names"] == 1


def test_what_cannot_be_connected_is_passed_over(driver: Driver, ca: Authority) -> None:
    with tls_backends(ca, "a") as [alive]:
        dead = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        address = serve(driver, passing(chain("a"), a=[*dead, alive.address]))
        for _ in range(6):
            with tls_channel(address, "a", ca) as client:
                assert call(client)[1] == "a"
        assert numbers(driver)["passthrough_failed"] == 0


def test_a_client_without_a_reachable_endpoint_is_closed(driver: Driver) -> None:
    address = serve(driver, passing(chain("a"), a=[f"127.0.0.1:{free_port()}"]))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        raw_tls(address, "a")
    assert numbers(driver)["passthrough_failed"] == 1
    assert numbers(driver)["passthrough_connect_failures"] >= 1


def test_a_name_may_be_terminated_on_the_same_port(driver: Driver, ca: Authority) -> None:
    leaf = ca.leaf("web.example.com")
    with tls_backends(ca, "raw.example.com") as [raw], backends("plain") as [plain]:
        web = {"server_names": ["web.example.com"], "certificates": ["web"]}
        document = passing(chain("raw", "raw.example.com"), web=[plain.address], raw=[raw.address])
        document["listeners"][0] |= {
            "tls": {"chains": [*document["listeners"][0]["tls"]["chains"], web]},
            "route_table": "main",
        }
        document |= {"route_tables": [table(route("web"))], "secrets": [leaf.secret("web")]}
        address = serve(driver, document)
        for name, answer in (("web.example.com", "plain"), ("raw.example.com", "raw.example.com")):
            with tls_channel(address, name, ca) as client:
                assert call(client)[1] == answer


def test_slow_and_endless_hellos_end_in_time(driver: Driver) -> None:
    address = serve(driver, passing(chain("a"), a=["127.0.0.1:1"]))
    host, _, port = address.rpartition(":")
    for words in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(words)
            assert client.recv(1) == b""
    assert numbers(driver)["downstream_handshake_failures"] == 3


def test_each_direction_ends_by_itself(driver: Driver) -> None:
    """The server goes on after the client's end; what it says then arrives."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = serve(driver, passing(chain("a"), a=[f"127.0.0.1:{server.getsockname()[1]}"]))
        heard: list[bytes] = []

        def answer() -> None:
            conn, _ = server.accept()
            with conn:
                while part := conn.recv(65536):
                    heard.append(part)
                conn.sendall(b"y" * 1_000_000)

        thread = threading.Thread(target=answer)
        thread.start()
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as client:
            hello = client_hello()
            client.sendall(hello)
            client.sendall(b"x" * 500_000)
            client.shutdown(socket.SHUT_WR)
            got = b""
            while part := client.recv(65536):
                got += part
        thread.join(DEADLINE_S)
        assert b"".join(heard) == hello + b"x" * 500_000
        assert got == b"y" * 1_000_000


def client_hello() -> bytes:
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_a_quiet_connection_ends_after_the_idle_time(driver: Driver, ca: Authority) -> None:
    with tls_backends(ca, "a") as [backend]:
        address = serve(driver, passing(chain("a", idle_ms=300), a=[backend.address]))
        with raw_tls(address, "a") as client, contextlib.suppress(ssl.SSLError):
            while client.recv(65536):
                pass
        assert numbers(driver)["passthrough_idle_closed"] == 1


def test_connections_are_spread_over_endpoints(driver: Driver, ca: Authority) -> None:
    with tls_backends(ca, "a", "a") as found:
        address = serve(driver, passing(chain("a"), a=[it.address for it in found]))
        with contextlib.ExitStack() as clients:
            for _ in range(12):
                call(clients.enter_context(tls_channel(address, "a", ca)))
        assert sorted(len(it.seen) for it in found) in ([6, 6], [5, 7], [4, 8])


def test_a_drained_endpoint_keeps_its_connections_for_the_grace(
    driver: Driver, ca: Authority
) -> None:
    with tls_backends(ca, "a") as [backend]:
        document = passing(chain("a"), a=[backend.address])
        address = serve(driver, document)
        with tls_channel(address, "a", ca) as client:
            call(client)
            leaving = {"address": backend.address, "health": "draining", "drain_grace_ms": 500}
            drained = endpoints(locality(leaving), name="a")
            driver.apply(update(full=False, endpoints=[drained]))
            assert failure(client, "Hang").code() is grpc.StatusCode.UNAVAILABLE
        assert numbers(driver)["drained_streams"] == 1


def test_stopping_ends_connections_after_the_grace(ca: Authority) -> None:
    with tls_backends(ca, "a") as [backend], core() as driver:
        address = serve(driver, passing(chain("a"), a=[backend.address]))
        with tls_channel(address, "a", ca) as client:
            call(client)
            driver.drain(300)
            assert failure(client, "Hang").code() is grpc.StatusCode.UNAVAILABLE
        wait_until(lambda: driver.drained, "the core is drained")
