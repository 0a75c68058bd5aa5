"""Cells, ages and descriptions: pure text from objects and statuses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from federation.cli.columns import Row, age, columns_of
from federation.cli.output import Found, Layout, description, document, table
from federation.model.conditions import Condition, ConditionStatus
from federation.model.objects import (
    KINDS,
    ApiObject,
    Gateway,
    GRPCRoute,
    ObjectMeta,
    ParentReference,
    Secret,
    Service,
)
from federation.model.status import (
    GatewayStatusAddress,
    ListenerStatus,
    ObjectStatus,
    ParentStatus,
)
from federation.wire.manifests import decode_value

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def condition(kind: str, status: str, reason: str = "R", message: str = "m") -> Condition:
    return Condition(
        type=kind,
        status=ConditionStatus(status),
        reason=reason,
        message=message,
        observed_generation=1,
        last_transition_time="2026-01-01T23:59:00Z",
    )


def decoded(api_version: str, kind: str, **fields: object) -> ApiObject:
    raw = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, **fields}
    outcome = decode_value(raw, origin="t")
    assert isinstance(outcome, ApiObject)
    return outcome


GATEWAY = decoded(
    "gateway.networking.k8s.io/v1",
    "Gateway",
    spec={
        "gatewayClassName": "istio",
        "listeners": [{"name": "grpc", "port": 443, "protocol": "HTTPS"}],
    },
)
ROUTE = decoded(
    "gateway.networking.k8s.io/v1",
    "GRPCRoute",
    spec={"parentRefs": [{"name": "g", "namespace": "infra", "sectionName": "grpc"}]},
)


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (None, "<unknown>"),
        ("yesterday", "<invalid>"),
        ("2026-01-02T00:00:05Z", "0s"),
        ("2026-01-01T23:58:01Z", "119s"),
        ("2026-01-01T23:55:30Z", "4m30s"),
        ("2026-01-01T23:55:00Z", "5m"),
        ("2026-01-01T22:30:00Z", "90m"),
        ("2026-01-01T19:30:00Z", "4h30m"),
        ("2026-01-01T00:00:00Z", "24h"),
        ("2025-12-30T12:00:00Z", "2d12h"),
        ("2025-12-01T00:00:00Z", "32d"),
        ("2023-01-01T00:00:00Z", "3y"),
    ],
)
def test_ages_are_kubectls(timestamp: str | None, text: str) -> None:
    assert age(timestamp, NOW) == text


def test_every_kind_with_state_has_columns() -> None:
    without = [cls.KIND for cls in KINDS if not columns_of(cls, wide=True)]
    assert without == ["ReferenceGrant"]


def test_a_gateway() -> None:
    assert isinstance(GATEWAY, Gateway)
    status = ObjectStatus(
        conditions=(condition("Programmed", "True"),),
        addresses=(GatewayStatusAddress(value="10.0.0.1"),),
    )
    cells = [column.cell(Row(GATEWAY, status)) for column in columns_of(Gateway, wide=True)]
    assert cells == ["istio", "10.0.0.1", "True", "Unknown", "grpc:443"]


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        ((), "Unknown"),
        (("True",), "True"),
        (("True", "False"), "False"),
        (("True", "Unknown"), "Unknown"),
    ],
)
def test_a_route_is_as_good_as_its_worst_parent(states: tuple[str, ...], shown: str) -> None:
    status = ObjectStatus(
        parents=tuple(
            ParentStatus(
                parent_ref=ParentReference(name=f"g{number}"),
                controller_name="c",
                conditions=(condition("Accepted", state),),
            )
            for number, state in enumerate(states)
        )
    )
    cells = [column.cell(Row(ROUTE, status)) for column in columns_of(GRPCRoute, wide=False)]
    assert cells == ["<none>", shown]


def test_cluster_scoped_objects_have_no_namespace_column() -> None:
    namespace = decoded("v1", "Namespace")
    shown = table([Found("c", namespace, ObjectStatus())], Layout(namespaces=True), NOW)
    assert shown == "NAME   STATUS   AGE\na      Active   <unknown>"


def test_a_description_tells_conditions_with_reasons() -> None:
    status = ObjectStatus(
        conditions=(condition("Accepted", "True", "Accepted", "served here"),),
        listeners=(
            ListenerStatus(
                name="grpc",
                attached_routes=1,
                conditions=(condition("ResolvedRefs", "False", "InvalidCertificateRef", "no"),),
            ),
        ),
    )
    text = description(Found("west", GATEWAY, status), NOW)
    assert text.endswith(
        "Conditions:\n"
        "  TYPE       STATUS   REASON     AGE   MESSAGE\n"
        "  Accepted   True     Accepted   60s   served here\n"
        "Listener grpc (1 route attached):\n"
        "  TYPE           STATUS   REASON                  AGE   MESSAGE\n"
        "  ResolvedRefs   False    InvalidCertificateRef   60s   no"
    )


def test_a_description_of_a_route_names_its_parents() -> None:
    status = ObjectStatus(
        parents=(
            ParentStatus(
                parent_ref=ParentReference(name="g", namespace="infra", section_name="grpc"),
                controller_name="c",
                conditions=(condition("Accepted", "True"),),
            ),
        )
    )
    assert "\nParent infra/g/grpc:\n" in description(Found("west", ROUTE, status), NOW)


def test_a_description_of_a_secret_tells_sizes_alone() -> None:
    secret = Secret(metadata=ObjectMeta(name="s", namespace="n"), data={"tls.key": b"hush"})
    text = description(Found("west", secret, ObjectStatus()), NOW)
    assert "  tls.key:  4 bytes" in text
    assert "hush" not in text


def test_documents_carry_the_status_in_kubernetes_shape() -> None:
    service = Service(metadata=ObjectMeta(name="s", namespace="n"))
    status = ObjectStatus(observed_generation=3, clusters=("east", "west"))
    shown = document(Found("west", service, status))
    assert shown["status"] == {"clusters": [{"cluster": "east"}, {"cluster": "west"}]}
    assert "status" not in document(Found("west", service, ObjectStatus()))
