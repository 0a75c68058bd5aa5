"""TLS towards clients, mutual TLS between gateways."""

from __future__ import annotations

import collections
import socket
import ssl
from typing import Any

import grpc
import pytest

from gateway.driver import Driver
from tests.native.certificates import Authority, Leaf
from tests.native.support import (
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
    simple,
    table,
    update,
    wait_until,
)

WEST = "spiffe://clusterset.local/ns/federation/sa/gateway/cluster/us-west-1"
EAST = "spiffe://clusterset.local/ns/federation/sa/gateway/cluster/us-east-1"
SOUTH = "spiffe://clusterset.local/ns/federation/sa/gateway/cluster/us-south-1"


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


def named(name: str) -> tuple[tuple[str, str], ...]:
    return (("grpc.ssl_target_name_override", name),)


def terminating(address: str, *leaves: Leaf) -> dict[str, Any]:
    names = [f"web-{n}" for n in range(len(leaves))]
    return simple(
        address,
        listeners=[listener(tls={"certificates": names})],
        secrets=[leaf.secret(name) for leaf, name in zip(leaves, names, strict=True)],
    )


def served_names(address: str, server_name: str, alpn: list[str]) -> tuple[set[str], str | None]:
    """DNS names of the certificate that a handshake shows, and the protocol chosen."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(alpn)
    host, port = address.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=server_name) as tls,
    ):
        from cryptography import x509

        certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return set(names.value.get_values_for_type(x509.DNSName)), tls.selected_alpn_protocol()


def test_terminates_tls_and_chooses_the_certificate_by_name(ca: Authority) -> None:
    first, second = ca.leaf("a.example.com"), ca.leaf("*.example.org")
    with backends("a") as [backend], core() as driver:
        address = serve(driver, terminating(backend.address, first, second))
        credentials = grpc.ssl_channel_credentials(ca.pem.encode())
        for name in ("a.example.com", "x.example.org"):
            with channel(address, credentials=credentials, options=named(name)) as client:
                message = b"x" * 1_000_000
                assert call(client, message) == (message, "a")
        assert served_names(address, "X.example.org", ["h2"]) == ({"*.example.org"}, "h2")
        assert served_names(address, "unknown.test", ["h2"])[0] == {"a.example.com"}


def test_grpc_over_http1_and_tls_is_told_what_to_use(ca: Authority) -> None:
    with core() as driver:
        address = serve(driver, terminating("127.0.0.1:1", ca.leaf("a.example.com")))
        context = ssl.create_default_context(cadata=ca.pem)
        context.set_alpn_protocols(["http/1.1"])
        host, port = address.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port)), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="a.example.com") as tls,
        ):
            assert tls.selected_alpn_protocol() == "http/1.1"
            head = b"Host: a.example.com\r\nContent-Type: application/grpc\r\nConnection: close\r\n"
            tls.sendall(b"POST /a.B/C HTTP/1.1\r\n" + head + b"\r\n")
            answer = b""
            while part := tls.recv(4096):
                answer += part
    assert answer.startswith(b"HTTP/1.1 505 ")
    assert b"HTTP/2 required: gRPC needs HTTP/2" in answer


def test_a_new_certificate_is_for_new_connections(ca: Authority) -> None:
    with backends("a") as [backend], core() as driver:
        address = serve(driver, terminating(backend.address, ca.leaf("old.example.com")))
        credentials = grpc.ssl_channel_credentials(ca.pem.encode())
        with channel(address, credentials=credentials, options=named("old.example.com")) as client:
            call(client)
            driver.apply(terminating(backend.address, ca.leaf("new.example.com")))
            assert call(client) == (b"hi", "a")
            assert numbers(driver)["downstream_accepted"] == 1
            assert served_names(address, "new.example.com", ["h2"])[0] == {"new.example.com"}


def test_a_certificate_that_cannot_be_used_is_reported_and_the_old_one_serves(
    ca: Authority,
) -> None:
    good = ca.leaf("a.example.com")
    broken = Leaf(good.certificate, ca.leaf("other.example.com").key)
    with backends("a") as [backend], core() as driver:
        address = serve(driver, terminating(backend.address, good))
        [state] = driver.apply(terminating(backend.address, broken)).listeners
        assert state.error is not None
        assert state.error.startswith("secret `web-0`: certificate and key cannot be used")
        assert "PRIVATE" not in state.error
        assert served_names(address, "a.example.com", ["h2"])[0] == {"a.example.com"}


def east_side(
    ca: Authority, address: str | None, allowed: list[str], **changes: Any
) -> dict[str, Any]:
    tls = {"certificates": ["me"], "client_ca": "peers", "allowed_spiffe": allowed}
    return (
        update(
            listeners=[listener("east-west", kind="east_west", tls=tls)],
            route_tables=[table(route("echo"))],
            clusters=[cluster()],
            endpoints=[endpoints(locality(address, cluster_id="us-east-1"))] if address else [],
            secrets=[ca.leaf(spiffe=EAST).secret("me"), ca.secret("peers")],
        )
        | changes
    )


def west_side(ca: Authority, *localities: dict[str, Any], **changes: Any) -> dict[str, Any]:
    peer_tls = {"secret": "me", "ca": "peers", "sni": "gateway.federation"}
    return simple(
        clusters=[cluster(peer_tls=peer_tls | {"allowed_spiffe": [EAST]} | changes)],
        endpoints=[endpoints(*localities)],
        secrets=[ca.leaf(spiffe=WEST).secret("me"), ca.secret("peers")],
    )


def peer(address: str, **changes: Any) -> dict[str, Any]:
    return locality({"address": address, "peer": True}, cluster_id="us-east-1", **changes)


def hop(east: Driver, west: Driver, east_update: dict[str, Any], *rest: Any, **kw: Any) -> str:
    east_address = serve(east, east_update)
    return serve(west, west_side(rest[0], peer(east_address), *rest[1:], **kw))


def down_reason(driver: Driver) -> str:
    """Why the first endpoint that went down did."""
    return next(str(it["reason"]) for it in driver.events() if it["event"] == "endpoint_down")


def test_a_call_crosses_two_gateways_under_mutual_tls(ca: Authority) -> None:
    with backends("b") as [b], core() as east, core() as west:
        address = hop(east, west, east_side(ca, b.address, [WEST]), ca)
        with channel(address) as client:
            message = b"x" * 1_000_000
            assert call(client, message) == (message, "b")
        assert west.stats()["answered"] == {"us-east-1": 1}
        assert numbers(east)["downstream_accepted"] == 1


def test_a_peer_with_another_identity_is_not_let_in(ca: Authority) -> None:
    with backends("b") as [b], core() as east, core() as west:
        address = hop(east, west, east_side(ca, b.address, [SOUTH]), ca)
        with channel(address) as client:
            error = failure(client)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert down_reason(west).startswith("TLS: the peer refused this gateway: ")
        assert b.seen == []


def test_a_peer_that_joins_later_is_let_in_without_a_new_listener(ca: Authority) -> None:
    with backends("b") as [b], core() as east, core() as west:
        before = east_side(ca, b.address, [SOUTH])
        address = hop(east, west, before, ca)
        with channel(address) as client:
            assert failure(client).code() is grpc.StatusCode.UNAVAILABLE
            before["listeners"][0]["tls"]["allowed_spiffe"].append(WEST)
            east.apply(before)
            wait_until(
                lambda: "endpoint_up" in {it["event"] for it in west.events()},
                "the peer is reached",
            )
            assert call(client) == (b"hi", "b")


def test_a_peer_that_shows_another_identity_gets_no_call(ca: Authority) -> None:
    with backends("b") as [b], core() as east, core() as west:
        address = hop(east, west, east_side(ca, b.address, [WEST]), ca, allowed_spiffe=[SOUTH])
        with channel(address) as client:
            error = failure(client)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        refused = "TLS: the peer's certificate is refused here: "
        names = f'the certificate has the URI names ["{EAST}"]'
        assert down_reason(west) == f"{refused}identity not allowed: {names}"
        assert b.seen == []


def test_a_peer_of_another_authority_is_not_let_in(ca: Authority) -> None:
    stranger = Authority("stranger")
    with backends("b") as [b], core() as east, core() as west:
        address = hop(east, west, east_side(ca, b.address, [WEST]), stranger)
        with channel(address) as client:
            assert failure(client).code() is grpc.StatusCode.UNAVAILABLE
        refused = "TLS: the peer's certificate is refused here: "
        assert down_reason(west) == f"{refused}not signed by an authority known here"
        assert b.seen == []


def test_a_cluster_that_cannot_sends_the_call_to_another_one(ca: Authority) -> None:
    """Rule: the peer's own UNAVAILABLE is "that cluster cannot", and costs the client nothing."""
    with backends("c") as [c], core() as east, core() as west:
        fallback = locality(c.address, cluster_id="us-west-1", priority=1)
        address = hop(east, west, east_side(ca, None, [WEST]), ca, fallback)
        with channel(address) as client:
            served = collections.Counter(call(client)[1] for _ in range(20))
        assert served == {"c": 20}
        assert numbers(west)["transparent_retries"] >= 1


def test_what_the_service_says_at_a_peer_is_passed_on(ca: Authority) -> None:
    with backends("b", "c") as [b, c], core() as east, core() as west:
        b.fail = grpc.StatusCode.UNAVAILABLE
        fallback = locality(c.address, cluster_id="us-west-1", priority=1)
        address = hop(east, west, east_side(ca, b.address, [WEST]), ca, fallback)
        with channel(address) as client:
            error = failure(client)
        assert error.details() == "b fails"
        assert c.seen == []
