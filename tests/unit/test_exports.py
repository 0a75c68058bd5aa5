"""Facts out of objects: what is exported, what is asked of imports."""

from __future__ import annotations

from federation.derive.exports import ClusterFacts, derive_facts
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import ClusterWeight, FailoverRule, ServiceType
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot
from federation.wire.manifests import decode, parse_documents

USERS = ServiceName(namespace="app", name="user-service")

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: user-service, namespace: app}
spec:
  ports: [{name: grpc, port: 9090, appProtocol: kubernetes.io/h2c}]
"""
SLICES = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: user-service-1, namespace: app, labels: {kubernetes.io/service-name: user-service}}
addressType: IPv4
ports: [{name: grpc, port: 9090}]
endpoints:
- {addresses: [10.0.0.1]}
- {addresses: [10.0.0.2], conditions: {ready: false}}
- {addresses: [10.0.0.3], conditions: {ready: true, terminating: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: user-service-2, namespace: app, labels: {kubernetes.io/service-name: user-service}}
addressType: IPv4
ports: [{name: admin, port: 9091}]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.4]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: user-service-6, namespace: app, labels: {kubernetes.io/service-name: user-service}}
addressType: IPv6
ports: [{name: grpc, port: 9090}]
endpoints: [{addresses: ["fd00::1"]}]
"""
IMPORT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ServiceImport
metadata: {name: user-service-import, namespace: app}
spec: {type: ClusterSetIP, ports: [{port: 9090, protocol: TCP}], resolution: DNS}
"""
WEIGHTS = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: MultiClusterService
metadata: {name: user-service-global, namespace: app}
spec:
  serviceImport: {name: user-service-import, namespace: app}
  clusterBackends: [{cluster: us-west-1, weight: 60}, {cluster: us-east-1, weight: 40}]
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: users, namespace: app}
spec:
  parentRefs: [{name: grpc-gateway, namespace: infra}]
  rules:
  - backendRefs:
    - {group: gateway.networking.k8s.io, kind: ServiceImport, name: user-service-import, port: 9090}
"""
FAILOVER = """
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {name: failover, namespace: app}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: users}
  failover:
    strategy: RegionFailover
    regionFailover: [{from: us-west-1, to: us-east-1}, {from: us-east-1, to: us-west-1}]
"""
EXPORT = """
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: user-service, namespace: app, creationTimestamp: "2026-01-01T00:00:00Z"}
"""


def objects(*manifests: str) -> ObjectSnapshot:
    found: dict[ObjectKey, ApiObject] = {}
    for text in manifests:
        for document in parse_documents(text, origin="test.yaml"):
            decoded = decode(document)
            assert isinstance(decoded, ApiObject), decoded
            found[decoded.key] = decoded.with_creation_order(len(found) + 1)
    return ObjectSnapshot(objects=found, synced=True)


def facts(*manifests: str, cluster: str = "us-west-1", region: str = "us-west-1") -> ClusterFacts:
    return derive_facts(
        cluster=ClusterId(cluster), region=Region(region), objects=objects(*manifests)
    )


def test_a_service_export_exports_and_counts_endpoints_once() -> None:
    export = facts(SERVICE, SLICES, EXPORT).exports[USERS]
    assert (export.ready, export.total, export.capacity) == (2, 4, 2)
    assert export.type is ServiceType.CLUSTER_SET_IP
    assert export.exported_at == "2026-01-01T00:00:00Z"
    assert [(port.name, port.port) for port in export.ports] == [("grpc", 9090)]


def test_endpoints_on_one_address_are_told_apart_by_their_port() -> None:
    def one(number: int, ready: str) -> str:
        return f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: user-service-{number}
  namespace: app
  labels: {{kubernetes.io/service-name: user-service}}
addressType: IPv4
ports: [{{name: grpc, port: {number}}}, {{name: admin, port: {number + 100}}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: {ready}}}}}]
"""

    slices = (one(9001, "true"), one(9002, "true"), one(9003, "false"))
    export = facts(SERVICE, *slices, EXPORT).exports[USERS]
    assert (export.ready, export.total, export.capacity) == (2, 3, 2)


def test_a_slice_without_endpoints_counts_nothing() -> None:
    empty = SLICES.partition("---")[0].partition("endpoints:")[0] + "endpoints: []"
    export = facts(SERVICE, empty, EXPORT).exports[USERS]
    assert (export.ready, export.total) == (0, 0)


def test_a_service_nobody_exports_is_not_in_the_facts() -> None:
    assert facts(SERVICE, SLICES, IMPORT).exports == {}


def test_a_multi_cluster_service_exports_where_it_lists_the_cluster() -> None:
    assert set(facts(SERVICE, IMPORT, WEIGHTS).exports) == {USERS}
    assert facts(SERVICE, IMPORT, WEIGHTS, cluster="eu-1", region="eu").exports == {}


def test_listing_the_region_lists_its_clusters() -> None:
    found = facts(SERVICE, IMPORT, WEIGHTS, cluster="blue", region="us-west-1")
    assert found.exports[USERS].cluster == "blue"


def test_a_listed_cluster_without_the_service_exports_nothing() -> None:
    assert facts(IMPORT, WEIGHTS) == ClusterFacts()


def test_an_export_without_service_and_one_of_external_name_export_nothing() -> None:
    external = SERVICE.replace("spec:", "spec:\n  type: ExternalName\n  externalName: a.example")
    assert facts(EXPORT) == ClusterFacts()
    assert facts(external, EXPORT) == ClusterFacts()


def test_headless_services_say_so() -> None:
    headless = SERVICE.replace("spec:", "spec:\n  clusterIP: None")
    assert facts(headless, EXPORT).exports[USERS].type is ServiceType.HEADLESS


def test_weights_and_failover_make_one_policy() -> None:
    found = facts(SERVICE, IMPORT, WEIGHTS, ROUTE, FAILOVER)
    policy = found.policies[(USERS, "user-service-import")]
    assert policy.weights == (
        ClusterWeight(target="us-east-1", weight=40),
        ClusterWeight(target="us-west-1", weight=60),
    )
    assert policy.weights_origin == "MultiClusterService app/user-service-global"
    assert policy.failover == (
        FailoverRule(source="us-west-1", target="us-east-1"),
        FailoverRule(source="us-east-1", target="us-west-1"),
    )
    assert policy.failover_origin == "BackendTrafficPolicy app/failover"


def test_failover_without_weights_is_a_policy_too() -> None:
    policy = facts(SERVICE, EXPORT, IMPORT, ROUTE, FAILOVER).policies[
        (USERS, "user-service-import")
    ]
    assert policy.weights is None
    assert len(policy.failover) == 2


def test_the_older_multi_cluster_service_rules() -> None:
    younger = WEIGHTS.replace("user-service-global", "another").replace("60", "1")
    found = facts(SERVICE, IMPORT, WEIGHTS, younger)
    policy = found.policies[(USERS, "user-service-import")]
    assert policy.weights_origin.endswith("user-service-global")


def test_only_the_oldest_policy_of_a_route_speaks() -> None:
    silent = FAILOVER[: FAILOVER.index("  failover:")].replace("failover", "older")
    found = facts(SERVICE, EXPORT, IMPORT, ROUTE, silent + "  retry: {attempts: 1}\n", FAILOVER)
    assert found.policies == {}


def test_a_service_ref_says_which_service() -> None:
    renamed = IMPORT.replace("spec: {", "spec: {serviceRef: {name: orders}, ")
    orders = SERVICE.replace("user-service", "orders")
    found = facts(SERVICE, orders, renamed, WEIGHTS)
    assert [str(name) for name in found.exports] == ["app/orders"]


def test_a_policy_for_a_single_rule_holds_nothing() -> None:
    single = FAILOVER.replace("name: users}", "name: users, sectionName: first}").replace(
        "{name: failover", "{name: older"
    )
    assert facts(SERVICE, EXPORT, IMPORT, ROUTE, single).policies == {}
    whole = facts(SERVICE, EXPORT, IMPORT, ROUTE, single, FAILOVER).policies
    assert [policy.failover_origin for policy in whole.values()] == [
        "BackendTrafficPolicy app/failover"
    ]


def test_a_missing_import_leads_to_nothing() -> None:
    assert facts(SERVICE, WEIGHTS) == ClusterFacts()


def test_an_import_across_namespaces_needs_a_grant() -> None:
    foreign = WEIGHTS.replace("user-service-global, namespace: app", "global, namespace: ops")
    grant = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: ops, namespace: app}
spec:
  from: [{group: gateway.networking.k8s.io, kind: MultiClusterService, namespace: ops}]
  to: [{group: gateway.networking.k8s.io, kind: ServiceImport}]
"""
    assert facts(SERVICE, IMPORT, foreign) == ClusterFacts()
    assert set(facts(SERVICE, IMPORT, foreign, grant).exports) == {USERS}


def test_a_grant_for_the_mcs_import_is_one_for_the_mcs_import() -> None:
    mcs = IMPORT.replace("gateway.networking.k8s.io/v1beta1", "multicluster.x-k8s.io/v1alpha1")
    mcs = mcs.replace("user-service-import", "user-service")
    mcs = mcs[: mcs.index("spec:")] + "spec: {type: ClusterSetIP, ports: [{port: 9090}]}\n"
    foreign = WEIGHTS.replace("user-service-global, namespace: app", "global, namespace: ops")
    foreign = foreign.replace("user-service-import", "user-service")
    grant = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: ops, namespace: app}
spec:
  from: [{group: gateway.networking.k8s.io, kind: MultiClusterService, namespace: ops}]
  to: [{group: GROUP, kind: ServiceImport}]
"""
    for group, exported in (
        ("multicluster.x-k8s.io", {USERS}),
        ("gateway.networking.k8s.io", set()),
    ):
        found = facts(SERVICE, mcs, foreign, grant.replace("GROUP", group))
        assert set(found.exports) == exported


def test_order_of_objects_does_not_matter() -> None:
    given = objects(SERVICE, SLICES, IMPORT, WEIGHTS, ROUTE, FAILOVER)
    turned = ObjectSnapshot(objects=dict(reversed(given.objects.items())), synced=True)
    west = {"cluster": ClusterId("us-west-1"), "region": Region("us-west-1")}
    assert derive_facts(**west, objects=given) == derive_facts(**west, objects=turned)


def test_endpoints_of_headless_exports_travel_and_no_others() -> None:
    assert facts(SERVICE, SLICES, EXPORT).endpoints == {}
    found = facts(SERVICE.replace("spec:\n", "spec:\n  clusterIP: None\n"), SLICES, EXPORT)
    assert {name for _, name in found.endpoints} == {
        "user-service-1",
        "user-service-2",
        "user-service-6",
    }
    first = found.endpoints[USERS, "user-service-1"]
    assert [(port.name, port.port) for port in first.ports] == [("grpc", 9090)]
    assert [(entry.addresses, entry.ready) for entry in first.endpoints] == [
        (("10.0.0.1",), True),
        (("10.0.0.2",), False),
        (("10.0.0.3",), False),
    ]
