"""What goes wrong, against the lab on API servers: how it comes about, what kubectl shows, what a
caller is told.

``ERRORS`` is the table. Each is brought about by ``kubectl apply``; nothing else stops serving.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kubernetes.looking import EAST, WEST, becomes
from tests.testkit.lab import Caller, KubernetesLab

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Wrong:
    """One error: the manifest that brings it about, and what there is to see.

    ``refused`` is kubectl's own message, of what the API server does not take. Else ``shows`` are
    the conditions of ``kind`` and ``name`` (at a parent, listener or ancestor), and ``caller`` is
    what a call to ``HOST`` is told.
    """

    manifest: str
    refused: str = ""
    kind: str = "grpcroute"
    name: str = "wrong"
    at: str = ""
    namespace: str = "app"
    shows: Mapping[str, str] = field(default_factory=dict)
    caller: str = ""


HOST = "wrong.example.com"
NO_ROUTE = f"UNIMPLEMENTED: no route for host `{HOST}`"


def route(
    *backends: str, parent: str = "{name: grpc-gateway, namespace: infra}", match: str = ""
) -> str:
    refs = ", ".join(backends or ("{name: user-service, port: 9090}",))
    matches = f"matches: [{match}], " if match else ""
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n"
        "metadata: {name: wrong, namespace: app}\n"
        f"spec: {{parentRefs: [{parent}], hostnames: [{HOST}], "
        f"rules: [{{{matches}backendRefs: [{refs}]}}]}}\n"
    )


def gateway(*listeners: str) -> str:
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n"
        "metadata: {name: wrong, namespace: infra}\n"
        f"spec: {{gatewayClassName: istio, listeners: [{', '.join(listeners)}]}}\n"
    )


def own(kind: str, version: str, spec: str) -> str:
    return (
        f"apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\n"
        f"metadata: {{name: wrong, namespace: app}}\nspec: {spec}\n"
    )


IMPORT = own(
    "ServiceImport", "v1beta1", "{type: ClusterSetIP, ports: [{port: 9090}], resolution: DNS}"
)
IMPORTED = "{group: gateway.networking.k8s.io, kind: ServiceImport, name: wrong, port: 9090}"
TARGET = "targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: wrong}"
NOBODY = "ServiceImport app/wrong: no cluster exports app/wrong; apply a ServiceExport where"

ERRORS = {
    # The API server does not take these.
    "a listener of HTTPS that passes TLS through": Wrong(
        gateway("{name: tls, port: 8443, protocol: HTTPS, tls: {mode: Passthrough}}"),
        refused="spec.listeners: Invalid value: tls mode must be Terminate for protocol HTTPS",
    ),
    "a listener of HTTP with tls": Wrong(
        gateway("{name: plain, port: 8080, protocol: HTTP, tls: {mode: Passthrough}}"),
        refused="tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
    ),
    "a match of neither service nor method": Wrong(
        route(match="{method: {}}"),
        refused="One or both of 'service' or 'method' must be specified",
    ),
    "weights of clusters that are all zero": Wrong(
        own(
            "MultiClusterService",
            "v1beta1",
            "{serviceImport: {name: wrong}, clusterBackends: [{cluster: us-west-1, weight: 0}]}",
        ),
        refused="weight sum is zero",
    ),
    "a field that there is not": Wrong(
        own("BackendTrafficPolicy", "v1alpha3", f"{{{TARGET}, retries: {{attempts: 3}}}}"),
        refused='strict decoding error: unknown field "spec.retries"',
    ),
    "a duration that is none": Wrong(
        own(
            "BackendTrafficPolicy",
            "v1alpha3",
            f"{{{TARGET}, retry: {{attempts: 1, backoff: {{defaultDuration: soon}}}}}}",
        ),
        refused='spec.retry.backoff.defaultDuration: Invalid value: "soon": not a duration',
    ),
    "a resolution that is not DNS": Wrong(
        own("ServiceImport", "v1beta1", "{type: ClusterSetIP, ports: [{port: 1}], resolution: A}"),
        refused="must be DNS (clients find the import in svc.clusterset.local)",
    ),
    # These are taken, and their status says what is wrong.
    "weights of a route that are all zero": Wrong(
        route(
            "{name: user-service-v1, port: 9090, weight: 0}",
            "{name: user-service-v2, port: 9090, weight: 0}",
        ),
        at="grpc-gateway",
        shows={
            "Accepted": "False, UnsupportedValue: spec.rules[0].backendRefs: weight sum is zero"
        },
        caller=NO_ROUTE,
    ),
    "a Gateway that does not exist": Wrong(
        route(parent="{name: gone, namespace: infra}"),
        at="gone",
        shows={"Accepted": "False, NoMatchingParent: Gateway infra/gone does not exist"},
        caller=NO_ROUTE,
    ),
    "a listener that does not exist": Wrong(
        route(parent="{name: grpc-gateway, namespace: infra, sectionName: http}"),
        at="grpc-gateway",
        shows={
            "Accepted": "False, NoMatchingParent: Gateway infra/grpc-gateway has no listener "
            "http; listeners: grpc (port 443)"
        },
        caller=NO_ROUTE,
    ),
    "a kind that the listener does not take": Wrong(
        route().replace("GRPCRoute", "HTTPRoute"),
        kind="httproute",
        at="grpc-gateway",
        shows={
            "Accepted": "False, NotAllowedByListeners: Gateway infra/grpc-gateway: listener grpc "
            "takes only GRPCRoute; its allowedRoutes.kinds would have to list HTTPRoute"
        },
        caller=NO_ROUTE,
    ),
    "a listener for routes of its own namespace": Wrong(
        gateway("{name: same, port: 8080, protocol: HTTP}")
        + "---\n"
        + route(parent="{name: wrong, namespace: infra}"),
        at="wrong",
        shows={
            "Accepted": "False, NotAllowedByListeners: Gateway infra/wrong: listener same takes no "
            "routes of namespace app (from: Same)"
        },
        caller=NO_ROUTE,
    ),
    "hostnames that the listener does not have": Wrong(
        gateway(
            "{name: other, port: 8080, protocol: HTTP, hostname: other.test, "
            "allowedRoutes: {namespaces: {from: All}}}"
        )
        + "---\n"
        + route(parent="{name: wrong, namespace: infra}"),
        at="wrong",
        shows={
            "Accepted": f"False, NoMatchingListenerHostname: Gateway infra/wrong: hostnames {HOST} "
            "have nothing in common with the listeners' other.test"
        },
        caller=NO_ROUTE,
    ),
    "a Service that does not exist": Wrong(
        route("{name: nothing, port: 9090}"),
        at="grpc-gateway",
        shows={
            "Accepted": "True, Accepted",
            "ResolvedRefs": "False, BackendNotFound: spec.rules[0].backendRefs[0]: Service "
            "app/nothing does not exist",
        },
        caller="UNAVAILABLE: GRPCRoute app/wrong rule 0: spec.rules[0].backendRefs[0]: Service "
        "app/nothing does not exist",
    ),
    "a port that the Service does not have": Wrong(
        route("{name: user-service, port: 9091}"),
        at="grpc-gateway",
        shows={
            "ResolvedRefs": "False, BackendNotFound: spec.rules[0].backendRefs[0].port: Service "
            "app/user-service has no TCP port 9091; ports: 9090/TCP"
        },
        caller="UNAVAILABLE: GRPCRoute app/wrong rule 0: spec.rules[0].backendRefs[0].port",
    ),
    "another namespace without a ReferenceGrant": Wrong(
        route("{name: user-service, namespace: infra, port: 9090}"),
        at="grpc-gateway",
        shows={
            "ResolvedRefs": "False, RefNotPermitted: spec.rules[0].backendRefs[0]: no "
            "ReferenceGrant in namespace infra lets GRPCRoutes of namespace app refer to Service "
            "infra/user-service"
        },
        caller="UNAVAILABLE: GRPCRoute app/wrong rule 0: spec.rules[0].backendRefs[0]: no Ref",
    ),
    "a certificate that does not exist": Wrong(
        gateway("{name: tls, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: gone}]}}"),
        kind="gateway",
        namespace="infra",
        at="tls",
        shows={
            "ResolvedRefs": "False, InvalidCertificateRef: certificate not found: Secret "
            "infra/gone does not exist (spec.listeners[0].tls.certificateRefs[0])",
            "Programmed": "False, Invalid: the listener is not opened",
        },
    ),
    "a port that another Gateway holds": Wrong(
        gateway("{name: twice, port: 443, protocol: HTTP}"),
        kind="gateway",
        namespace="infra",
        at="twice",
        shows={
            "Accepted": "False, PortUnavailable: spec.listeners[0].port: 443 is held by Gateway "
            "infra/grpc-gateway, which is older"
        },
    ),
    "a policy whose route does not exist": Wrong(
        own("BackendTrafficPolicy", "v1alpha3", f"{{{TARGET}, retry: {{attempts: 1}}}}"),
        kind="backendtrafficpolicy",
        at="wrong",
        shows={
            "Accepted": "False, TargetNotFound: spec.targetRef: GRPCRoute app/wrong does not exist"
        },
    ),
    "an import that no cluster exports": Wrong(
        IMPORT + "---\n" + route(IMPORTED),
        kind="serviceimports.gateway.networking.k8s.io",
        shows={
            "ResolvedRefs": f"False, BackendNotFound: {NOBODY}",
            "Ready": f"False, Pending: {NOBODY}",
        },
        caller=f"UNAVAILABLE: GRPCRoute app/wrong rule 0: spec.rules[0].backendRefs[0]: {NOBODY}",
    ),
    "a cluster that is no member": Wrong(
        IMPORT
        + "---\n"
        + own(
            "MultiClusterService",
            "v1beta1",
            "{serviceImport: {name: wrong}, clusterBackends: [{cluster: atlantis, weight: 1}]}",
        ),
        kind="multiclusterservice",
        shows={
            "BackendsReady": "False, UnknownCluster: spec.clusterBackends[0].cluster: no member "
            "cluster or region is named atlantis; members: us-east-1 (us-east-1), us-west-1"
        },
    ),
    "a failover without another region": Wrong(
        route()
        + "---\n"
        + own(
            "BackendTrafficPolicy",
            "v1alpha3",
            f"{{{TARGET}, failover: {{strategy: RegionFailover, "
            "regionFailover: [{from: us-west-1, to: us-east-1}]}}",
        ),
        kind="backendtrafficpolicy",
        at="wrong",
        shows={
            "FailoverReady": "False, NoAlternative: GRPCRoute app/wrong has no ServiceImport that "
            "is exported; a Service stays here"
        },
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_shown(lab: KubernetesLab, call: Caller, error: str) -> None:
    wrong = ERRORS[error]
    done = lab.kubectl(WEST, "apply", "-f", "-", stdin=wrong.manifest, check=False)
    if wrong.refused:
        assert done.code == 1
        assert wrong.refused in done.err
        return
    assert done.code == 0, done.err
    becomes(lab, wrong.kind, wrong.name, wrong.shows, at=wrong.at, namespace=wrong.namespace)
    if wrong.caller:
        told = call(host=HOST)
        assert told.startswith(wrong.caller), told


def test_weights_patched_to_zero_change_nothing(lab: KubernetesLab, call: Caller) -> None:
    """The last good weights stay in force, and the status says so."""
    lab.kubectl(WEST, "apply", "-f", "-", stdin=route("{name: user-service-v1, port: 9090}"))
    lab.wait(
        lambda: call(host=HOST) == "user-service-v1", timeout_s=60, what=lambda: call(host=HOST)
    )
    patch = '[{"op": "add", "path": "/spec/rules/0/backendRefs/0/weight", "value": 0}]'
    lab.kubectl(WEST, "patch", "grpcroute", "wrong", "-n", "app", "--type=json", "-p", patch)
    stays = "spec.rules[0].backendRefs: weight sum is zero; what was good before stays in force"
    becomes(
        lab,
        "grpcroute",
        "wrong",
        {
            "Accepted": "True, Accepted",
            "PartiallyInvalid": f"True, UnsupportedValue: Fall Back: {stays}",
        },
        at="grpc-gateway",
    )
    assert {call(host=HOST) for _ in range(20)} == {"user-service-v1"}
    lab.kubectl(WEST, "apply", "-f", "-", stdin=route("{name: user-service-v2, port: 9090}"))
    lab.wait(
        lambda: call(host=HOST) == "user-service-v2", timeout_s=60, what=lambda: call(host=HOST)
    )
    assert "PartiallyInvalid" not in lab.conditions(WEST, "grpcroute", "wrong", "grpc-gateway")


def test_an_error_is_an_event_too(lab: KubernetesLab) -> None:
    # Events of earlier routes of the same name are still there: a Service that only this one names.
    lab.kubectl(WEST, "apply", "-f", "-", stdin=route("{name: never-seen, port: 9090}"))

    def events() -> str:
        return lab.kubectl(WEST, "events", "--for", "grpcroute/wrong", "-n", "app").out

    lab.wait(lambda: "never-seen" in events(), timeout_s=60, what=events)
    (line,) = (line for line in events().splitlines() if "never-seen" in line)
    assert "Warning" in line
    assert "BackendNotFound" in line
    assert "never-seen" in lab.kubectl(WEST, "describe", "grpcroute", "wrong", "-n", "app").out


def test_a_cluster_name_that_another_holds(lab: KubernetesLab, tmp_path: Path) -> None:
    """An agent of us-east-1's API server that calls itself us-west-1."""
    east = lab.directory / "kubernetes" / EAST / "federation-agent.kubeconfig"
    options = ("--cluster", WEST, "--region", WEST, "--state-dir", str(tmp_path))
    source = ("--source", "kubernetes", "--kubeconfig", str(east))
    etcd = lab.first_status["etcd"]
    refused = lab.fedctl("--etcd", etcd, "agent", *options, *source, check=False)
    assert refused.code == 1, refused
    assert WEST in refused.err
    assert "another" in refused.err, refused.err
