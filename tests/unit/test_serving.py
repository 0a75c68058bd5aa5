"""What a gateway is given that serves a part of its cluster: that part, whole, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.derive.programmed import with_programmed
from federation.model.acks import AckView, NodeAcks, RefusedResource
from federation.model.objects import ObjectKey
from federation.model.serving import only_gateway
from federation.wire.xds import NodeView, Renderer, XdsResources, to_resources
from tests.testkit.routing import certificate, compiled, parse, service

GROUP = "gateway.networking.k8s.io"
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: app}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: plain, port: {port}, protocol: HTTP}}
  - {{name: secure, port: {secure}, protocol: HTTPS, tls: {{certificateRefs: [{{name: {name}}}]}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: {name}, namespace: app}}
spec:
  parentRefs: [{{name: {name}}}]
  rules:
  - backendRefs: [{{name: {name}, port: 9090}}]
    filters:
    - {{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}-copy, port: 9090}}}}}}
---
"""
OBJECTS = [
    *parse(GATEWAY.format(name="red", port=80, secure=443)),
    *parse(GATEWAY.format(name="blue", port=81, secure=444)),
    *(entry for name in ("red", "blue") for entry in service(f"app/{name}")),
    *(entry for name in ("red", "blue") for entry in service(f"app/{name}-copy")),
    certificate("app/red"),
    certificate("app/blue"),
]
COMPILED = compiled(OBJECTS)
RED, BLUE = (ObjectKey(GROUP, "Gateway", "app", name) for name in ("red", "blue"))


def view(serves: str, *, shards: bool = False) -> NodeView:
    return NodeView(serves=serves, shards=shards)


def names(resources: XdsResources) -> set[str]:
    return {
        *resources.listeners,
        *resources.routes,
        *resources.clusters,
        *resources.endpoints,
        *resources.secrets,
    }


@pytest.mark.parametrize("shards", [False, True])
def test_a_gateway_gets_its_own_gateway_whole(shards: bool) -> None:
    found = to_resources(COMPILED.snapshot, view("gateway:app/red", shards=shards))
    assert set(found.listeners) == set(found.routes) == {"app/red/80", "app/red/443"}
    assert set(found.secrets) == {"app/red"}
    assert set(found.clusters) == {f"service/app/{name}/9090" for name in ("red", "red-copy")}
    assert set(found.endpoints) == set(found.clusters)
    assert not [name for name in names(found) if "blue" in name]


def test_the_entrance_for_other_clusters_is_no_gateways() -> None:
    found = to_resources(COMPILED.snapshot, view("east-west"))
    assert set(found.listeners) == set(found.routes) == {"federation/east-west"}
    assert not found.secrets
    assert "federation/east-west" not in names(
        to_resources(COMPILED.snapshot, view("gateway:app/red"))
    )


def test_parts_are_made_of_the_messages_of_the_whole() -> None:
    renderer = Renderer()
    whole = renderer(COMPILED.snapshot, view("all"))
    parts = [renderer(COMPILED.snapshot, view(f"gateway:app/{name}")) for name in ("red", "blue")]
    for part in parts:
        assert all(whole.clusters[name] is message for name, message in part.clusters.items())
        assert all(whole.endpoints[name] is message for name, message in part.endpoints.items())
    again = renderer(replace(COMPILED.snapshot), view("all"))
    assert all(whole.clusters[name] is message for name, message in again.clusters.items())


def test_a_gateway_that_is_not_there_has_nothing() -> None:
    assert not names(to_resources(COMPILED.snapshot, view("gateway:app/green")))


def node(name: str, serves: str, *, generation: int = 5, refused: str = "") -> NodeAcks:
    found = (RefusedResource("listeners", refused, "no"),) if refused else ()
    return NodeAcks(name, "gateway", generation, serves=serves, refused=found)


def programmed(*nodes: NodeAcks) -> dict[str, str]:
    acks = AckView(generation=5, nodes=nodes)
    statuses = with_programmed(COMPILED.statuses, acks, snapshot=COMPILED.snapshot)
    found = {key.name: statuses[key].condition("Programmed") for key in (RED, BLUE)}
    return {name: f"{it.status} {it.message}" for name, it in found.items() if it is not None}


def test_those_answer_for_a_gateway_who_serve_it() -> None:
    red, blue = (only_gateway(key.qualified_name) for key in (RED, BLUE))
    told = programmed(node("r", red), node("b", blue, generation=4), node("e", "east-west"))
    assert told == {"red": "True 1/1 gateways", "blue": "False 0/1 gateways have taken it"}
    told = programmed(node("r", red), node("all", "all", refused="app/red/80"))
    assert told["red"].startswith("False 1/2 gateways; all refused listeners app/red/80")
    assert told["blue"] == "True 1/1 gateways"


def test_nobody_answers_for_a_gateway_that_none_serves() -> None:
    told = programmed(node("r", only_gateway(RED.qualified_name)), node("e", "east-west"))
    assert told["blue"] == "False no gateway is connected"
