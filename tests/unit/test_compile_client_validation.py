"""Validation of client certificates: where it stands, what it refers to, what is told."""

from __future__ import annotations

import pytest

from federation.derive.compile import Compiled
from federation.model.objects import ObjectKey
from federation.model.snapshot import CaSecret, TlsTermination
from tests.testkit.routing import certificate, compiled, key_pair, parse, spelled

KEY = ObjectKey("gateway.networking.k8s.io", "Gateway", "infra", "gw")
REF = '{group: "", kind: ConfigMap, name: clients}'


def ca(*, name: str = "clients", namespace: str = "infra", pem: str = "") -> str:
    text = (pem or key_pair()[0].decode()).replace("\n", "\n    ")
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"data:\n  ca.crt: |\n    {text}\n---\n"
    )


def validation(*refs: str, mode: str = "AllowValidOnly") -> str:
    return f"{{validation: {{mode: {mode}, caCertificateRefs: [{', '.join(refs)}]}}}}"


def result_of(spec: str, *more: str, own: str = "") -> Compiled:
    text = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: infra}}
spec:
  gatewayClassName: istio
  {spec}
  listeners:
  - {{name: a, port: 443, protocol: HTTPS, hostname: a.com,
     tls: {{certificateRefs: [{{name: web}}]{own}}}}}
  - {{name: b, port: 443, protocol: HTTPS, hostname: b.com,
     tls: {{certificateRefs: [{{name: web}}]}}}}
  - {{name: c, port: 8443, protocol: HTTPS, tls: {{certificateRefs: [{{name: web}}]}}}}
---
"""
    return compiled([*parse(text + "".join(more)), certificate("infra/web")])


def demands(result: Compiled) -> dict[int, set[tuple[str, bool]]]:
    return {
        listener.port: {
            (chain.tls.client_ca, chain.tls.client_optional)
            for chain in listener.chains
            if isinstance(chain.tls, TlsTermination)
        }
        for listener in result.snapshot.listeners
        if listener.port != 15444
    }


def listener(result: Compiled, name: str) -> dict[str, str]:
    listeners = {entry.name: entry for entry in result.statuses[KEY].listeners}
    return dict(spelled(listeners[name].conditions))


def test_the_default_holds_for_all_and_a_port_has_its_own() -> None:
    per_port = f"perPort: [{{port: 8443, tls: {validation(REF, mode='AllowInsecureFallback')}}}]"
    result = result_of(f"tls: {{frontend: {{default: {validation(REF)}, {per_port}}}}}", ca())
    assert demands(result) == {
        443: {("client-ca/infra/gw/443", False)},
        8443: {("client-ca/infra/gw/8443", True)},
    }
    secrets = [entry for entry in result.snapshot.secrets if isinstance(entry, CaSecret)]
    assert [entry.name for entry in secrets] == [
        "client-ca/infra/gw/443",
        "client-ca/infra/gw/8443",
    ]
    conditions = spelled(result.statuses[KEY].conditions)
    assert conditions["InsecureFrontendValidationMode"] == "True/ConfigurationChanged"


def test_one_port_has_one_validation() -> None:
    own = f", frontendValidation: {{caCertificateRefs: [{REF}]}}"
    result = result_of("", ca(), own=own)
    assert demands(result) == {8443: {("", False)}}
    assert listener(result, "a")["Accepted"] == "False/UnsupportedValue"
    assert listener(result, "b")["Accepted"] == "False/UnsupportedValue"


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ('{group: "", kind: ConfigMap, name: gone}', "InvalidCACertificateRef"),
        ('{group: "", kind: ConfigMap, name: noise}', "InvalidCACertificateRef"),
        ('{group: "", kind: Pod, name: clients}', "InvalidCACertificateKind"),
        ('{group: "", kind: ConfigMap, name: clients, namespace: app}', "RefNotPermitted"),
    ],
)
def test_without_a_valid_authority_no_listener_is_opened(ref: str, reason: str) -> None:
    more = ca(namespace="app"), ca(name="noise", pem="noise")
    result = result_of(f"tls: {{frontend: {{default: {validation(ref)}}}}}", *more)
    assert demands(result) == {}
    assert listener(result, "a")["Accepted"] == "False/NoValidCACertificate"
    assert listener(result, "a")["ResolvedRefs"] == f"False/{reason}"


def test_a_wrong_reference_beside_a_right_one_is_told() -> None:
    wrong = '{group: "", kind: ConfigMap, name: gone}'
    result = result_of(f"tls: {{frontend: {{default: {validation(wrong, REF)}}}}}", ca())
    assert set(demands(result)) == {443, 8443}
    assert listener(result, "a")["Accepted"] == "True/Accepted"
    assert listener(result, "a")["ResolvedRefs"] == "False/InvalidCACertificateRef"
