"""What is made for Gateways with gateways of their own, from a template, and where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.derive.compile import CompileSettings
from federation.derive.infrastructure import (
    infrastructure_name,
    infrastructure_of,
    place_of,
    unread_gateways,
)
from federation.model.infrastructure import GatewayTemplate, Place
from federation.model.objects import (
    Gateway,
    GatewayClass,
    ObjectKey,
    ObjectSnapshot,
    RejectedObject,
    Service,
)
from federation.model.serving import is_known
from federation.wire.gateway_template import TemplateError, read_template
from tests.testkit.routing import compiled, parse, snapshot_of

TEMPLATE = (Path(__file__).parents[2] / "clusters/dedicated/template.yaml").read_text()
SMALL = """
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      containers: [{name: x, image: federation, args: [gateway, --port-offset, "10000"]}]
---
apiVersion: v1
kind: Service
metadata: {annotations: {provider/internal: "true"}}
spec: {type: NodePort, externalTrafficPolicy: Local}
"""


def edge(name: str = "edge", namespace: str = "infra", **spec: Any) -> Gateway:
    return Gateway.model_validate(
        {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "gatewayClassName": "istio",
                "listeners": [{"name": "grpc", "port": 80, "protocol": "HTTP"}],
                **spec,
            },
        }
    )


def made(gateway: Gateway, text: str, *ports: int) -> dict[str, Any]:
    objects = infrastructure_of(gateway, ports or (80,), read_template(text))
    return {entry.kind.kind: entry.document for entry in objects}


def test_a_deployment_serves_its_gateway_alone() -> None:
    found = made(edge(), TEMPLATE, 443, 80)["Deployment"]
    pod = found["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["args"][-2:] == ["--serves", "gateway:infra/edge"]
    assert is_known(container["args"][-1])
    assert [port["containerPort"] for port in container["ports"]] == [15000, 80, 443]
    assert found["metadata"]["namespace"] == "federation-system"
    selector = found["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    assert pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "federation"
    assert made(edge(), TEMPLATE, 80)["Service"]["spec"]["selector"] == selector


def test_ports_lead_to_where_the_pods_listen() -> None:
    found = made(edge(), SMALL, 80, 8443)
    ports = {port["port"]: port["targetPort"] for port in found["Service"]["spec"]["ports"]}
    assert ports == {80: 10080, 8443: 18443}
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert {port["containerPort"] for port in container["ports"]} == {10080, 18443}


def test_a_service_of_the_template_is_taken_over() -> None:
    found = made(edge(), SMALL)["Service"]
    assert found["spec"]["type"] == "NodePort"
    assert found["spec"]["externalTrafficPolicy"] == "Local"
    assert found["metadata"]["annotations"]["provider/internal"] == "true"
    assert found["metadata"]["namespace"] == "infra"


def test_what_a_gateway_says_does_not_undo_what_finds_it() -> None:
    labels = {"federation.dev/gateway": "mine", "federation.dev/managed-by": "me", "team": "a"}
    gateway = edge(infrastructure={"labels": labels})
    found = made(gateway, TEMPLATE)["Deployment"]["metadata"]["labels"]
    assert found["team"] == "a"
    assert found["federation.dev/managed-by"] == "gateway-infrastructure"
    assert found["federation.dev/gateway"] == infrastructure_name(gateway)


def test_the_template_is_left_as_it_is() -> None:
    template = read_template(TEMPLATE)
    first = infrastructure_of(edge(), (80,), template)
    infrastructure_of(edge("other", infrastructure={"labels": {"team": "a"}}), (81,), template)
    assert infrastructure_of(edge(), (80,), template) == first
    assert template == read_template(TEMPLATE)


def test_without_a_port_nothing_is_wanted() -> None:
    assert infrastructure_of(edge(), (), read_template(TEMPLATE)) == ()


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,100}[a-z0-9])?", fullmatch=True)
NAMESPACES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(st.lists(st.tuples(NAMES, NAMESPACES), min_size=2, max_size=2, unique=True))
def test_names_are_labels_and_never_meet(pairs: list[tuple[str, str]]) -> None:
    first, second = (
        infrastructure_name(edge().with_metadata(name=name, namespace=namespace))
        for name, namespace in pairs
    )
    assert first != second
    for found in (first, second):
        assert len(found) <= 63
        assert found.replace("-", "").isalnum()
        assert found[-1] != "-"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML"),
        ("", "has to have one Deployment"),
        ("kind: Deployment\napiVersion: apps/v1\nspec: 3", "spec.template.spec: must be a mapping"),
        (f"{SMALL}---\nkind: Secret\napiVersion: v1", "one Service (v1) at most, and no more"),
        (SMALL.replace("name: x", "name: x}, {name: y"), 'name the one that runs the gateway "ga'),
        (SMALL.replace('"10000"', "--serves=all"), "--serves is set for each Gateway"),
        (SMALL.replace('"10000"', '"70000"'), 'must be from 0 to 65535, got "70000"'),
        (SMALL.replace("    spec:\n", "    spec:\n      serviceAccountName: a\n"), "remove it"),
        ("kind: Deployment\napiVersion: apps/v1\n", "containers: must be a list"),
    ],
)
def test_a_wrong_template_says_what_to_do(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as refusal:
        read_template(text)
    assert message in str(refusal.value)


def test_of_several_containers_it_is_the_one_of_that_name() -> None:
    text = SMALL.replace("[{name: x", "[{name: sidecar, image: y}, {name: gateway")
    assert read_template(text).container == 1
    containers = made(edge(), text)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert ["args" in it for it in containers] == [False, True]


# Addresses.


def own_service(template: GatewayTemplate, *ingress: dict[str, str]) -> Service:
    document = infrastructure_of(edge(), (80,), template)[1].document
    status = {"loadBalancer": {"ingress": list(ingress)}}
    kept = {name: document["metadata"][name] for name in ("name", "namespace")}
    return Service.model_validate(
        {"metadata": kept, "spec": {"type": "LoadBalancer"}, "status": status}
    )


def placed(gateway: Gateway, *ingress: dict[str, str], failure: str = "") -> Place:
    template = read_template(TEMPLATE)
    objects = snapshot_of([own_service(template, *ingress)])
    return place_of(gateway, objects, template, failure=failure)


def test_a_gateway_is_where_its_load_balancer_is() -> None:
    found = placed(edge(), {"ip": "192.0.2.1"}, {"hostname": "lb.example.com"})
    assert [(it.type, it.value) for it in found.addresses] == [
        ("IPAddress", "192.0.2.1"),
        ("Hostname", "lb.example.com"),
    ]
    assert not found.reason


def test_a_gateway_without_its_address_says_which_is_missing() -> None:
    assert placed(edge()).reason == "AddressNotAssigned"
    asked = edge(addresses=[{"value": "192.0.2.9"}, {"value": "192.0.2.1"}])
    found = placed(asked, {"ip": "192.0.2.1"})
    assert found.reason == "AddressNotUsable"
    assert "has not been given 192.0.2.9; one address is asked for" in found.message
    assert not placed(edge(addresses=[{"type": "IPAddress"}]), {"ip": "192.0.2.1"}).reason
    assert placed(edge(), {"ip": "192.0.2.1"}, failure="no").reason == "NoResources"
    template = read_template(TEMPLATE)
    missing = place_of(edge(), snapshot_of([]), template)
    assert (missing.reason, missing.addresses) == ("NoResources", ())


def test_the_first_requested_address_is_asked_of_the_provider() -> None:
    gateway = edge(addresses=[{"type": "IPAddress"}, {"value": "192.0.2.9"}])
    assert made(gateway, TEMPLATE)["Service"]["spec"]["loadBalancerIP"] == "192.0.2.9"
    assert "loadBalancerIP" not in made(edge(), TEMPLATE)["Service"]["spec"]


# Compiling.

TWINS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: NAME, namespace: app}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: a.example.com}]
  listeners:
  - {name: grpc, port: 80, protocol: HTTP}
  - {name: peer, port: 15444, protocol: HTTP}
  - {name: raw, port: 90, protocol: TCP}
  - {name: secure, port: 443, protocol: HTTPS}
---
"""


def test_ports_of_dedicated_gateways_do_not_meet() -> None:
    objects = parse(TWINS.replace("NAME", "a") + TWINS.replace("NAME", "b"))
    result = compiled(objects, settings=CompileSettings(dedicated_gateways=True))
    opened = {(entry.gateway, entry.port) for entry in result.snapshot.listeners if entry.gateway}
    assert opened == {(f"app/{name}", port) for name in "ab" for port in (80, 15444)}
    keys = [ObjectKey(Gateway.GROUP, "Gateway", "app", name) for name in "ab"]
    # Also the port whose certificate is missing: it may come, and an address is not given up.
    assert {key: result.ports[key] for key in keys} == dict.fromkeys(keys, (80, 443, 15444))
    assert compiled(objects).ports == {keys[0]: (80, 443), keys[1]: ()}
    accepted = result.statuses[keys[0]].condition("Accepted")
    assert accepted is not None
    assert accepted.reason == "UnsupportedAddress"


def test_a_gateway_that_cannot_be_read_keeps_what_it_has() -> None:
    readable = edge()
    key = ObjectKey(Gateway.GROUP, "Gateway", "infra", "broken")
    rejected = {key: RejectedObject("infra/broken", "a field is not known")}
    objects = {readable.key: readable}
    assert unread_gateways(ObjectSnapshot(objects, rejected, 1)) == [key]
    of_class = ObjectKey(GatewayClass.GROUP, "GatewayClass", "", "istio")
    rejected = {of_class: RejectedObject("istio", "a field is not known")}
    assert unread_gateways(ObjectSnapshot(objects, rejected, 1)) == [readable.key]
    assert unread_gateways(ObjectSnapshot(objects, {}, 1)) == []
