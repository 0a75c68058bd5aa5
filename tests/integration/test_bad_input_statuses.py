"""Valid manifests that cannot work, in a running cluster: what their statuses and callers are told.

All bad objects stand beside one good route of the same gateway, which serves throughout.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.testkit.bad_objects import Edge, running_edge
from tests.testkit.etcd import EtcdServer
from tests.testkit.federation import until


@pytest.fixture(scope="module")
def edge(etcd_server: EtcdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with running_edge(etcd_server, tmp_path_factory.mktemp("edge")) as running:
        yield running


def unmatched(edge: Edge, name: str) -> str:
    """What a caller is told for whom no route is in force."""
    address = edge.address()
    port = edge.ports["grpc"]
    return (
        f"UNIMPLEMENTED: no route for host `{address}`, path `/{name}.Echo/Unary` on listener "
        f"`infra/edge/{port}`: no rule of this host matches"
    )


def test_the_good_route_serves_beside_all_bad_objects(edge: Edge) -> None:
    edge.becomes(
        "grpcroute",
        "good",
        {
            "Accepted": "True, Accepted: attached to listener grpc",
            "ResolvedRefs": "True, ResolvedRefs: ",
        },
        at="edge",
    )
    edge.becomes(
        "gateway",
        "edge",
        {"Programmed": "True, Programmed: 1/1 gateways"},
        at="grpc",
        namespace="infra",
    )
    assert edge.call("good") == "echo-1"


def test_a_route_whose_gateway_is_missing(edge: Edge) -> None:
    edge.becomes(
        "grpcroute",
        "lost",
        {"Accepted": "False, NoMatchingParent: Gateway infra/gone does not exist"},
        at="gone",
    )
    assert edge.call("lost") == unmatched(edge, "lost")


def test_a_listener_that_takes_only_kinds_not_served(edge: Edge) -> None:
    edge.becomes(
        "grpcroute",
        "refused",
        {
            "Accepted": "False, NotAllowedByListeners: Gateway infra/edge: listener tcp-only "
            "takes no kind that is served; its allowedRoutes.kinds would have to list GRPCRoute"
        },
        at="tcp-only",
    )
    edge.becomes(
        "gateway",
        "edge",
        {
            "ResolvedRefs": "False, InvalidRouteKinds: spec.listeners[1].allowedRoutes.kinds: "
            "TCPRoute (gateway.networking.k8s.io) is not served; kinds served: GRPCRoute, HTTPRoute"
        },
        at="tcp-only",
        namespace="infra",
    )
    assert edge.call("refused") == unmatched(edge, "refused")


def test_a_missing_service(edge: Edge) -> None:
    edge.becomes(
        "grpcroute",
        "missing",
        {
            "Accepted": "True, Accepted: attached to listener grpc",
            "ResolvedRefs": "False, BackendNotFound: spec.rules[0].backendRefs[0]: Service "
            "app/nothing does not exist",
        },
        at="edge",
    )
    assert edge.call("missing") == (
        "UNAVAILABLE: GRPCRoute app/missing rule 0: spec.rules[0].backendRefs[0]: Service "
        "app/nothing does not exist"
    )


def test_a_missing_certificate(edge: Edge) -> None:
    edge.becomes(
        "gateway",
        "edge",
        {
            "ResolvedRefs": "False, InvalidCertificateRef: certificate not found: Secret "
            "infra/gone does not exist (spec.listeners[2].tls.certificateRefs[0])",
            "Programmed": "False, Invalid: the listener is not opened",
        },
        at="no-cert",
        namespace="infra",
    )
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", edge.ports["no_cert"])),
    ):
        pass


def test_two_policies_on_one_route(edge: Edge) -> None:
    edge.becomes(
        "backendtrafficpolicy",
        "older",
        {"Accepted": "True, Accepted: ", "Programmed": "True, Programmed: 1/1 gateways"},
        at="good",
    )
    edge.becomes(
        "backendtrafficpolicy",
        "younger",
        {
            "Accepted": "False, Conflicted: BackendTrafficPolicy app/older is older and "
            "holds GRPCRoute app/good; a route takes one policy, so merge the two or "
            "target another route"
        },
        at="good",
    )


def test_an_import_that_no_cluster_exports(edge: Edge) -> None:
    message = (
        "ServiceImport app/nothing-import: no cluster exports app/nothing-import or app/nothing; "
        "apply a ServiceExport where the Service is, or a MultiClusterService that lists that "
        "cluster"
    )
    edge.becomes(
        "serviceimport",
        "nothing-import",
        {
            "ResolvedRefs": f"False, BackendNotFound: {message}",
            "Ready": f"False, Pending: {message}",
        },
    )
    edge.becomes(
        "grpcroute",
        "nowhere",
        {"ResolvedRefs": f"False, BackendNotFound: spec.rules[0].backendRefs[0]: {message}"},
        at="edge",
    )
    assert edge.call("nowhere") == (
        f"UNAVAILABLE: GRPCRoute app/nowhere rule 0: spec.rules[0].backendRefs[0]: {message}"
    )


def test_an_unknown_cluster_in_cluster_backends(edge: Edge) -> None:
    edge.becomes(
        "multiclusterservice",
        "echo-global",
        {
            "Accepted": "True, Accepted: ",
            "BackendsReady": "False, UnknownCluster: spec.clusterBackends[1].cluster: no member "
            "cluster or region is named mars-1; members: west-a (us-west-1)",
        },
    )
    until(lambda: edge.call("spread") == "echo-1", lambda: edge.call("spread"))


def test_a_failover_to_a_region_that_no_cluster_has(edge: Edge) -> None:
    edge.becomes(
        "backendtrafficpolicy",
        "to-nowhere",
        {
            "Accepted": "True, Accepted: ",
            "FailoverReady": "False, NoAlternative: spec.failover.regionFailover[0].to: "
            "no cluster has the region or name venus-1; regions: us-west-1",
        },
        at="spread",
    )


def test_a_failover_to_the_same_clusters_by_another_name(edge: Edge) -> None:
    edge.becomes(
        "backendtrafficpolicy",
        "to-itself",
        {
            "Accepted": "True, Accepted: ",
            "FailoverReady": "False, NoAlternative: spec.failover.regionFailover[0]: from "
            "us-west-1 and to west-a both mean west-a, which cannot fail over to itself; name "
            "another region or cluster",
        },
        at="back",
    )
