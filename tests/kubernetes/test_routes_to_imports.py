"""GRPCRoute to ServiceImport on two clusters: what no upstream suite asks (GEP-1748).

Routes, imports and grants are applied by kubectl in the west; calls enter at the west's gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.testkit import namespace
from tests.testkit.federation import until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.members import POD_PORT, Members, Place, place, running_members

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(120),
]

GROUP = "multicluster.x-k8s.io"
WEST, EAST = "users@us-west-1", "users@us-east-1"


@pytest.fixture(scope="module")
def members(
    kubernetes_pair: tuple[KubernetesServer, KubernetesServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Members]:
    with running_members(kubernetes_pair, tmp_path_factory.mktemp("members")) as found:
        yield found


@pytest.fixture
def here(members: Members) -> Iterator[Place]:
    with place(members) as found:
        yield found


def imported(name: str = "users", **fields: Any) -> dict[str, Any]:
    """A backendRef to an import."""
    return {"group": GROUP, "kind": "ServiceImport", "name": name, "port": POD_PORT, **fields}


def local(name: str = "users", **fields: Any) -> dict[str, Any]:
    """A backendRef to a Service."""
    return {"name": name, "port": POD_PORT, **fields}


def weigh(here: Place, west: int, east: int) -> None:
    """Divide the import's calls between the clusters by weights."""
    spec = {
        "serviceImport": {"name": "users"},
        "clusterBackends": [
            {"cluster": "us-west-1", "weight": west},
            {"cluster": "us-east-1", "weight": east},
        ],
    }
    weights = here.object(
        "gateway.networking.k8s.io/v1beta1", "MultiClusterService", "users", spec=spec
    )
    here.members.west.server.apply(weights)


def test_an_import_is_served_by_the_other_cluster(here: Place, members: Members) -> None:
    here.service(members.east)
    here.export(members.east)
    members.west.server.apply(here.route(imported()))
    here.becomes(members.west, EAST)
    until(
        lambda: here.said(members.west, "ResolvedRefs").startswith("True"),
        lambda: here.said(members.west, "ResolvedRefs"),
    )


def test_an_exact_method_is_the_only_one(here: Place, members: Members) -> None:
    here.service(members.east)
    here.export(members.east)
    match = {"method": {"type": "Exact", "service": "test.Echo", "method": "Unary"}}
    members.west.server.apply(here.route(imported(), matches=(match,)))
    here.becomes(members.west, EAST)
    assert here.call(members.west, "Hang") == "UNIMPLEMENTED"


def test_weights_divide_between_clusters(here: Place, members: Members) -> None:
    for member in members.both:
        here.service(member)
    here.export(*members.both)
    weigh(here, 75, 25)
    members.west.server.apply(here.route(imported()))
    here.becomes(members.west, WEST, EAST)
    until(
        lambda: 240 <= here.answers(members.west, 400)[WEST] <= 350,
        lambda: here.answers(members.west, 400),
    )
    weigh(here, 0, 100)
    here.becomes(members.west, EAST)


def test_weights_of_a_rule_divide_between_imports(here: Place, members: Members) -> None:
    for name in ("stable", "canary"):
        here.service(members.east, name)
        here.export(members.east, name=name)
    rule = imported("stable", weight=9), imported("canary", weight=1)
    members.west.server.apply(here.route(*rule))
    here.becomes(members.west, "stable@us-east-1", "canary@us-east-1")
    shares = here.answers(members.west, 400)
    assert 10 <= shares["canary@us-east-1"] <= 80, shares


def test_a_service_means_this_cluster_and_an_import_all(here: Place, members: Members) -> None:
    for member in members.both:
        here.service(member)
    here.export(members.east)
    members.west.server.apply(here.route(local(weight=1), imported(weight=1)))
    here.becomes(members.west, WEST, EAST)
    shares = here.answers(members.west, 400)
    assert 120 <= shares[EAST] <= 280, shares
    members.west.server.apply(here.route(local()))
    here.becomes(members.west, WEST)


def test_a_grant_opens_an_import_and_its_end_shuts_it(here: Place, members: Members) -> None:
    here.service(members.east)
    here.export(members.east)
    with place(members) as other:
        route = other.route(imported(namespace=here.namespace))
        members.west.server.apply(route)
        until(
            lambda: other.said(members.west, "ResolvedRefs").startswith("False, RefNotPermitted"),
            lambda: other.said(members.west, "ResolvedRefs"),
        )
        other.becomes(members.west, "UNAVAILABLE")
        grant = here.object(
            "gateway.networking.k8s.io/v1beta1",
            "ReferenceGrant",
            "users",
            spec={
                "from": [
                    {
                        "group": "gateway.networking.k8s.io",
                        "kind": "GRPCRoute",
                        "namespace": other.namespace,
                    }
                ],
                "to": [{"group": GROUP, "kind": "ServiceImport", "name": "users"}],
            },
        )
        members.west.server.apply(grant)
        other.becomes(members.west, EAST)
        members.west.server.kubectl("delete", "referencegrant", "users", "-n", here.namespace)
        other.becomes(members.west, "UNAVAILABLE")
        until(
            lambda: other.said(members.west, "ResolvedRefs").startswith("False, RefNotPermitted"),
            lambda: other.said(members.west, "ResolvedRefs"),
        )
        # Whether there is such an import is not told.
        members.west.server.apply(other.route(imported("nobody", namespace=here.namespace)))
        until(
            lambda: "nobody" in other.said(members.west, "ResolvedRefs"),
            lambda: other.said(members.west, "ResolvedRefs"),
        )
        assert other.said(members.west, "ResolvedRefs").startswith("False, RefNotPermitted")


def test_an_import_that_vanishes_fails_its_calls_until_it_is_back(
    here: Place, members: Members
) -> None:
    here.service(members.east)
    here.export(members.east)
    members.west.server.apply(here.route(imported()))
    here.becomes(members.west, EAST)
    members.east.server.kubectl(
        "delete", "serviceexports.multicluster.x-k8s.io", "users", "-n", here.namespace
    )
    here.becomes(members.west, "UNAVAILABLE")
    until(
        lambda: here.said(members.west, "ResolvedRefs").startswith("False, BackendNotFound"),
        lambda: here.said(members.west, "ResolvedRefs"),
    )
    here.export(members.east)
    here.becomes(members.west, EAST)


def test_calls_to_a_headless_import_are_balanced_over_its_pods(
    here: Place, members: Members
) -> None:
    """GEP-1748 leaves headless imports open; here each call goes to one of the endpoints."""
    pods = here.service(members.east, pods=3, clusterIP="None")
    here.export(members.east)
    members.west.server.apply(here.route(imported()))
    here.becomes(members.west, EAST)
    here.answers(members.west, 60)
    assert all(pod.seen for pod in pods)


def test_a_port_that_nobody_exports_is_not_found(here: Place, members: Members) -> None:
    here.service(members.east)
    here.export(members.east)
    members.west.server.apply(here.route(imported() | {"port": 7777}))
    until(
        lambda: here.said(members.west, "ResolvedRefs").startswith("False, BackendNotFound"),
        lambda: here.said(members.west, "ResolvedRefs"),
    )
    said = here.said(members.west, "ResolvedRefs")
    assert "spec.rules[0].backendRefs[0].port" in said
    assert "9090" in said, said
    here.becomes(members.west, "UNAVAILABLE")


def _everywhere(here: Place, members: Members) -> None:
    for member in members.both:
        here.service(member)
    here.export(*members.both)
    weigh(here, 50, 50)
    members.west.server.apply(here.route(imported()))
    here.becomes(members.west, WEST, EAST)


@pytest.mark.parametrize("lost", ["us-west-1", "us-east-1"])
def test_servers_that_die_lose_no_call(here: Place, members: Members, lost: str) -> None:
    """Their endpoints stay in the EndpointSlice: only connections tell."""
    _everywhere(here, members)
    left = EAST if lost == "us-west-1" else WEST
    with here.calling(members.west) as seen:
        until(lambda: len(seen) == 2, lambda: seen)
        for backend in here.backends.values():
            if backend.name.endswith(lost):
                backend.stop(grace_s=2)
        here.becomes(members.west, left)
    assert set(seen) == {WEST, EAST}, seen


def test_endpoints_that_go_lose_no_call(here: Place, members: Members) -> None:
    _everywhere(here, members)
    with here.calling(members.west) as seen:
        members.east.server.kubectl("delete", "endpointslice", "users-1", "-n", here.namespace)
        here.becomes(members.west, WEST)
    assert set(seen) == {WEST, EAST}, seen


def test_a_drain_moves_every_call_and_loses_none(here: Place, members: Members) -> None:
    _everywhere(here, members)
    with here.calling(members.west) as seen:
        # Exports of earlier tests may still be on their way out: none of them may be the last.
        until(lambda: _done(members, "drain", "us-east", "--over", "1s", "--grace", "2s"), str)
        try:
            here.becomes(members.west, WEST)
        finally:
            assert _done(members, "undrain", "us-east")
        here.becomes(members.west, WEST, EAST)
    assert set(seen) == {WEST, EAST}, seen


def _done(members: Members, *arguments: str) -> bool:
    return members.federation.fedctl(*arguments).exit_code == 0
