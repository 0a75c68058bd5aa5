"""The documents' multi-protocol Gateway in the lab: HTTP on port 80 beside gRPC on 443."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import WEST
from tests.testkit import standalone as kit
from tests.testkit.http_echo import VERSIONS, curl, http_route, http_servers
from tests.testkit.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MANIFEST = Path(__file__).parents[1] / "manifests" / "8-keepalive-health-coexistence.yaml"


async def test_http_beside_grpc(lab: Lab, tmp_path: Path) -> None:
    port = 80 + int(lab.gateways(WEST)[0]["portOffset"])
    at_gateway = "name: multi-protocol-gateway, namespace: infra"
    route = http_route("web", "[{backendRefs: [{name: web, port: 9090}]}]", listener="http")
    async with http_servers("web") as (server,):
        added = tmp_path / "web.yaml"
        documents = [
            kit.service("web", server.port),
            route.replace("namespace: infra, name: gw", at_gateway),
        ]
        added.write_text("\n---\n".join(documents))
        applied = [str(MANIFEST), str(added)]
        for file in applied:
            lab.fedctl("apply", "-f", file, "--cluster", WEST)
        try:

            async def answers() -> bool:
                try:
                    return (await curl(port, "/page")).server == "web"
                except AssertionError:
                    return False

            await kit.until_async(answers, "the web server answers through the gateway")
            for version in VERSIONS:
                assert (await curl(port, "/page", version)).asked["path"] == "/page"
            shown = lab.fedctl("get", "httproute", "-n", "app", "--cluster", WEST, "-o", "wide").out
            row = next(line.split() for line in shown.splitlines() if line.startswith("web"))
            assert row[1:4] == ["<none>", "True", "True"]
            told = lab.fedctl("describe", "httproute", "web", "-n", "app", "--cluster", WEST).out
            assert "attached to listener http" in told
        finally:
            for file in reversed(applied):
                lab.fedctl("delete", "-f", file, "--cluster", WEST)
