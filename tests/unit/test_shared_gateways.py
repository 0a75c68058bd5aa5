"""The Service in front of shared gateways: which ports it is given, where its Gateways are."""

from __future__ import annotations

from typing import Any

from federation.derive.shared_gateways import added_ports, has_ports, shared_place, unread_listeners
from federation.model.acks import NodeAcks
from federation.model.base import ServiceName
from federation.model.infrastructure import ServedPort
from federation.model.objects import (
    Gateway,
    ObjectKey,
    ObjectSnapshot,
    RejectedObject,
    Service,
)
from tests.testkit.routing import snapshot_of

NAME = ServiceName(namespace="system", name="gateway")
ASKED = {
    ObjectKey(Gateway.GROUP, "Gateway", "app", "a"): (80, 443),
    ObjectKey(Gateway.GROUP, "Gateway", "app", "b"): (8443,),
}


def service(*ports: dict[str, Any], **status: Any) -> Service:
    document = {
        "metadata": {"name": NAME.name, "namespace": NAME.namespace},
        "spec": {"type": "LoadBalancer", "ports": list(ports)},
        "status": status or {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    }
    return Service.model_validate(document)


def node(name: str = "gw", **about: Any) -> NodeAcks:
    return NodeAcks(name, "gateway", 1, **about)


def gateway(**spec: Any) -> Gateway:
    listeners = [{"name": "a", "port": 80, "protocol": "HTTP"}]
    return Gateway.model_validate(
        {
            "metadata": {"name": "a", "namespace": "app"},
            "spec": {"gatewayClassName": "istio", "listeners": listeners, **spec},
        }
    )


EAST_WEST = {"name": "east-west", "port": 15444}
WEB = {"name": "web", "port": 80}


def test_ports_that_are_missing_are_added_where_gateways_listen() -> None:
    found = added_ports(service(EAST_WEST, WEB), ASKED, [node(port_offset=1000)])
    assert found == (
        ServedPort("listener-443", 443, 1443),
        ServedPort("listener-8443", 8443, 9443),
    )


def test_ports_of_ours_stay_ours() -> None:
    mine = {"name": "listener-8443", "port": 8443, "targetPort": 8443}
    there = service(EAST_WEST, WEB, mine, {"name": "listener-9", "port": 10})
    found = added_ports(there, ASKED, [node()])
    assert found is not None
    assert not has_ports(there, found)
    complete = service(WEB, mine, {"name": "listener-443", "port": 443, "targetPort": 443})
    assert has_ports(complete, found)
    assert not has_ports(service(WEB, mine), found)


def test_ports_stay_while_an_object_that_may_ask_for_them_cannot_be_read() -> None:
    mine = {"name": "listener-8443", "port": 8443, "targetPort": 8443}
    there = service(EAST_WEST, mine)
    assert added_ports(there, {}, [node()]) == ()
    assert added_ports(there, {}, [node()], removing=False) == (
        ServedPort("listener-8443", 8443, 8443),
    )
    unread = ObjectKey(Gateway.GROUP, "Gateway", "app", "b")
    rejected = {unread: RejectedObject("app/b", "a field is not known")}
    assert unread_listeners(ObjectSnapshot({}, rejected, 1))
    assert not unread_listeners(ObjectSnapshot({}, {}, 1))


def test_nothing_is_known_before_a_gateway_says_where_it_listens() -> None:
    entrance = node("e", serves="east-west", port_offset=7)
    assert added_ports(service(EAST_WEST), ASKED, []) is None
    assert added_ports(service(EAST_WEST), ASKED, [entrance]) is None
    assert added_ports(service(EAST_WEST), ASKED, [node(), node("b", port_offset=1)]) is None
    assert added_ports(service(EAST_WEST), {}, [node(), entrance]) == ()


def test_a_gateway_is_where_the_service_is() -> None:
    found = shared_place(gateway(), (80,), snapshot_of([service(WEB)]), NAME)
    assert ([it.value for it in found.addresses], found.reason) == (["192.0.2.1"], "")
    named = service(WEB, loadBalancer={"ingress": [{"hostname": "lb.example.com"}]})
    found = shared_place(gateway(), (80,), snapshot_of([named]), NAME)
    assert [(it.type, it.value) for it in found.addresses] == [("Hostname", "lb.example.com")]


def test_what_is_missing_is_said() -> None:
    objects = snapshot_of([service(WEB)])
    found = shared_place(gateway(), (80, 8443), objects, NAME)
    assert (found.reason, found.addresses[0].value) == ("NoResources", "192.0.2.1")
    assert "has no port 8443: the agent adds it when" in found.message
    found = shared_place(gateway(), (80, 8443), objects, NAME, failure="no right")
    assert found.message.endswith("has no port 8443: no right")
    assert shared_place(gateway(), (80,), snapshot_of([]), NAME).reason == "AddressNotAssigned"
    waiting = snapshot_of([service(WEB, loadBalancer={})])
    assert shared_place(gateway(), (80,), waiting, NAME).reason == "AddressNotAssigned"
    asked = gateway(addresses=[{"value": "192.0.2.2"}])
    assert shared_place(asked, (80,), objects, NAME).reason == "AddressNotUsable"
