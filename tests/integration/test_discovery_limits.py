"""What the xDS server refuses: strangers, unknown types, too many streams, no certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from federation.cli.lab.authority import Authority, KeyPair, gateway_identity
from federation.discovery import DiscoveryError, DiscoveryServer, DiscoverySettings, TlsFiles
from federation.model.snapshot import Snapshot
from federation.wire.xds import to_resources
from gateway.settings import AgentTls, GatewaySettings
from gateway.status import State
from gateway.xds_client import METHOD
from tests.integration.discovery_support import eventually, snapshot
from tests.integration.test_discovery_and_shell import Gateway, serving

CLUSTERS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"


def request(
    type_url: str = CLUSTERS, *, cluster: str = "us-west-1"
) -> discovery_pb2.DeltaDiscoveryRequest:
    message = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url)
    message.node.id = "gw-1"
    message.node.cluster = cluster
    return message


@asynccontextmanager
async def stream(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(
            METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )()
        yield call
        call.cancel()


async def end_of(
    call: Any, *requests: discovery_pb2.DeltaDiscoveryRequest
) -> tuple[grpc.StatusCode, str]:
    """How the server ends the stream after these requests."""
    with suppress(grpc.aio.AioRpcError):
        for message in requests:
            await call.write(message)
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code(), str(await call.details())


async def test_a_gateway_of_another_cluster_is_refused() -> None:
    async with serving() as server, stream(server.address) as call:
        code, text = await end_of(call, request(cluster="us-east-1"))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text == (
            'node.cluster: "us-east-1" asked the agent of cluster "us-west-1"; '
            "point it at its own cluster's agent"
        )


async def test_an_unknown_type_ends_the_stream_and_names_what_is_served() -> None:
    async with serving() as server, stream(server.address) as call:
        code, text = await end_of(
            call, request("type.googleapis.com/envoy.service.runtime.v3.Runtime")
        )
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "envoy.service.runtime.v3.Runtime" in text
        assert CLUSTERS in text


async def test_one_stream_too_many_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    async with (
        serving(streams_max=1) as server,
        Gateway(server.address, tmp_path).running() as gateway,
    ):
        await eventually(lambda: server.acks.value and server.acks.value.nodes)
        async with stream(server.address) as call:
            code, text = await end_of(call)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert text == "1 xDS streams are open, the most this agent serves"
        server.publish(snapshot("127.0.0.1:9090"))
        await eventually(lambda: gateway.endpoints() == ["127.0.0.1:9090"])


async def test_a_taken_port_is_an_error_that_names_it() -> None:
    async with serving() as server:
        second: DiscoveryServer[Snapshot] = DiscoveryServer(
            DiscoverySettings(cluster="us-west-1", address=server.address), render=to_resources
        )
        with pytest.raises(DiscoveryError, match=f"cannot serve xDS on {server.address}"):
            await second.start()


async def test_mutual_tls_serves_gateways_of_this_cluster_only(tmp_path: Path) -> None:
    authority = Authority("test")
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    for name, cluster in (("agent", ""), ("gateway", "us-west-1"), ("stranger", "us-east-1")):
        pair = authority.issue(name, dns=("localhost",), uris=(gateway_identity(cluster),))
        (tmp_path / f"{name}.crt").write_bytes(pair.certificate_pem)
        (tmp_path / f"{name}.key").write_bytes(pair.key_pem)
    server: DiscoveryServer[Snapshot] = DiscoveryServer(
        DiscoverySettings(
            cluster="us-west-1",
            address="localhost:0",
            tls=TlsFiles(
                tmp_path / "agent.crt",
                tmp_path / "agent.key",
                tmp_path / "ca.crt",
                frozenset({gateway_identity("us-west-1")}),
            ),
        ),
        render=to_resources,
    )
    await server.start()
    settings = GatewaySettings("gw-1", "us-west-1", server.address, tmp_path / "state")
    tls = {
        name: AgentTls(tmp_path / "ca.crt", tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
        for name in ("gateway", "stranger")
    }
    try:
        async with stream(server.address) as plain:
            code, _ = await end_of(plain, request())
            assert code is grpc.StatusCode.UNAVAILABLE
        server.publish(snapshot("127.0.0.1:9090"))
        async with Gateway.of(replace(settings, agent_tls=tls["stranger"])).running() as stranger:
            why = await eventually(lambda: stranger.feed.state().why)
            assert why.startswith("PERMISSION_DENIED: the certificate's names")
        async with Gateway.of(replace(settings, agent_tls=tls["gateway"])).running() as gateway:
            await eventually(lambda: gateway.feed.state().state is State.IN_SYNC)
    finally:
        await server.stop()


async def test_a_renewed_certificate_serves_the_next_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = Authority("old"), Authority("new")
    names = {"dns": ("localhost",), "uris": (gateway_identity("us-west-1"),)}
    certificate, key, ca = (tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt"))

    def write(pair: KeyPair, authority: Authority) -> None:
        certificate.write_bytes(pair.certificate_pem)
        key.write_bytes(pair.key_pem)
        ca.write_bytes(authority.certificate_pem)

    write(old.issue("agent", **names), old)
    server: DiscoveryServer[Snapshot] = DiscoveryServer(
        DiscoverySettings("us-west-1", "localhost:0", TlsFiles(certificate, key, ca)),
        render=to_resources,
    )
    await server.start()
    server.publish(snapshot("127.0.0.1:9090"))
    settings = GatewaySettings(
        "gw-1", "us-west-1", server.address, tmp_path, agent_tls=AgentTls(ca, certificate, key)
    )
    try:
        async with Gateway.of(settings).running() as gateway:
            await eventually(lambda: gateway.feed.state().state is State.IN_SYNC)
        # Half a rotation is not taken: the old certificate goes on.
        before = key.read_bytes()
        key.write_bytes(new.issue("other", **names).key_pem)
        async with Gateway.of(settings).running():
            await eventually(lambda: "xds certificate not renewed" in caplog.text)
        key.write_bytes(before)
        write(new.issue("agent", **names), new)
        async with Gateway.of(settings).running() as gateway:
            await eventually(lambda: gateway.feed.state().state is State.IN_SYNC)
    finally:
        await server.stop()


async def test_files_that_do_not_fit_are_an_error_at_the_start(tmp_path: Path) -> None:
    pair, other = Authority("a").issue("a"), Authority("b").issue("b")
    (tmp_path / "tls.crt").write_bytes(pair.certificate_pem)
    (tmp_path / "tls.key").write_bytes(other.key_pem)
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "tls.crt")
    server: DiscoveryServer[Snapshot] = DiscoveryServer(
        DiscoverySettings("us-west-1", tls=files), render=to_resources
    )
    with pytest.raises(DiscoveryError, match=f"{files.private_key}.*KEY_VALUES_MISMATCH"):
        await server.start()


async def test_why_the_agent_is_away_is_said(tmp_path: Path) -> None:
    settings = GatewaySettings("gw-1", "us-west-1", "127.0.0.1:1", tmp_path)
    async with Gateway.of(settings).running() as gateway:
        why = await eventually(lambda: gateway.feed.state().why)
        assert why.startswith("UNAVAILABLE: ")
        assert gateway.feed.state().state is State.STARTING
