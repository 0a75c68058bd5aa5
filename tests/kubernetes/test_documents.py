"""The documents' commands against the lab on API servers, as written: ``kubectl`` and ``grpcurl``.

Their manifests are applied unchanged; what a command prints is compared, and what it does to real
calls. What goes wrong is in ``test_document_errors``.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conformance import programs
from tests.kubernetes.looking import EAST, WEST, answers, becomes, splits_to
from tests.testkit.lab import Caller, KubernetesLab

pytestmark = pytest.mark.timeout(240)

DOCUMENTS = Path(__file__).parents[1] / "manifests"
USERS = "com.example.api.UserService"


def apply(lab: KubernetesLab, name: str, *, region: str = WEST, refused: int = 0) -> str:
    """``kubectl apply -f`` of a document, unchanged; all that it says."""
    done = lab.kubectl(region, "apply", "-f", str(DOCUMENTS / name), check=not refused)
    assert done.code == (1 if refused else 0), done
    return done.out + done.err


def delete_route(lab: KubernetesLab, *names: str) -> None:
    lab.kubectl(WEST, "delete", "grpcroute", *names, "-n", "app")


# --- the commands -------------------------------------------------------------------------------


def test_routes_show_their_columns_and_accepted(lab: KubernetesLab) -> None:
    apply(lab, "1-basic-routing.yaml")
    shown = lab.kubectl(WEST, "get", "grpcroute", "-n", "app").out.splitlines()
    assert shown[0].split() == ["NAME", "HOSTNAMES", "AGE"]
    assert shown[1].split()[:2] == ["user-service-route", '["grpc.example.com"]']
    becomes(
        lab,
        "grpcroute",
        "user-service-route",
        {"Accepted": "True, Accepted: attached to listener grpc", "ResolvedRefs": "True, Resolved"},
        at="grpc-gateway",
    )
    described = lab.kubectl(WEST, "describe", "grpcroute", "user-service-route", "-n", "app").out
    reasons = re.findall(r"Reason:\s+(\w+)", described)
    assert reasons[0] == "Accepted"
    generations = re.findall(r"Observed Generation:\s+(\d+)", described)
    assert set(generations) == {"1"}


def test_gateways_and_classes_show_that_they_are_served(lab: KubernetesLab) -> None:
    becomes(
        lab,
        "gateway",
        "grpc-gateway",
        {"Accepted": "True, Accepted", "Programmed": "True, Programmed: 2/2 gateways"},
        namespace="infra",
    )
    shown = lab.kubectl(WEST, "get", "gatewayclass", "istio").out.splitlines()[1].split()
    assert shown[:3] == ["istio", "federation.dev/gateway-controller", "True"]


def test_policies_show_their_columns(lab: KubernetesLab) -> None:
    apply(lab, "1-basic-routing.yaml")
    apply(lab, "5-retry-and-circuit-breaker.yaml")
    shown = lab.kubectl(WEST, "get", "backendtrafficpolicy", "-n", "app").out.splitlines()
    assert shown[0].split() == ["NAME", "TARGETKIND", "TARGETNAME", "AGE"]
    for line in shown[1:]:
        assert line.split()[1:3] == ["GRPCRoute", "user-service-route"]


def test_imports_and_their_clusters_show_all_of_them(lab: KubernetesLab) -> None:
    for region in (WEST, EAST):
        apply(lab, "6-multi-cluster.yaml", region=region)
    becomes(lab, "multiclusterservice", "user-service-global", {"BackendsReady": "True, "})

    def shown() -> str:
        kinds = "serviceimports.gateway.networking.k8s.io,multiclusterservices"
        return lab.kubectl(WEST, "get", kinds, "-n", "app").out

    lab.wait(
        lambda: shown().count(WEST) == 2 and shown().count(EAST) == 2, timeout_s=30, what=shown
    )
    heads = [line.split() for line in shown().splitlines() if line.startswith("NAME")]
    assert heads == [
        ["NAME", "TYPE", "CLUSTERS", "AGE"],
        ["NAME", "IMPORT", "BACKENDS", "ACCEPTED", "AGE"],
    ]


def test_weights_follow_the_documents_json_patch(lab: KubernetesLab, call: Caller) -> None:
    apply(lab, "2-weighted-split.yaml")
    splits_to(lab, call, "user-service-v1", "user-service-v2", 0.20)
    for stable, canary in ((60, 40), (0, 100), (100, 0)):
        patch = f"""[
          {{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":{stable}}},
          {{"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":{canary}}}]"""
        route = ("patch", "grpcroute", "user-service-weighted", "-n", "app")
        said = lab.kubectl(WEST, *route, "--type=json", f"-p={patch}").out
        assert said == "grpcroute.gateway.networking.k8s.io/user-service-weighted patched\n"
        splits_to(lab, call, "user-service-v1", "user-service-v2", canary / 100)


def test_grpcurl_calls_through_the_gateway(lab: KubernetesLab, call: Caller) -> None:
    if (found := programs.built()) is None:
        pytest.skip("programs in Go are not built: `make conformance` builds them once")
    apply(lab, "1-basic-routing.yaml")
    answers(lab, call, "user-service")
    ca = lab.first_status["ca"]
    target = (lab.gateway(WEST),)

    def grpcurl(*arguments: str) -> str:
        options = ("-cacert", ca, "-authority", "grpc.example.com", *arguments)
        done = subprocess.run(
            [str(found.grpcurl), *options], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    services = grpcurl(*target, "list").split()
    assert {USERS, "com.example.api.OrderService"} <= set(services)
    assert "rpc GetUser" in grpcurl(*target, "describe", USERS)
    got = json.loads(grpcurl("-d", '{"user_id": "42"}', *target, f"{USERS}/GetUser"))
    assert got == {"user_id": "42", "name": "Ada", "email": "ada@example.com"}
    verbose = grpcurl("-v", *target, "com.example.api.OrderService/ListOrders")
    assert f"x-served-by: {WEST}/app/order-service/" in verbose


# --- the manifests, unchanged -------------------------------------------------------------------

HTTPS_TERMINATES = "tls mode must be Terminate for protocol HTTPS"

PRINTED = {
    "1-basic-routing.yaml": ["grpcroute.gateway.networking.k8s.io/user-service-route created"],
    "2-weighted-split.yaml": ["grpcroute.gateway.networking.k8s.io/user-service-weighted created"],
    "3-canary.yaml": [
        "grpcroute.gateway.networking.k8s.io/user-service-canary created",
        'no matches for kind "Rollout" in version "argoproj.io/v1alpha1"',
    ],
    "4-header-and-method.yaml": [
        f"grpcroute.gateway.networking.k8s.io/user-service-{name} created"
        for name in ("header-route", "method-route", "header-modify")
    ],
    "5-retry-and-circuit-breaker.yaml": [
        f"backendtrafficpolicy.gateway.networking.k8s.io/user-service-{name} created"
        for name in ("retry", "timeout")
    ],
    "6-multi-cluster.yaml": [
        "serviceimport.gateway.networking.k8s.io/user-service-import created",
        "multiclusterservice.gateway.networking.k8s.io/user-service-global created",
        "grpcroute.gateway.networking.k8s.io/user-service-multi-cluster created",
        "backendtrafficpolicy.gateway.networking.k8s.io/user-service-failover created",
    ],
    "7-observability.yaml": [
        "observabilitypolicy.gateway.networking.k8s.io/grpc-observability created",
        'no matches for kind "PrometheusRule" in version "monitoring.coreos.com/v1"',
    ],
    "8-keepalive-health-coexistence.yaml": [
        "grpcroute.gateway.networking.k8s.io/user-service-health-route created",
        'The Gateway "multi-protocol-gateway" is invalid: spec.listeners: Invalid value: '
        + HTTPS_TERMINATES,
    ],
}
"""What ``kubectl apply`` prints for each document. Rollouts and rules of Prometheus are kinds of
others, which the lab does not bring. A listener of protocol HTTPS that passes TLS through is
refused by the Gateway API's own schema."""


@pytest.mark.parametrize("name", PRINTED)
def test_a_document_is_applied_unchanged(lab: KubernetesLab, name: str) -> None:
    refused = sum("created" not in line for line in PRINTED[name])
    said = apply(lab, name, refused=refused)
    for line in PRINTED[name]:
        assert line in said, said
    assert len(re.findall(r"no matches for kind|is invalid", said)) == refused


def test_basic_routing(lab: KubernetesLab, call: Caller) -> None:
    apply(lab, "1-basic-routing.yaml")
    answers(lab, call, "user-service")
    assert call(f"{USERS}/CreateUser") == "user-service"
    assert call("com.example.api.OrderService/GetOrder") == "order-service"
    assert call("com.example.api.Nothing/Get").startswith("UNIMPLEMENTED: no route for host")


def test_the_canary_is_marked(lab: KubernetesLab, call: Caller) -> None:
    apply(lab, "3-canary.yaml", refused=1)
    splits_to(lab, call, "user-service-v1", "user-service-v2", 0.05)
    _, headers = call.answered(f"{USERS}/GetUser", host="grpc.example.com")
    assert headers["x-backend-version"] == "canary-v2"


def test_headers_and_methods(lab: KubernetesLab, call: Caller) -> None:
    apply(lab, "4-header-and-method.yaml")
    answers(lab, call, "user-read-service")  # more of the method matches than of any header
    assert call(f"{USERS}/CreateUser") == "user-write-service"
    delete_route(lab, "user-service-method-route", "user-service-header-modify")
    answers(lab, call, "user-service-v1")
    assert call(headers={"x-env": "staging"}) == "user-service-staging"
    assert call(headers={"x-env": "canary"}) == "user-service-v2"


def test_retries_and_the_second_policy(lab: KubernetesLab, call: Caller) -> None:
    apply(lab, "1-basic-routing.yaml")
    apply(lab, "5-retry-and-circuit-breaker.yaml")
    becomes(
        lab,
        "backendtrafficpolicy",
        "user-service-retry",
        {"Accepted": "True, Accepted", "Programmed": "True, Programmed: 2/2 gateways"},
        at="user-service-route",
    )
    becomes(
        lab,
        "backendtrafficpolicy",
        "user-service-timeout",
        {
            "Accepted": "False, Conflicted: BackendTrafficPolicy app/user-service-retry is older "
            "and holds GRPCRoute app/user-service-route"
        },
        at="user-service-route",
    )
    bad = next(e for e in lab.cluster(WEST)["endpoints"] if e["service"] == "user-service")
    fails = {"x-demo-fail": "14", "x-demo-fail-endpoint": bad["address"]}
    assert [call(headers=fails) for _ in range(12)] == ["user-service"] * 12


def test_failover_of_the_imported_service(lab: KubernetesLab, call: Caller) -> None:
    for region in (WEST, EAST):
        apply(lab, "6-multi-cluster.yaml", region=region)
    becomes(
        lab,
        "backendtrafficpolicy",
        "user-service-failover",
        {"Accepted": "True, Accepted", "FailoverReady": "True, "},
        at="user-service-multi-cluster",
    )
    becomes(lab, "multiclusterservice", "user-service-global", {"BackendsReady": "True, "})
    answers(lab, call, "user-service")


def test_health_first_and_a_gateway_of_several_protocols(lab: KubernetesLab, call: Caller) -> None:
    apply(lab, "8-keepalive-health-coexistence.yaml", refused=1)
    answers(lab, call, "user-service-primary")
    assert {call() for _ in range(20)} == {"user-service-primary"}
    # What the Gateway API's schema wants of a listener that passes TLS through.
    (several,) = (
        text
        for text in (DOCUMENTS / "8-keepalive-health-coexistence.yaml").read_text().split("---\n")
        if "kind: Gateway" in text
    )
    head, internal, tail = several.partition("- name: grpc-internal")
    spelt = head + internal + tail.replace("protocol: HTTPS", "protocol: TLS")
    lab.kubectl(WEST, "apply", "-f", "-", stdin=spelt)
    for listener in ("http", "grpc-internal"):
        becomes(
            lab,
            "gateway",
            "multi-protocol-gateway",
            {"Accepted": "True, Accepted", "Programmed": "True, Programmed: 2/2 gateways"},
            at=listener,
            namespace="infra",
        )
