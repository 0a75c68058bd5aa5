"""Listeners: conflicts, ports, protocols and certificates."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from federation.derive.compile import Compiled
from federation.model.conditions import Condition
from federation.model.objects import ApiObject, ObjectKey, Secret
from tests.testkit.routing import certificate, compiled, key_pair, parse, spelled

GROUP = "gateway.networking.k8s.io"


def gateway(*listeners: str, name: str = "gw") -> tuple[ApiObject, ...]:
    lines = "\n".join(f"  - {{{entry}}}" for entry in listeners)
    return parse(
        f"apiVersion: {GROUP}/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: infra}}\n"
        f"spec:\n  gatewayClassName: istio\n  listeners:\n{lines}\n"
    )


def listeners_of(result: Compiled, name: str = "gw") -> Mapping[str, Mapping[str, str]]:
    status = result.statuses[ObjectKey(GROUP, "Gateway", "infra", name)]
    return {entry.name: spelled(entry.conditions) for entry in status.listeners}


def condition_of(result: Compiled, kind: str, name: str = "gw") -> Condition:
    (listener, *_) = result.statuses[ObjectKey(GROUP, "Gateway", "infra", name)].listeners
    return next(entry for entry in listener.conditions if entry.type == kind)


def tls(secret: str) -> str:
    return f"name: grpc, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{{secret}}}]}}"


def test_indistinct_listeners_are_all_refused() -> None:
    result = compiled(
        gateway(
            "name: a, port: 80, protocol: HTTP",
            "name: b, port: 80, protocol: HTTP",
            "name: c, port: 80, protocol: HTTP, hostname: c.com",
            "name: d, port: 81, protocol: HTTP",
        )
    )
    found = listeners_of(result)
    assert found["a"]["Conflicted"] == found["b"]["Conflicted"] == "True/HostnameConflict"
    assert found["a"]["Programmed"] == "False/Invalid"
    assert found["c"]["Conflicted"] == found["d"]["Conflicted"] == "False/NoConflicts"
    assert [entry.name for entry in result.snapshot.listeners if entry.port < 100] == [
        "infra/gw/80",
        "infra/gw/81",
    ]


def test_two_protocols_on_one_port_conflict() -> None:
    result = compiled(
        [
            *gateway(
                "name: a, port: 80, protocol: HTTP",
                "name: b, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}",
            ),
            certificate("infra/cert"),
        ]
    )
    assert {entry["Conflicted"] for entry in listeners_of(result).values()} == {
        "True/ProtocolConflict"
    }


def test_a_port_belongs_to_the_oldest_gateway() -> None:
    first = gateway("name: a, port: 80, protocol: HTTP", name="first")
    second = gateway(
        "name: a, port: 80, protocol: HTTP, hostname: b.com",
        "name: b, port: 81, protocol: HTTP",
        name="second",
    )
    result = compiled([*first, *second])
    assert listeners_of(result, "first")["a"]["Accepted"] == "True/Accepted"
    accepted = condition_of(result, "Accepted", "second")
    assert (accepted.reason, accepted.message) == (
        "PortUnavailable",
        "spec.listeners[0].port: 80 is held by Gateway infra/first, which is older",
    )
    status = result.statuses[ObjectKey(GROUP, "Gateway", "infra", "second")]
    assert spelled(status.conditions)["Accepted"] == "True/ListenersNotValid"


def test_the_east_west_port_is_taken() -> None:
    result = compiled(gateway("name: a, port: 15444, protocol: HTTP"))
    assert listeners_of(result)["a"]["Accepted"] == "False/PortUnavailable"
    status = result.statuses[ObjectKey(GROUP, "Gateway", "infra", "gw")]
    assert spelled(status.conditions) == {
        "Accepted": "False/ListenersNotValid",
        "Programmed": "False/Invalid",
        "ResolvedRefs": "True/ResolvedRefs",
    }


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "TLS", "example.com/bar"])
def test_other_protocols_are_refused(protocol: str) -> None:
    result = compiled(
        gateway(f"name: a, port: 80, protocol: {protocol}", "name: b, port: 81, protocol: HTTP")
    )
    assert listeners_of(result)["a"]["Accepted"] == "False/UnsupportedProtocol"
    assert listeners_of(result)["b"]["Accepted"] == "True/Accepted"
    refused, taken = result.statuses[ObjectKey(GROUP, "Gateway", "infra", "gw")].listeners
    assert refused.supported_kinds == ()
    assert taken.supported_kinds


def test_tls_on_http_is_without_effect_and_says_so() -> None:
    result = compiled(gateway("name: a, port: 80, protocol: HTTP, tls: {mode: Passthrough}"))
    accepted = condition_of(result, "Accepted")
    assert accepted.status == "True"
    assert accepted.message == (
        "spec.listeners[0].tls is without effect: protocol HTTP is served as h2c"
    )


def test_a_missing_certificate_is_named() -> None:
    result = compiled(gateway(tls("name: grpc-cert")))
    resolved = condition_of(result, "ResolvedRefs")
    assert (resolved.status, resolved.reason) == ("False", "InvalidCertificateRef")
    assert resolved.message == (
        "certificate not found: Secret infra/grpc-cert does not exist "
        "(spec.listeners[0].tls.certificateRefs[0])"
    )


def test_https_without_certificates() -> None:
    result = compiled(gateway("name: a, port: 443, protocol: HTTPS"))
    assert "certificate not found" in condition_of(result, "ResolvedRefs").message


def secret(chain: bytes, key: bytes) -> Secret:
    return Secret.model_validate(
        {
            "metadata": {"name": "cert", "namespace": "infra"},
            "stringData": {"tls.crt": chain.decode(), "tls.key": key.decode()},
        }
    )


@pytest.mark.parametrize(
    ("chain", "key", "message"),
    [
        (b"", b"", "has no tls.crt and tls.key"),
        (b"nonsense", key_pair()[1], "has a tls.crt that is no certificate in PEM"),
        (key_pair()[0], b"nonsense", "has a tls.key that is no unencrypted private key in PEM"),
    ],
)
def test_an_unusable_certificate_never_reaches_a_gateway(
    chain: bytes, key: bytes, message: str
) -> None:
    result = compiled([*gateway(tls("name: cert")), secret(chain, key)])
    resolved = condition_of(result, "ResolvedRefs")
    assert resolved.reason == "InvalidCertificateRef"
    assert resolved.message.endswith(f"Secret infra/cert {message}")
    assert result.snapshot.secrets == ()


GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: certs}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}]
  to: [{group: "", kind: Secret, name: NAME}]
"""


@pytest.mark.parametrize("exists", [True, False])
def test_another_namespaces_secret_needs_a_grant(exists: bool) -> None:
    """The answer does not reveal whether the secret exists."""
    found = [certificate("certs/cert")] if exists else []
    result = compiled([*gateway(tls("name: cert, namespace: certs")), *found])
    resolved = condition_of(result, "ResolvedRefs")
    assert (resolved.reason, resolved.message) == (
        "RefNotPermitted",
        (
            "spec.listeners[0].tls.certificateRefs[0]: no ReferenceGrant in namespace certs lets "
            "this Gateway use Secret certs/cert"
        ),
    )


@pytest.mark.parametrize(("name", "usable"), [("cert", True), ("other", False)])
def test_a_grant_permits_what_it_names(name: str, usable: bool) -> None:
    result = compiled(
        [
            *gateway(tls("name: cert, namespace: certs")),
            certificate("certs/cert"),
            *parse(GRANT.replace("NAME", name)),
        ]
    )
    assert bool(result.snapshot.secrets) is usable


def test_nobody_replaces_the_gateways_identity() -> None:
    listener = tls("name: identity, namespace: federation")
    grant = GRANT.replace("namespace: certs", "namespace: federation").replace(", name: NAME", "")
    result = compiled([*gateway(listener), certificate("federation/identity"), *parse(grant)])
    assert condition_of(result, "ResolvedRefs").message == (
        "spec.listeners[0].tls.certificateRefs[0]: Secret federation/identity bears the name of "
        "the gateways' own identity"
    )
    assert result.snapshot.secrets == ()


def test_one_good_certificate_opens_the_listener() -> None:
    listener = (
        "name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: gone}, {name: cert}]}"
    )
    result = compiled([*gateway(listener), certificate("infra/cert")])
    assert listeners_of(result)["a"]["ResolvedRefs"] == "False/InvalidCertificateRef"
    assert [entry.name for entry in result.snapshot.secrets] == ["infra/cert"]
    assert "PRIVATE" not in repr(result)


def test_overlapping_hostnames_on_tls_are_told() -> None:
    secured = "port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}"
    result = compiled(
        [
            *gateway(
                f"name: wild, hostname: '*.a.com', {secured}",
                f"name: one, hostname: x.a.com, {secured}",
                f"name: other, hostname: b.com, {secured}",
            ),
            certificate("infra/cert"),
        ]
    )
    found = listeners_of(result)
    assert found["wild"]["OverlappingTLSConfig"] == "True/OverlappingHostnames"
    assert found["one"]["OverlappingTLSConfig"] == "True/OverlappingHostnames"
    assert "OverlappingTLSConfig" not in found["other"]
    (listener,) = [entry for entry in result.snapshot.listeners if entry.port == 443]
    assert [(chain.name, chain.hostnames) for chain in listener.chains] == [
        ("one", ("x.a.com",)),
        ("other", ("b.com",)),
        ("wild", ("*.a.com",)),
    ]


def test_a_class_of_another_controller_is_not_ours_whatever_its_name() -> None:
    theirs = f"apiVersion: {GROUP}/v1\nkind: GatewayClass\nmetadata: {{name: istio}}\n"
    plain = gateway("name: a, port: 80, protocol: HTTP")
    foreign = parse(f"{theirs}spec: {{controllerName: istio.io/gateway-controller}}\n")
    ours = parse(f"{theirs}spec: {{controllerName: federation.dev/gateway-controller}}\n")
    key = ObjectKey(GROUP, "Gateway", "infra", "gw")
    assert key in compiled(plain).statuses
    assert key in compiled([*plain, *ours]).statuses
    result = compiled([*plain, *foreign])
    assert not result.statuses
    assert not [entry for entry in result.snapshot.listeners if entry.gateway]
