"""Keepalive: the document's fields and bounds, and which ConfigMap is for which Gateway."""

from __future__ import annotations

import pytest

from federation.derive.compile import Compiled
from federation.model.keepalive import KeepaliveDocument, parse_keepalive
from federation.model.objects import ObjectKey
from federation.model.snapshot import ConnectionLife, PingLimit
from tests.testkit.routing import compiled, spelled

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: infra{annotations}}}
spec:
  gatewayClassName: istio
  {infrastructure}
  listeners:
  - {{name: a, port: 80, protocol: HTTP}}
  - {{name: b, port: 81, protocol: HTTP}}
"""
DOCUMENT = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: keepalive, namespace: {namespace}}}
data: {{keepalive.json: '{text}'}}
"""
GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: keepalive, namespace: app}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}]
  to: [{group: "", kind: ConfigMap}]
"""
PARAMETERS = 'infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: keepalive}}'


def gateway(*, infrastructure: str = "", annotation: str = "") -> str:
    key = "gateway.federation.dev/keepalive"
    note = f", annotations: {{{key}: {annotation}}}" if annotation else ""
    return GATEWAY.format(infrastructure=infrastructure, annotations=note)


def document(text: str, namespace: str = "infra") -> str:
    return DOCUMENT.format(text=text, namespace=namespace)


def result_of(*documents: str) -> Compiled:
    return compiled("---".join(documents))


def lives(result: Compiled) -> dict[int, ConnectionLife | None]:
    return {entry.port: entry.life for entry in result.snapshot.listeners if entry.port < 100}


def accepted(result: Compiled, kind: str, namespace: str, name: str) -> tuple[str, str]:
    group = "gateway.networking.k8s.io" if kind == "Gateway" else ""
    status = result.statuses[ObjectKey(group, kind, namespace, name)]
    condition = status.condition("Accepted")
    assert condition is not None
    return spelled(status.conditions)["Accepted"], condition.message


def test_the_documents_of_the_gateways_own_namespace() -> None:
    text = (
        '{"keepalive": {"maxConnectionIdle": "300s", "maxConnectionAge": "1800s", '
        '"maxConnectionAgeGrace": "30s", "time": "60s", "timeout": "20s"}, '
        '"perPort": [{"port": 81, "keepalive": {"time": "10s", '
        '"enforcement": {"minTime": "5s", "permitWithoutStream": true}}}]}'
    )
    result = result_of(gateway(infrastructure=PARAMETERS), document(text))
    assert lives(result) == {
        80: ConnectionLife(300_000, 1_800_000, 30_000, 60_000, 20_000),
        81: ConnectionLife(ping_after_ms=10_000, ping_limit=PingLimit(5_000, True, 2)),
    }
    assert accepted(result, "Gateway", "infra", "gw")[0] == "True/Accepted"
    assert accepted(result, "ConfigMap", "infra", "keepalive") == (
        "True/Accepted",
        "used by Gateway infra/gw",
    )


def test_one_of_another_namespace_needs_a_grant() -> None:
    text = '{"keepalive": {"time": "10s"}}'
    parts = gateway(annotation="app/keepalive"), document(text, "app")
    refused = result_of(*parts)
    assert set(lives(refused).values()) == {None}
    status, message = accepted(refused, "Gateway", "infra", "gw")
    assert status == "False/InvalidParameters"
    assert "no ReferenceGrant in namespace app" in message
    assert accepted(refused, "ConfigMap", "app", "keepalive")[0] == "False/NotReferenced"
    granted = result_of(*parts, GRANT)
    assert lives(granted)[80] == ConnectionLife(ping_after_ms=10_000)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((gateway(infrastructure=PARAMETERS),), "ConfigMap infra/keepalive does not exist"),
        (
            (gateway(infrastructure=PARAMETERS.replace("ConfigMap", "Secret")),),
            "Secret (core) is unknown, use ConfigMap",
        ),
        (
            (gateway(annotation="keepalive"), document('{"keepalive": {"tme": "1s"}}')),
            "keepalive.tme: Extra inputs are not permitted",
        ),
    ],
)
def test_a_wrong_reference_is_told_and_closes_nothing(parts: tuple[str, ...], message: str) -> None:
    result = result_of(*parts)
    status, words = accepted(result, "Gateway", "infra", "gw")
    assert status == "False/InvalidParameters"
    assert message in words
    assert lives(result) == {80: None, 81: None}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "Invalid JSON"),
        ('{"keepalive": {"time": "5"}}', "keepalive.time: not a duration; write it"),
        ('{"keepalive": {"time": "31d"}}', "keepalive.time: not a duration"),
        ('{"keepalive": {"time": "721h"}}', "must be between 100ms and 720h, got 721h"),
        ('{"keepalive": {"timeout": "1s"}}', "keepalive: timeout needs time"),
        ('{"keepalive": {"maxConnectionAgeGrace": "1s"}}', "needs maxConnectionAge"),
        ('{"keepalive": {"enforcement": {"strikes": 101}}}', "keepalive.enforcement.strikes"),
        ('{"perPort": [{"port": 0, "keepalive": {}}]}', "perPort[0].port"),
        (
            '{"perPort": [{"port": 1, "keepalive": {}}, {"port": 1, "keepalive": {}}]}',
            "perPort: port 1 stands twice",
        ),
    ],
)
def test_a_wrong_field_is_named(text: str, problem: str) -> None:
    found = parse_keepalive(text)
    assert isinstance(found, str)
    assert problem in found


def test_an_empty_document_bounds_nothing() -> None:
    assert parse_keepalive("{}") == KeepaliveDocument()
    result = result_of(gateway(infrastructure=PARAMETERS), document("{}"))
    assert lives(result) == {80: None, 81: None}
