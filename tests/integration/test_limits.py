"""Rate limits from manifests to traffic, through ``fedctl standalone``."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc

from tests.native.support import DEADLINE_S, backends
from tests.testkit.ports import free_port
from tests.testkit.standalone import gateway, plain, route, service, standalone

OK, LIMITED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


def policy(limits: str, *, name: str = "limits") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {{name: {name}, namespace: app}}
spec:
  targetRef: {{group: gateway.networking.k8s.io, kind: GRPCRoute, name: echo}}
  rateLimit: {limits}
"""


async def outcomes(address: str, calls: int, **metadata: str) -> Counter[grpc.StatusCode]:
    headers = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    async with grpc.aio.insecure_channel(address) as channel:
        echo = channel.unary_unary("/test.Echo/Unary")
        running = [
            echo(b"hi", metadata=headers, timeout=DEADLINE_S, wait_for_ready=True)
            for _ in range(calls)
        ]
        return Counter(await asyncio.gather(*(call.code() for call in running)))


async def test_rules_of_a_policy_hold_on_traffic(tmp_path: Path) -> None:
    limits = """
    type: Local
    local:
      rules:
      - clientSelectors: [{headers: [{name: x-env, value: test}]}]
        limit: {requestsPerUnit: 3, unit: Hour}
      - clientSelectors: [{headers: [{name: x-user, type: RegularExpression, value: "a.*"}]}]
        limit: {requestsPerUnit: 2, unit: Day}
      - clientSelectors: [{headers: [{name: x-tenant, type: Distinct}]}]
        limit: {requestsPerUnit: 4, unit: Hour}
"""
    with backends("a") as (a,):
        port, endpoint = free_port(), int(a.address.rpartition(":")[2])
        rules = "[{backendRefs: [{name: echo, port: 9090}]}]"
        documents = (
            gateway(plain(port)),
            service("echo", endpoint),
            route("echo", rules),
            policy(limits),
        )
        address = f"127.0.0.1:{port}"
        async with standalone(tmp_path, documents) as running:
            assert await outcomes(address, 6) == {OK: 6}
            assert await outcomes(address, 6, x_env="test") == {OK: 3, LIMITED: 3}
            assert await outcomes(address, 6, x_env="live") == {OK: 6}
            assert await outcomes(address, 6, x_user="ann") == {OK: 2, LIMITED: 4}
            assert await outcomes(address, 6, x_user="bob") == {OK: 6}
            assert await outcomes(address, 6, x_tenant="one") == {OK: 4, LIMITED: 2}
            assert await outcomes(address, 6, x_tenant="two") == {OK: 4, LIMITED: 2}
            assert not [line for line in running.said if "rateLimit" in line]


async def test_the_documents_policy_limits_each_key(tmp_path: Path) -> None:
    limits = """
    type: Global
    global:
      rules:
      - clientSelectors:
        - headers: [{name: x-api-key}]
        limit: {requestsPerUnit: 1000, unit: Minute}
"""
    with backends("a") as (a,):
        port, endpoint = free_port(), int(a.address.rpartition(":")[2])
        rules = "[{backendRefs: [{name: echo, port: 9090}]}]"
        documents = (
            gateway(plain(port)),
            service("echo", endpoint),
            route("echo", rules),
            policy(limits),
        )
        address = f"127.0.0.1:{port}"
        async with standalone(tmp_path, documents):
            clock = asyncio.get_running_loop().time
            began = clock()
            found = await outcomes(address, 1500, x_api_key="one")
            # What flows back while the calls run passes as well.
            most = 1000 + 1000 * (clock() - began) / 60 + 1
            assert 1000 <= found[OK] <= most
            assert found[OK] + found[LIMITED] == 1500
            assert await outcomes(address, 10, x_api_key="two") == {OK: 10}
            assert await outcomes(address, 10) == {OK: 10}
