"""Properties of the compile step over random clusters and federations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.derive.compile import Compiled, CompileInputs, compile_cluster
from federation.model.base import Region
from federation.model.http import Redirect
from federation.model.objects import ApiObject, EndpointSlice, GRPCRoute, HTTPRoute, ObjectKey
from federation.model.snapshot import (
    Forward,
    Refuse,
    Route,
    Snapshot,
    TlsTermination,
)
from federation.model.view import FederationView
from federation.wire.xds import NodeView, to_resources
from gateway.xds_translate import TYPE_OF_KIND, Kind, translate_message
from tests.testkit.random_clusters import clusters, federations
from tests.testkit.routing import WEST, parse, snapshot_of

Objects = Mapping[ObjectKey, ApiObject]

BOUNDED = settings(max_examples=40)
"""A cluster is a large value: forty of them take seconds."""

BAD = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: bad-route, namespace: app}
spec:
  parentRefs: [{name: one, namespace: infra}, {name: nowhere}]
  hostnames: [a.example.com]
  rules:
  - matches: [{method: {type: RegularExpression, service: "(?=x)"}}]
    backendRefs: [{name: users, port: 9090}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bad-gateway, namespace: app}
spec:
  gatewayClassName: federation
  listeners:
  - {name: twin-a, port: 443, protocol: HTTP}
  - {name: twin-b, port: 443, protocol: HTTP}
  - {name: no-certificate, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: gone}]}}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {name: bad-policy, namespace: app}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: bad-route}
  circuitBreaker: {maxEjectionPercent: 0}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: MultiClusterService
metadata: {name: bad-weights, namespace: app}
spec:
  serviceImport: {name: unheard-of}
  clusterBackends: [{cluster: mars-1}]
---
apiVersion: v1
kind: Secret
metadata: {name: bad-certificate, namespace: app}
stringData: {tls.crt: nonsense, tls.key: nonsense}
"""


def compile_all(objects: Iterable[ApiObject], federation: FederationView) -> Compiled:
    return compile_cluster(
        CompileInputs(
            cluster=WEST, region=Region(WEST), objects=snapshot_of(objects), view=federation
        )
    )


@BOUNDED
@given(clusters(), federations(), st.randoms(use_true_random=False))
def test_the_order_of_objects_does_not_matter(
    objects: Objects, federation: FederationView, random: st.DataObject
) -> None:
    shuffled = list(objects.values())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    result = compile_all(shuffled, federation)
    assert result == compile_all(objects.values(), federation)
    assert list(result.statuses) == sorted(result.statuses)


@BOUNDED
@given(clusters(), federations())
def test_one_bad_object_changes_nothing_for_the_others(
    objects: Objects, federation: FederationView
) -> None:
    before = compile_all(objects.values(), federation)
    newest = len(objects) + 1
    for bad in parse(BAD):
        after = compile_all([*objects.values(), bad.with_creation_order(newest)], federation)
        assert after.snapshot == before.snapshot
        others = {key: status for key, status in after.statuses.items() if key != bad.key}
        assert others == before.statuses


@BOUNDED
@given(clusters(), federations())
def test_no_endpoint_appears_that_nobody_reported(
    objects: Objects, federation: FederationView
) -> None:
    reported = {
        (address, port.port)
        for entry in objects.values()
        if isinstance(entry, EndpointSlice)
        for endpoint in entry.endpoints
        if endpoint.ready or endpoint.conditions.serving
        for address in endpoint.addresses
        for port in entry.ports
    }
    peers = {
        gateway.address for entry in federation.gateways.values() for gateway in entry.gateways
    }
    for entry in compile_all(objects.values(), federation).snapshot.endpoint_sets:
        for locality in entry.localities:
            for endpoint in locality.endpoints:
                if endpoint.peer:
                    assert f"{endpoint.host}:{endpoint.port}" in peers
                    assert locality.cluster != WEST
                else:
                    assert (endpoint.host, endpoint.port) in reported
                    assert locality.cluster == WEST


@BOUNDED
@given(clusters(), federations())
def test_snapshots_are_consistent(objects: Objects, federation: FederationView) -> None:
    snapshot = compile_all(objects.values(), federation).snapshot
    upstreams = [entry.name for entry in snapshot.upstreams]
    tables = [entry.name for entry in snapshot.route_tables]
    assert upstreams == sorted(set(upstreams))
    assert [entry.upstream for entry in snapshot.endpoint_sets] == upstreams
    assert tables == sorted(set(tables))
    assert [entry.route_table for entry in snapshot.listeners] == tables
    ports = [entry.port for entry in snapshot.listeners]
    assert len(ports) == len(set(ports))
    assert certificates_used(snapshot) <= {secret.name for secret in snapshot.secrets}
    for route in all_routes(snapshot):
        check_action(route, set(upstreams))
    for entry in snapshot.endpoint_sets:
        priorities = sorted({locality.priority for locality in entry.localities})
        assert priorities == list(range(len(priorities))), "priorities have no gaps"


def certificates_used(snapshot: Snapshot) -> set[str]:
    return {
        name
        for listener in snapshot.listeners
        for chain in listener.chains
        if isinstance(chain.tls, TlsTermination)
        for name in chain.tls.certificates
    }


def all_routes(snapshot: Snapshot) -> list[Route]:
    hosts = [host for table in snapshot.route_tables for host in table.virtual_hosts]
    return [route for host in hosts for route in host.routes]


def check_action(route: Route, upstreams: set[str]) -> None:
    match route.action:
        case Refuse(message=message):
            assert message.startswith(route.rule)
        case Forward(destinations=destinations):
            assert sum(entry.weight for entry in destinations) > 0
            assert {entry.upstream for entry in destinations} <= upstreams
        case Redirect(status=status):
            assert 301 <= status <= 308


@BOUNDED
@given(clusters(), federations())
def test_every_route_says_what_became_of_it(objects: Objects, federation: FederationView) -> None:
    result = compile_all(objects.values(), federation)
    for key, status in result.statuses.items():
        generation = objects[key].metadata.generation
        assert status.observed_generation == generation
        parts = (*status.parents, *status.listeners, *status.ancestors)
        conditions = [*status.conditions, *(c for part in parts for c in part.conditions)]
        assert conditions
        assert {entry.observed_generation for entry in conditions} == {generation}
    for entry in objects.values():
        if isinstance(entry, GRPCRoute | HTTPRoute):
            assert len(result.statuses[entry.key].parents) == len(entry.spec.parent_refs)


@BOUNDED
@given(clusters(), federations())
def test_the_gateway_reads_every_resource(objects: Objects, federation: FederationView) -> None:
    snapshot = compile_all(objects.values(), federation).snapshot
    resources = to_resources(snapshot, NodeView(address="127.0.0.1", port_offset=20_000))
    by_kind = {
        Kind.LISTENERS: resources.listeners,
        Kind.ROUTE_TABLES: resources.routes,
        Kind.CLUSTERS: resources.clusters,
        Kind.ENDPOINTS: resources.endpoints,
        Kind.SECRETS: resources.secrets,
    }
    assert set(by_kind) == set(TYPE_OF_KIND)
    for kind, messages in by_kind.items():
        for name, message in messages.items():
            assert translate_message(kind, message).id.name == name
