"""The documents' multi-protocol Gateway, unchanged: HTTPRoutes on 80, GRPCRoutes on 443."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import grpc

from federation.cli.lab.authority import Authority
from tests.native.support import backends, channel, unary
from tests.testkit import standalone as kit
from tests.testkit.http_echo import VERSIONS, curl, http_route, http_servers
from tests.testkit.ports import free_offset

MANIFEST = Path(__file__).parent.parent / "manifests" / "8-keepalive-health-coexistence.yaml"
HOST = "grpc.example.com"


def secret(authority: Authority) -> str:
    pair = authority.issue(HOST, dns=(HOST,))
    fields = {"tls.crt": pair.certificate_pem, "tls.key": pair.key_pem}
    data = ", ".join(
        f"{name}: {base64.b64encode(value).decode()}" for name, value in fields.items()
    )
    return (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: wildcard-cert, namespace: infra}\n"
        f"type: kubernetes.io/tls\ndata: {{{data}}}\n"
    )


async def test_both_protocols_on_the_documents_gateway(tmp_path: Path) -> None:
    authority = Authority("multi-protocol")
    offset = free_offset(80, 443)
    async with http_servers("web") as (server,):
        with backends("rpc") as [backend]:
            at_gateway = "name: multi-protocol-gateway, namespace: infra"
            web = http_route("web", "[{backendRefs: [{name: web, port: 9090}]}]", listener="http")
            documents = [
                MANIFEST.read_text(),
                secret(authority),
                kit.service("web", server.port),
                kit.service("rpc", int(backend.address.rpartition(":")[2])),
                web.replace("namespace: infra, name: gw", at_gateway),
                kit.route(
                    "rpc",
                    "[{backendRefs: [{name: rpc, port: 9090}]}]",
                    parent="{name: multi-protocol-gateway, sectionName: grpc-https}",
                ),
            ]
            async with kit.standalone(tmp_path, documents, port_offset=offset) as running:
                await running.until_said("listening: infra/multi-protocol-gateway/80 ")
                await running.until_said("listening: infra/multi-protocol-gateway/443")
                for version in VERSIONS:
                    answer = await curl(80 + offset, "/page", version)
                    assert (answer.status, answer.server) == (200, "web")
                assert await call(443 + offset, authority) == "rpc"
                # Each listener has its own kind: gRPC finds nothing on the other's port.
                over_tls = ("--insecure", "--http2", "-H", "content-type: text/html")
                wrong = await curl(443 + offset, "/page", *over_tls, host=HOST, scheme="https")
                assert wrong.status == 415


async def call(port: int, authority: Authority) -> str:
    credentials = grpc.ssl_channel_credentials(authority.certificate_pem)
    options = [("grpc.ssl_target_name_override", HOST), ("grpc.default_authority", HOST)]

    def calls() -> str:
        address = f"127.0.0.1:{port}"
        with channel(address, credentials=credentials, options=options) as client:
            _, state = unary(client).with_call(b"hi", timeout=10)
            return str(dict(state.initial_metadata())["x-served-by"])

    return await asyncio.to_thread(calls)
