"""Programmed: only when every gateway has taken what the object became."""

from __future__ import annotations

import pytest

from federation.derive.programmed import with_programmed
from federation.model.acks import AckView, NodeAcks, RefusedResource
from federation.model.conditions import Condition
from federation.model.objects import ObjectKey
from federation.model.status import ObjectStatus
from tests.testkit.routing import certificate, compiled, parse, service

GROUP = "gateway.networking.k8s.io"
GATEWAY = ObjectKey(GROUP, "Gateway", "app", "gw")
POLICY = ObjectKey(GROUP, "BackendTrafficPolicy", "app", "retry")

TEXT = f"""
apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: gw, namespace: app, generation: 2}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: plain, port: 80, protocol: HTTP}}
  - {{name: secure, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}
  - {{name: broken, port: 444, protocol: HTTPS}}
---
apiVersion: {GROUP}/v1
kind: GRPCRoute
metadata: {{name: users, namespace: app}}
spec:
  parentRefs: [{{name: gw, sectionName: plain}}]
  rules:
  - backendRefs: [{{name: user-service, port: 9090}}]
---
apiVersion: {GROUP}/v1alpha3
kind: BackendTrafficPolicy
metadata: {{name: retry, namespace: app}}
spec:
  targetRef: {{group: {GROUP}, kind: GRPCRoute, name: users}}
  retry: {{attempts: 1}}
"""
COMPILED = compiled([*parse(TEXT), *service("app/user-service"), certificate("app/cert")])


def node(name: str, generation: int, *refused: RefusedResource) -> NodeAcks:
    return NodeAcks(node=name, kind="gateway", generation=generation, refused=refused)


def judged(
    *nodes: NodeAcks, previous: dict[ObjectKey, ObjectStatus] | None = None
) -> dict[str, Condition]:
    statuses = with_programmed(
        COMPILED.statuses,
        AckView(generation=5, nodes=nodes),
        snapshot=COMPILED.snapshot,
        previous=previous,
    )
    gateway, policy = statuses[GATEWAY], statuses[POLICY]
    found = {entry.name: entry.conditions for entry in gateway.listeners}
    found |= {"gateway": gateway.conditions, "policy": policy.ancestors[0].conditions}
    return {
        name: next(entry for entry in conditions if entry.type == "Programmed")
        for name, conditions in found.items()
    }


def spelled(found: dict[str, Condition]) -> dict[str, str]:
    return {name: f"{entry.status}/{entry.reason}" for name, entry in found.items()}


def test_nobody_is_connected() -> None:
    found = judged()
    assert spelled(found)["gateway"] == "False/NoResources"
    assert found["plain"].message == "no gateway is connected"


def test_all_have_taken_it() -> None:
    found = judged(node("gw-1", 5), node("gw-2", 5))
    assert spelled(found) == {
        "gateway": "True/Programmed",
        "plain": "True/Programmed",
        "secure": "True/Programmed",
        "broken": "False/Invalid",
        "policy": "True/Programmed",
    }
    assert found["gateway"].message == "2/2 gateways"
    assert found["gateway"].observed_generation == 2


def test_one_is_behind() -> None:
    found = judged(node("gw-1", 5), node("gw-2", 4))
    assert spelled(found)["gateway"] == "False/Pending"
    assert found["gateway"].message == "1/2 gateways have taken it"


@pytest.mark.parametrize(
    ("kind", "name", "concerned"),
    [
        ("listeners", "app/gw/443", {"gateway", "secure"}),
        ("secrets", "app/cert", {"gateway", "secure"}),
        ("routes", "app/gw/80", {"gateway", "plain", "policy"}),
        (
            "clusters",
            "service/app/user-service/9090@app/retry",
            {"gateway", "plain", "policy"},
        ),
        ("listeners", "other/gw/80", set()),
    ],
)
def test_a_refusal_concerns_what_it_is_part_of(kind: str, name: str, concerned: set[str]) -> None:
    refused = RefusedResource(kind=kind, name=name, message="no")
    found = judged(node("gw-1", 5, refused), node("gw-2", 5))
    invalid = {name for name, entry in found.items() if entry.message.startswith("1/2")}
    assert invalid == concerned
    for part in concerned:
        assert found[part].message == f"1/2 gateways; gw-1 refused {kind} {name}: no"


def test_a_newer_publication_does_not_take_it_back() -> None:
    nodes = (node("gw-1", 5), node("gw-2", 5))
    before = with_programmed(
        COMPILED.statuses, AckView(generation=5, nodes=nodes), snapshot=COMPILED.snapshot
    )
    behind = judged(node("gw-1", 4), node("gw-2", 5), previous=before)
    assert spelled(behind)["gateway"] == spelled(behind)["policy"] == "True/Programmed"
    refused = RefusedResource(kind="routes", name="app/gw/80", message="no")
    assert spelled(judged(node("gw-1", 5, refused), previous=before))["plain"] == "False/Invalid"


def test_addresses_are_where_connected_gateways_are_bound() -> None:
    nodes = tuple(
        NodeAcks(node=name, kind="gateway", generation=5, address=address)
        for name, address in (("a", "10.0.0.2"), ("b", None), ("c", "10.0.0.1"), ("d", "gw.test"))
    )
    view = AckView(generation=5, nodes=nodes)
    statuses = with_programmed(COMPILED.statuses, view, snapshot=COMPILED.snapshot)
    assert [(entry.type, entry.value) for entry in statuses[GATEWAY].addresses] == [
        ("IPAddress", "10.0.0.1"),
        ("IPAddress", "10.0.0.2"),
        ("Hostname", "gw.test"),
    ]
    assert statuses[POLICY].addresses == ()
