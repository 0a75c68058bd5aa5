"""The Service in front of the gateways: what other clusters are given of it, and what is behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from federation.agent.entrances import ENTRANCES_MAX, service_gateways
from federation.agent.names import NameResolver
from federation.agent.state import ClusterObjects
from federation.aio import Latest, cancel_and_wait
from federation.derive.entrances import (
    Entrance,
    GatewayPod,
    gateway_pods,
    needs_nodes,
    service_entrances,
    service_hosts,
)
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import ClusterGateways, PeerGateway
from federation.model.objects import ObjectSnapshot
from federation.ports import TemporaryError
from federation.wire.manifests import decode_all, parse_documents

SERVICE = ServiceName(namespace="federation-system", name="federation-gateway")
WEST, REGION = ClusterId("west"), Region("us-west-1")

META = "metadata: {name: federation-gateway, namespace: federation-system}"
PORTS = "{name: grpc, port: 443}, {name: east-west, port: 15444, nodePort: 31544}"
NODE = """
---
apiVersion: v1
kind: Node
metadata: {{name: {name}}}
status: {{addresses: [{addresses}]}}
"""
NODES = "".join(
    (
        NODE.format(name="a", addresses="{type: Hostname, address: a}"),
        NODE.format(name="b", addresses="{type: InternalIP, address: 10.0.0.2}"),
        NODE.format(
            name="c",
            addresses="{type: InternalIP, address: 10.0.0.3}, "
            "{type: ExternalIP, address: 203.0.113.3}",
        ),
    )
)
SLICE = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: federation-gateway-1
  namespace: federation-system
  labels: {kubernetes.io/service-name: federation-gateway}
addressType: IPv4
ports: [{name: east-west, port: 15444}]
endpoints:
- {addresses: [10.1.0.2], nodeName: c, targetRef: {kind: Pod, name: gw-2}}
- {addresses: [10.1.0.1], nodeName: b, conditions: {ready: true}, targetRef: {name: gw-1}}
- {addresses: [10.1.0.3], nodeName: a, conditions: {ready: false}}
"""


def objects(spec: str, status: str = "{}", rest: str = "") -> ObjectSnapshot:
    text = f"apiVersion: v1\nkind: Service\n{META}\nspec: {spec}\nstatus: {status}\n{rest}"
    found = decode_all(parse_documents(text, origin="test"))
    assert not found.rejected, found.rejected
    return ObjectSnapshot({value.key: value for value in found.objects}, synced=True)


def addresses(found: ObjectSnapshot) -> list[str]:
    return [e.address for e in service_entrances(found, SERVICE, resolved={})]


def test_a_load_balancers_addresses_come_with_the_services_port() -> None:
    ingress = "{loadBalancer: {ingress: [{ip: 198.51.100.2}, {ip: '2001:db8::1'}]}}"
    found = objects(f"{{type: LoadBalancer, ports: [{PORTS}]}}", ingress, NODES)
    assert addresses(found) == ["198.51.100.2:15444", "[2001:db8::1]:15444"]
    assert not needs_nodes(found, SERVICE)


def test_a_load_balancers_name_leads_where_it_is_resolved_to() -> None:
    ingress = "{loadBalancer: {ingress: [{hostname: lb.example.com}]}}"
    found = objects(f"{{type: LoadBalancer, ports: [{PORTS}]}}", ingress)
    resolved = {"lb.example.com": ("198.51.100.8", "198.51.100.9")}
    entrances = service_entrances(found, SERVICE, resolved=resolved)
    assert [e.host for e in entrances] == ["198.51.100.8", "198.51.100.9"]
    assert service_hosts(found, SERVICE) == ("lb.example.com",)
    assert addresses(found) == []


def test_a_load_balancer_that_is_not_there_yet_is_waited_for() -> None:
    found = objects(f"{{type: LoadBalancer, ports: [{PORTS}]}}", "{loadBalancer: {}}", NODES)
    assert addresses(found) == []
    assert not needs_nodes(found, SERVICE)


def test_a_node_port_is_reached_at_the_nodes() -> None:
    found = objects(f"{{type: NodePort, ports: [{PORTS}]}}", rest=NODES)
    assert needs_nodes(found, SERVICE)
    assert addresses(found) == ["10.0.0.2:31544", "203.0.113.3:31544"]


def test_with_local_traffic_only_nodes_with_a_gateway_count() -> None:
    spec = f"{{type: NodePort, externalTrafficPolicy: Local, ports: [{PORTS}]}}"
    one = SLICE.replace("nodeName: b", "nodeName: a")
    assert addresses(objects(spec, rest=NODES + one)) == ["203.0.113.3:31544"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (f"{{ports: [{PORTS}]}}", []),
        (f"{{externalIPs: [192.0.2.7], ports: [{PORTS}]}}", ["192.0.2.7:15444"]),
        ("{type: NodePort, ports: [{name: grpc, port: 443, nodePort: 30443}]}", []),
        ("{type: NodePort, ports: [{name: east-west, port: 15444}]}", []),
    ],
)
def test_other_services(spec: str, expected: list[str]) -> None:
    assert addresses(objects(spec, rest=NODES)) == expected


def test_ready_pods_behind_the_service() -> None:
    assert gateway_pods(objects("{}", rest=SLICE), SERVICE) == (
        GatewayPod("10.1.0.1", "gw-1", "b"),
        GatewayPod("10.1.0.2", "gw-2", "c"),
    )
    other = ServiceName(namespace="federation-system", name="other")
    assert gateway_pods(objects("{}", rest=SLICE), other) == ()


def advertised(stored: ClusterGateways | None, *found: Entrance) -> list[str] | None:
    wanted = service_gateways(stored, found, service=SERVICE, cluster=WEST, region=REGION)
    return [peer.address for peer in wanted.gateways] if wanted is not None else None


def test_what_is_not_known_now_stays_advertised() -> None:
    peers = (PeerGateway(name="x", address="198.51.100.2:15444"),)
    stored = ClusterGateways(cluster=WEST, region=REGION, gateways=peers)
    assert advertised(None) is None
    assert advertised(stored) == ["198.51.100.2:15444"]
    assert advertised(stored, Entrance("198.51.100.3", 15444)) == ["198.51.100.3:15444"]


def test_a_large_clusters_nodes_are_bounded() -> None:
    many = [Entrance(f"10.0.{n // 250}.{n % 250}", 31544) for n in range(ENTRANCES_MAX + 9)]
    assert len(advertised(None, *many) or ()) == ENTRANCES_MAX


class Hosts:
    """A resolver that knows what it is told."""

    def __init__(self) -> None:
        self.known = {"lb.example.com": ("198.51.100.8",)}

    async def addresses(self, name: str) -> Sequence[str]:
        if name not in self.known:
            raise TemporaryError(f"resolving {name}: no such host")
        return self.known[name]


async def test_names_that_are_not_resolved_now_keep_their_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("federation.agent.names.AGAIN_S", 0.01)
    ingress = "{loadBalancer: {ingress: [{hostname: lb.example.com}]}}"
    found = objects(f"{{type: LoadBalancer, ports: [{PORTS}]}}", ingress)
    cell: Latest[ClusterObjects] = Latest(ClusterObjects(found, found, live=True))
    hosts = Hosts()
    resolver = NameResolver(SERVICE, objects=cell, hosts=hosts)
    running = asyncio.create_task(resolver.run())
    try:
        async with asyncio.timeout(10):
            changes = resolver.names.changes()
            assert await anext(changes) == {}
            assert await anext(changes) == {"lb.example.com": ("198.51.100.8",)}
            hosts.known.clear()
            hosts.known["other.example.com"] = ("198.51.100.9",)
            ingress = ingress.replace("lb.", "other.")
            both = ingress.replace("[", "[{hostname: lb.example.com}, ")
            found = objects(f"{{type: LoadBalancer, ports: [{PORTS}]}}", both)
            cell.set(ClusterObjects(found, found, live=True))
            assert await anext(changes) == {
                "lb.example.com": ("198.51.100.8",),
                "other.example.com": ("198.51.100.9",),
            }
            found = objects(f"{{type: LoadBalancer, ports: [{PORTS}]}}", ingress)
            cell.set(ClusterObjects(found, found, live=True))
            assert await anext(changes) == {"other.example.com": ("198.51.100.9",)}
            await changes.aclose()
    finally:
        await cancel_and_wait(running)
