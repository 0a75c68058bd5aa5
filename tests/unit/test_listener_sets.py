"""ListenerSets: whom a Gateway lets add listeners, in which order, and what routes make of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from federation.derive.compile import Compiled, CompileSettings
from federation.derive.programmed import with_programmed
from federation.model.acks import AckView, NodeAcks, RefusedResource
from federation.model.objects import ApiObject, ObjectKey
from federation.model.snapshot import TlsTermination
from tests.testkit.routing import certificate, compiled, parse, service, spelled

GROUP = "gateway.networking.k8s.io"
PLAIN = "{name: grpc, port: 80, protocol: HTTP, hostname: own.com}"


def gateway(allowed: str = "All", *listeners: str) -> tuple[ApiObject, ...]:
    takes = f"allowedListeners: {{namespaces: {{from: {allowed}}}}}" if allowed else ""
    lines = "\n".join(f"  - {entry}" for entry in (listeners or (PLAIN,)))
    return parse(
        f"apiVersion: {GROUP}/v1\nkind: Gateway\nmetadata: {{name: gw, namespace: infra}}\n"
        f"spec:\n  gatewayClassName: istio\n  {takes}\n  listeners:\n{lines}\n"
    )


def listener_set(name: str, *listeners: str, namespace: str = "app") -> tuple[ApiObject, ...]:
    lines = "\n".join(f"  - {{{entry}}}" for entry in listeners)
    return parse(
        f"apiVersion: {GROUP}/v1\nkind: ListenerSet\n"
        f"metadata: {{name: {name}, namespace: {namespace}, generation: 3}}\n"
        f"spec:\n  parentRef: {{name: gw, namespace: infra}}\n  listeners:\n{lines}\n"
    )


def route(parent: str, name: str = "users", hostname: str = "") -> tuple[ApiObject, ...]:
    hosts = f"hostnames: [{hostname}], " if hostname else ""
    return parse(
        f"apiVersion: {GROUP}/v1\nkind: GRPCRoute\nmetadata: {{name: {name}, namespace: app}}\n"
        f"spec: {{parentRefs: [{{{parent}}}], {hosts}"
        f"rules: [{{backendRefs: [{{name: {name}, port: 9090}}]}}]}}\n"
    )


def http(name: str, hostname: str, port: int = 80) -> str:
    return f"name: {name}, port: {port}, protocol: HTTP, hostname: {hostname}"


def of_set(result: Compiled, name: str, namespace: str = "app") -> Mapping[str, str]:
    status = result.statuses[ObjectKey(GROUP, "ListenerSet", namespace, name)]
    return spelled(status.conditions)


def listeners_of(result: Compiled, name: str) -> Mapping[str, Mapping[str, str]]:
    status = result.statuses[ObjectKey(GROUP, "ListenerSet", "app", name)]
    return {entry.name: spelled(entry.conditions) for entry in status.listeners}


def attached_sets(result: Compiled) -> int | None:
    return result.statuses[ObjectKey(GROUP, "Gateway", "infra", "gw")].attached_listener_sets


def hosts(result: Compiled, port: int = 80) -> dict[str, list[str]]:
    """The rules that answer for each host of a port."""
    tables = {table.name: table for table in result.snapshot.route_tables}
    return {
        host.hostname: [route.rule for route in host.routes]
        for host in tables[f"infra/gw/{port}"].virtual_hosts
    }


LABELLED = "apiVersion: v1\nkind: Namespace\nmetadata: {name: app, labels: {edge: shared}}\n"
SELECTOR = "Selector, selector: {matchLabels: {edge: shared}}"


@pytest.mark.parametrize(
    ("allowed", "extra", "taken"),
    [
        ("All", "", True),
        ("Same", "", False),
        ("None", "", False),
        ("", "", False),
        (SELECTOR, LABELLED, True),
        (SELECTOR, "", False),
    ],
)
def test_a_gateway_takes_the_sets_that_it_allows(allowed: str, extra: str, taken: bool) -> None:
    added = listener_set("more", http("a", "a.com"))
    result = compiled([*gateway(allowed), *added, *parse(extra)])
    conditions = of_set(result, "more")
    if taken:
        assert conditions == {"Accepted": "True/Accepted", "Programmed": "False/Pending"}
        assert set(hosts(result)) == {"own.com", "a.com"}
    else:
        assert set(conditions.values()) == {"False/NotAllowed"}
        assert set(hosts(result)) == {"own.com"}
    assert attached_sets(result) == (None if not allowed else int(taken))


def test_the_gateway_comes_first_and_then_the_older_set() -> None:
    result = compiled(
        [
            *gateway(),
            *listener_set("one", http("mine", "a.com"), http("taken", "own.com")),
            *listener_set("two", http("late", "a.com")),
            *listener_set("three", http("other", "c.com"), "name: raw, port: 80, protocol: TCP"),
        ]
    )
    lost = "False/HostnameConflict"
    one = listeners_of(result, "one")
    assert one["mine"]["Accepted"] == "True/Accepted"
    assert one["taken"]["Accepted"] == one["taken"]["Programmed"] == lost
    assert one["taken"]["Conflicted"] == "True/HostnameConflict"
    assert of_set(result, "one")["Accepted"] == "True/ListenersNotValid"
    assert listeners_of(result, "two")["late"]["Accepted"] == lost
    assert set(of_set(result, "two").values()) == {"False/ListenersNotValid"}
    raw = listeners_of(result, "three")["raw"]
    assert raw["Accepted"] == raw["Programmed"] == "False/ProtocolConflict"
    own = result.statuses[ObjectKey(GROUP, "Gateway", "infra", "gw")]
    assert spelled(own.conditions)["Accepted"] == "True/Accepted"
    assert attached_sets(result) == 2


def test_routes_belong_to_the_object_that_they_name() -> None:
    result = compiled(
        [
            *gateway("All", "{name: grpc, port: 80, protocol: HTTP}"),
            *listener_set("more", http("a", "a.com"), http("b", "b.com")),
            *(entry for name in ("own", "all", "one") for entry in service(f"app/{name}")),
            *route("name: gw, namespace: infra", "own"),
            *route("kind: ListenerSet, name: more", "all"),
            *route("kind: ListenerSet, name: more, sectionName: a", "one"),
            *route("name: gw, namespace: infra, sectionName: a", "lost"),
            *route("kind: ListenerSet, name: nothing", "none"),
        ]
    )
    found = {
        host: {rule.split("/")[1].split()[0] for rule in rules}
        for host, rules in hosts(result).items()
    }
    assert found["a.com"] == {"all", "one"}
    assert found["b.com"] == {"all"}
    accepted = {
        name: spelled(result.statuses[key].parents[0].conditions)["Accepted"]
        for name in ("own", "all", "one", "lost", "none")
        for key in (ObjectKey(GROUP, "GRPCRoute", "app", name),)
    }
    # The Gateway's own listener takes routes of its own namespace, the set's those of the set's.
    assert accepted == {
        "own": "False/NotAllowedByListeners",
        "all": "True/Accepted",
        "one": "True/Accepted",
        "lost": "False/NoMatchingParent",
        "none": "False/NoMatchingParent",
    }
    status = result.statuses[ObjectKey(GROUP, "ListenerSet", "app", "more")]
    assert {entry.name: entry.attached_routes for entry in status.listeners} == {"a": 2, "b": 1}


def test_a_route_of_a_set_that_is_not_taken_is_told() -> None:
    added = listener_set("more", http("a", "a.com"))
    result = compiled([*gateway("None"), *added, *route("kind: ListenerSet, name: more")])
    (parent,) = result.statuses[ObjectKey(GROUP, "GRPCRoute", "app", "users")].parents
    assert spelled(parent.conditions)["Accepted"] == "False/NoMatchingParent"


def tls(name: str, secret: str) -> str:
    refs = f"tls: {{certificateRefs: [{secret}]}}"
    return f"name: {name}, port: 443, protocol: HTTPS, hostname: {name}.com, {refs}"


GRANT = f"""
apiVersion: {GROUP}/v1beta1
kind: ReferenceGrant
metadata: {{name: keys, namespace: keys}}
spec:
  from: [{{group: {GROUP}, kind: KIND, namespace: app}}]
  to: [{{group: "", kind: Secret}}]
"""


def test_certificates_are_the_sets_own_to_refer_to() -> None:
    away = "{name: cert, namespace: keys}"
    added = listener_set("more", tls("near", "{name: cert}"), tls("far", away))
    objects = [*gateway(), *added, certificate("app/cert"), certificate("keys/cert")]
    refused = compiled([*objects, *parse(GRANT.replace("KIND", "Gateway"))])
    found = listeners_of(refused, "more")
    assert found["near"]["ResolvedRefs"].startswith("True")
    assert found["far"]["ResolvedRefs"] == "False/RefNotPermitted"
    granted = compiled([*objects, *parse(GRANT.replace("KIND", "ListenerSet"))])
    assert listeners_of(granted, "more")["far"]["ResolvedRefs"].startswith("True")
    (listener,) = (entry for entry in granted.snapshot.listeners if entry.port == 443)
    used = {
        chain.hostnames: chain.tls.certificates
        for chain in listener.chains
        if isinstance(chain.tls, TlsTermination)
    }
    assert used == {("near.com",): ("app/cert",), ("far.com",): ("keys/cert",)}
    assert len({chain.name for chain in listener.chains}) == 2


def test_names_of_listeners_may_be_those_of_others() -> None:
    result = compiled(
        [
            *gateway("All", "{name: a, port: 80, protocol: HTTP, hostname: own.com}"),
            *listener_set("more", http("a", "a.com"), http("b", "b.com", 81)),
        ]
    )
    assert {entry.name: entry.sections for entry in result.snapshot.listeners if entry.gateway} == {
        "infra/gw/80": ("a", "app/more/a"),
        "infra/gw/81": ("app/more/b",),
    }
    refused = RefusedResource("listeners", "infra/gw/81", "port in use")
    nodes = (
        NodeAcks("gw", "gateway", 2, refused=(refused,)),
        NodeAcks("else", "gateway", 1, serves="gateway:infra/other"),
    )
    acks = AckView(generation=2, nodes=nodes)
    statuses = with_programmed(result.statuses, acks, snapshot=result.snapshot)
    status = statuses[ObjectKey(GROUP, "ListenerSet", "app", "more")]
    found = {entry.name: spelled(entry.conditions)["Programmed"] for entry in status.listeners}
    assert found == {"a": "True/Programmed", "b": "False/Invalid"}
    assert spelled(status.conditions)["Programmed"] == "False/Invalid"


def test_ports_of_sets_are_the_gateways() -> None:
    objects = [*gateway(), *listener_set("more", http("a", "a.com", 8443))]
    result = compiled(objects, settings=CompileSettings(dedicated_gateways=True))
    assert result.ports == {ObjectKey(GROUP, "Gateway", "infra", "gw"): (80, 8443)}


def test_a_set_of_another_controllers_gateway_is_not_ours() -> None:
    added = listener_set("more", http("a", "a.com"))
    theirs = [entry.model_copy(deep=True) for entry in gateway()]
    text = f"apiVersion: {GROUP}/v1\nkind: GatewayClass\nmetadata: {{name: istio}}\n"
    foreign = parse(f"{text}spec: {{controllerName: example.com/another}}\n")
    assert not compiled([*theirs, *added, *foreign]).statuses
