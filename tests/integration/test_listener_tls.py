"""TLS at listeners, from the manifest to real TLS clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import textwrap
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.native.certificates import Authority, Leaf
from tests.native.support import Backend, backends, call, channel
from tests.native.test_passthrough import TlsBackend, raw_tls, tls_backends, tls_channel
from tests.native.test_tls import served_names
from tests.testkit import standalone as kit
from tests.testkit.ports import free_port

EVERY_CALL = "[{backendRefs: [{name: echo, port: 9090}]}]"
ALL = "allowedRoutes: {namespaces: {from: All}}"


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with backends("plain") as [found]:
        yield found


def port_of(backend: Backend) -> int:
    return int(backend.address.rpartition(":")[2])


def indented(text: str) -> str:
    return textwrap.indent(text, "    ")


def secret(name: str, leaf: Leaf) -> str:
    return (
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: infra}}\n"
        f"stringData:\n  tls.crt: |\n{indented(leaf.certificate)}"
        f"  tls.key: |\n{indented(leaf.key)}"
    )


def authorities(name: str, ca: Authority) -> str:
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: infra}}\n"
        f"data:\n  ca.crt: |\n{indented(ca.pem)}"
    )


def https(name: str, port: int, *secrets: str, hostname: str = "") -> str:
    refs = ", ".join(f"{{name: {secret}}}" for secret in secrets)
    host = f"hostname: {hostname}, " if hostname else ""
    return (
        f"{{name: {name}, port: {port}, protocol: HTTPS, {host}{ALL}, "
        f"tls: {{certificateRefs: [{refs}]}}}}"
    )


def names_at(port: int, server_name: str) -> set[str]:
    return served_names(f"127.0.0.1:{port}", server_name, ["h2"])[0]


async def test_the_listeners_hostname_chooses_the_certificate(
    tmp_path: Path, ca: Authority, backend: Backend
) -> None:
    port = free_port()
    listeners = [
        https("a", port, "wide-a", hostname="a.example.com"),
        https("rest", port, "wide", "org", hostname='"*.example.com"'),
    ]
    manifests = [
        kit.gateway(*listeners),
        secret("wide-a", ca.leaf("*.example.com", "only-a.test")),
        secret("wide", ca.leaf("*.example.com", "only-rest.test")),
        secret("org", ca.leaf("z.example.com")),
        kit.service("echo", port_of(backend)),
        kit.route("echo", EVERY_CALL),
    ]
    async with kit.standalone(tmp_path, manifests):
        found = {
            name: await asyncio.to_thread(names_at, port, name)
            for name in ("a.example.com", "b.example.com", "z.example.com")
        }
        assert "only-a.test" in found["a.example.com"]
        assert "only-rest.test" in found["b.example.com"]
        assert found["z.example.com"] == {"z.example.com"}

        def answers() -> str:
            with tls_channel(f"127.0.0.1:{port}", "a.example.com", ca) as client:
                return call(client)[1]

        assert await asyncio.to_thread(answers) == "plain"


async def test_a_connection_is_for_hosts_of_its_listener_alone(
    tmp_path: Path, ca: Authority, backend: Backend
) -> None:
    """RFC 9110, 15.5.20; clients reuse a connection for all that its certificate is good for."""
    port = free_port()
    manifests = [
        kit.gateway(
            https("a", port, "wide", hostname="a.example.com"),
            https("rest", port, "wide", hostname='"*.example.com"'),
        ),
        secret("wide", ca.leaf("*.example.com")),
        kit.service("echo", port_of(backend)),
        kit.route("echo", EVERY_CALL),
    ]

    def asked(server_name: str, host: str) -> str:
        credentials = grpc.ssl_channel_credentials(ca.pem.encode())
        options = [
            ("grpc.ssl_target_name_override", server_name),
            ("grpc.default_authority", host),
        ]
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as client:
            try:
                return call(client)[1]
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"

    def page(server_name: str, host: str) -> int:
        context = ssl.create_default_context(cadata=ca.pem)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=server_name) as tls,
        ):
            tls.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
            return int(tls.recv(4096).split()[1])

    async with kit.standalone(tmp_path, manifests):
        for server_name, host in (("b", "c"), ("b", "b"), ("a", "a")):
            names = f"{server_name}.example.com", f"{host}.example.com"
            assert await asyncio.to_thread(asked, *names) == "plain", names
        for server_name, host in (("a", "b"), ("b", "a")):
            names = f"{server_name}.example.com", f"{host}.example.com"
            said = await asyncio.to_thread(asked, *names)
            assert said.startswith("UNIMPLEMENTED: host `" + names[1]), said
            assert await asyncio.to_thread(page, *names) == 421


async def test_a_renewed_certificate_holds_for_new_connections_and_touches_no_other(
    tmp_path: Path, ca: Authority, backend: Backend
) -> None:
    port = free_port()
    manifests = [
        kit.gateway(https("web", port, "web")),
        secret("web", ca.leaf("web.test", "first.test")),
        kit.service("echo", port_of(backend)),
        kit.route("echo", EVERY_CALL),
    ]
    async with kit.standalone(tmp_path) as running:
        running.apply("base.yaml", *manifests)
        await running.until_said("listening: infra/gw")
        credentials = grpc.ssl_channel_credentials(ca.pem.encode())
        options = [("grpc.ssl_target_name_override", "web.test")]
        target = f"127.0.0.1:{port}"
        async with grpc.aio.secure_channel(target, credentials, options) as client:
            go_on = asyncio.Event()

            async def requests() -> object:
                yield b"before"
                await go_on.wait()
                yield b"after"

            stream = client.stream_stream("/test.Echo/Bidi")(requests(), timeout=30)
            assert await stream.read() == b"before"
            assert "first.test" in await asyncio.to_thread(names_at, port, "web.test")
            manifests[1] = secret("web", ca.leaf("web.test", "second.test"))
            running.apply("base.yaml", *manifests)
            await kit.until_async(
                lambda: asyncio.to_thread(lambda: "second.test" in names_at(port, "web.test")),
                "the new certificate is served",
            )
            go_on.set()
            assert await stream.read() == b"after"
            # The connection that began with the old certificate takes further calls too.
            assert await client.unary_unary("/test.Echo/Unary")(b"x", timeout=10) == b"x"


def outcome(port: int, ca: Authority, leaf: Leaf | None) -> str:
    """Who answered a client with the certificate ``leaf``, or the code of the failure."""
    pair = (None, None) if leaf is None else (leaf.key.encode(), leaf.certificate.encode())
    credentials = grpc.ssl_channel_credentials(ca.pem.encode(), *pair)
    options = (("grpc.ssl_target_name_override", "web.test"),)
    with channel(f"127.0.0.1:{port}", credentials=credentials, options=options) as client:
        try:
            return call(client)[1]
        except grpc.RpcError as failure:
            return str(failure.code().name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("is_on_listener", [False, True])
async def test_clients_without_a_valid_certificate_are_turned_away(
    tmp_path: Path, ca: Authority, backend: Backend, is_on_listener: bool
) -> None:
    port, lenient = free_port(), free_port()
    clients, strangers = Authority("clients"), Authority("strangers")
    ref = '{group: "", kind: ConfigMap, name: clients}'
    strict, mode = https("strict", port, "web"), ""
    extra = (
        f"  tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{ref}]}}}}, "
        f"perPort: [{{port: {lenient}, tls: {{validation: "
        f"{{mode: AllowInsecureFallback, caCertificateRefs: [{ref}]}}}}}}]}}}}\n"
    )
    if is_on_listener:
        own = f"tls: {{frontendValidation: {{caCertificateRefs: [{ref}]}}, "
        strict, extra = strict.replace("tls: {", own), mode
    manifests = [
        kit.gateway(strict, https("lenient", lenient, "web"), extra=extra),
        secret("web", ca.leaf("web.test")),
        authorities("clients", clients),
        kit.service("echo", port_of(backend)),
        kit.route("echo", EVERY_CALL),
    ]
    async with kit.standalone(tmp_path, manifests) as running:
        presented = (clients.leaf("c"), strangers.leaf("s"), None)
        seen = [await asyncio.to_thread(outcome, port, ca, leaf) for leaf in presented]
        assert seen == ["plain", "UNAVAILABLE", "UNAVAILABLE"]
        seen = [await asyncio.to_thread(outcome, lenient, ca, leaf) for leaf in presented]
        assert seen == ["plain", "plain", "plain"]
        if not is_on_listener:
            await running.until_said("InsecureFrontendValidationMode=True")


async def test_tls_passes_through_by_server_name(tmp_path: Path, ca: Authority) -> None:
    port = free_port()
    internal = (
        f"{{name: grpc-internal, port: {port}, protocol: HTTPS, tls: {{mode: Passthrough}}, {ALL}}}"
    )
    rules = (
        "[{matches: [{method: {service: test.Echo}}], "
        "backendRefs: [{name: NAME, port: 9090}]}, "
        "{matches: [{headers: [{name: x, value: y}]}], backendRefs: [{name: NAME, port: 9090}]}]"
    )
    with tls_backends(ca, "a.example.com", "x.example.org") as [first, second]:
        manifests = [
            kit.gateway(internal),
            kit.service("first", port_of(first)),
            kit.service("second", port_of(second)),
            kit.route("first", rules.replace("NAME", "first"), hostnames="[a.example.com]"),
            kit.route("second", rules.replace("NAME", "second"), hostnames='["*.example.org"]'),
        ]
        async with kit.standalone(tmp_path, manifests) as running:

            def answers(backend: TlsBackend) -> str:
                with tls_channel(f"127.0.0.1:{port}", backend.name, ca) as client:
                    return call(client)[1]

            for backend in (first, second):
                assert await asyncio.to_thread(answers, backend) == backend.name
            with contextlib.suppress(ssl.SSLError):
                await asyncio.to_thread(raw_tls, f"127.0.0.1:{port}", "unknown.example.net")
                pytest.fail("a name that no route has is served")
            await running.until_said(
                "GRPCRoute app/first at gw: PartiallyInvalid=True, UnsupportedValue: "
                "Dropped Rule 1: where TLS passes through: its header matches cannot be applied"
            )
