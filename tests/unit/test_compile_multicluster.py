"""Statuses of exports, imports and MultiClusterServices; endpoints of imports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.derive.compile import Compiled
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.conditions import Condition
from federation.model.facts import (
    ClusterGateways,
    ClusterWeight,
    Heartbeat,
    PeerGateway,
    ServicePolicyFact,
    ServiceType,
)
from federation.model.objects import ObjectKey
from federation.model.resolved import ClusterDrain, DrainPhase
from federation.model.snapshot import Endpoint, EndpointSet, Forward, Protocol
from federation.model.view import FederationView
from tests.testkit.routing import (
    EAST,
    EVEN,
    USERS,
    WEST,
    compiled,
    export,
    parse,
    resolved,
    service,
    share,
    spelled,
    view,
)

GROUP = "gateway.networking.k8s.io"
MCS = "multicluster.x-k8s.io"
SOUTH = ClusterId("eu-south-1")

IMPORT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ServiceImport
metadata: {name: user-service-import, namespace: app, generation: 4}
spec: {ports: [{port: 9090}]}
---
"""

WEIGHTS = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: MultiClusterService
metadata: {name: NAME, namespace: app, generation: 5}
spec:
  serviceImport: {name: user-service-import}
  clusterBackends: [{cluster: us-west-1, weight: 60}, {cluster: us-east-1, weight: 40}]
---
"""

GLOBAL = WEIGHTS.replace("NAME", "global")


def status(result: Compiled, kind: str, name: str, group: str = GROUP) -> dict[str, Condition]:
    found = result.statuses[ObjectKey(group, kind, "app", name)]
    return {entry.type: entry for entry in found.conditions}


def test_an_import_says_which_service_it_means_and_who_exports_it() -> None:
    result = compiled(IMPORT, EVEN)
    found = status(result, "ServiceImport", "user-service-import")
    assert found["ResolvedRefs"].message == (
        "means Service app/user-service, exported by us-east-1, us-west-1"
    )
    assert found["ResolvedRefs"].observed_generation == 4
    assert found["Ready"].message == "4 of 4 endpoints ready in us-east-1, us-west-1"
    key = ObjectKey(GROUP, "ServiceImport", "app", "user-service-import")
    assert result.statuses[key].clusters == ("us-east-1", "us-west-1")


def test_an_import_of_its_own_name_comes_first() -> None:
    own = ServiceName(namespace="app", name="user-service-import")
    federation = view(exports=(export(EAST, own), export(WEST)))
    found = status(compiled(IMPORT, federation), "ServiceImport", "user-service-import")
    assert found["ResolvedRefs"].message.startswith("means Service app/user-service-import,")


def test_a_service_ref_leaves_no_choice() -> None:
    text = IMPORT.replace("spec: {", "spec: {serviceRef: {name: other}, ")
    found = status(compiled(text, EVEN), "ServiceImport", "user-service-import")
    assert found["ResolvedRefs"].message == (
        "ServiceImport app/user-service-import: no cluster exports app/other; apply a "
        "ServiceExport where the Service is, or a MultiClusterService that lists that cluster"
    )


def test_an_import_that_no_cluster_exports() -> None:
    found = status(compiled(IMPORT, view()), "ServiceImport", "user-service-import")
    message = (
        "ServiceImport app/user-service-import: no cluster exports app/user-service-import "
        "or app/user-service; apply a ServiceExport where the Service is, or a "
        "MultiClusterService that lists that cluster"
    )
    unnamed = (
        "ServiceImport DNS resolution failed: user-service-import.app.svc.clusterset.local: "
        "the agent of this cluster answers no DNS; start it with --dns HOST:PORT"
    )
    assert [(entry.status, entry.reason, entry.message) for entry in found.values()] == [
        ("False", "BackendNotFound", message),
        ("False", "Pending", message),
        ("False", "NoServer", unnamed),
    ]


def test_weights_of_ready_clusters() -> None:
    result = compiled(IMPORT + GLOBAL, EVEN)
    found = status(result, "MultiClusterService", "global")
    assert spelled(found.values()) == {
        "Accepted": "True/Accepted",
        "ResolvedRefs": "True/ResolvedRefs",
        "BackendsReady": "True/BackendsReady",
    }
    assert {entry.observed_generation for entry in found.values()} == {5}


@pytest.mark.parametrize(
    ("federation", "reason", "message"),
    [
        (
            view(exports=(export(WEST),)),
            "NotExported",
            "us-east-1 does not export app/user-service",
        ),
        (
            view(exports=(export(WEST), export(EAST, ready=0))),
            "NoReadyEndpoints",
            "us-east-1 has no ready endpoint of app/user-service (2 in all)",
        ),
        (
            replace(view(exports=(export(WEST), export(EAST))), gateways={}),
            "NoGateway",
            "us-east-1 has published no gateway that other clusters can reach",
        ),
        (
            view(clusters=(WEST, SOUTH), exports=(export(WEST),)),
            "UnknownCluster",
            (
                "spec.clusterBackends[1].cluster: no member cluster or region is named us-east-1; "
                "members: eu-south-1 (eu-south-1), us-west-1 (us-west-1)"
            ),
        ),
        (
            view(),
            "NotExported",
            (
                "us-west-1 does not export app/user-service; "
                "us-east-1 does not export app/user-service"
            ),
        ),
    ],
)
def test_a_cluster_that_cannot_serve_is_named(
    federation: FederationView, reason: str, message: str
) -> None:
    found = status(compiled(IMPORT + GLOBAL, federation), "MultiClusterService", "global")
    ready = found["BackendsReady"]
    assert (ready.status, ready.reason, ready.message) == ("False", reason, message)
    assert found["Accepted"].status == "True"


def test_weights_for_an_import_that_is_not_there() -> None:
    found = status(compiled(GLOBAL, EVEN), "MultiClusterService", "global")
    assert found["ResolvedRefs"].message == (
        "spec.serviceImport: ServiceImport app/user-service-import does not exist"
    )
    assert found["BackendsReady"].reason == "BackendNotFound"


def test_the_older_of_two_rules_an_import() -> None:
    result = compiled(IMPORT + GLOBAL + WEIGHTS.replace("NAME", "a-younger"), EVEN)
    assert status(result, "MultiClusterService", "global")["Accepted"].status == "True"
    accepted = status(result, "MultiClusterService", "a-younger")["Accepted"]
    assert (accepted.reason, accepted.message) == (
        "Conflicted",
        "MultiClusterService app/global is older and sets the weights of app/user-service",
    )


FOREIGN = WEIGHTS.replace("name: NAME, namespace: app", "name: foreign, namespace: ops").replace(
    "name: user-service-import", "name: user-service-import, namespace: app"
)
GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: ops, namespace: app}
spec:
  from: [{group: gateway.networking.k8s.io, kind: MultiClusterService, namespace: ops}]
  to: [{group: gateway.networking.k8s.io, kind: ServiceImport}]
---
"""


def foreign_status(text: str) -> dict[str, Condition]:
    result = compiled(parse(text), view(exports=(export(WEST), export(EAST))))
    key = ObjectKey(GROUP, "MultiClusterService", "ops", "foreign")
    return {found.type: found for found in result.statuses[key].conditions}


@pytest.mark.parametrize("there", [IMPORT, ""])
def test_without_a_grant_nothing_is_told_about_the_other_namespace(there: str) -> None:
    found = foreign_status(there + FOREIGN)
    message = (
        "spec.serviceImport: no ReferenceGrant in namespace app lets MultiClusterService "
        "ops/foreign refer to ServiceImport app/user-service-import"
    )
    for condition in ("ResolvedRefs", "BackendsReady"):
        assert (found[condition].reason, found[condition].message) == ("RefNotPermitted", message)
    assert found["Accepted"].reason == "Accepted"
    assert foreign_status(IMPORT + GRANT + FOREIGN)["ResolvedRefs"].reason == "ResolvedRefs"


def test_one_without_a_grant_rules_nobody() -> None:
    own = WEIGHTS.replace("NAME", "own")
    result = compiled(parse(IMPORT + FOREIGN + own), view(exports=(export(WEST),)))
    assert status(result, "MultiClusterService", "own")["Accepted"].reason == "Accepted"
    result = compiled(parse(IMPORT + GRANT + FOREIGN + own), view(exports=(export(WEST),)))
    assert status(result, "MultiClusterService", "own")["Accepted"].reason == "Conflicted"


def weights_fact(cluster: ClusterId, west: int, revision: int) -> ServicePolicyFact:
    return ServicePolicyFact(
        cluster=cluster,
        service=USERS,
        import_name="user-service-import",
        weights=(
            ClusterWeight(target=WEST, weight=west),
            ClusterWeight(target=EAST, weight=100 - west),
        ),
        weights_origin="MultiClusterService app/global",
        create_revision=revision,
    )


@pytest.mark.parametrize(
    ("west", "revision", "conflicted"), [(50, 1, True), (60, 1, False), (50, 9, False)]
)
def test_clusters_must_agree_and_the_first_to_enter_rules(
    west: int, revision: int, conflicted: bool
) -> None:
    federation = view(
        exports=(export(WEST), export(EAST)),
        policies=(weights_fact(WEST, 60, 5), weights_fact(EAST, west, revision)),
    )
    found = status(compiled(IMPORT + GLOBAL, federation), "MultiClusterService", "global")
    accepted = found["Accepted"]
    assert accepted.reason == ("Conflicted" if conflicted else "Accepted")
    if conflicted:
        assert accepted.message == (
            "MultiClusterService app/global in us-east-1 is older and sets other weights for "
            "app/user-service; make them equal"
        )


def beat(*clusters: ClusterId) -> dict[ClusterId, Heartbeat]:
    return {
        name: Heartbeat(cluster=name, instance=name, seen_revision=0, version="")
        for name in clusters
    }


def test_silence_is_shown_and_moves_nothing() -> None:
    text = IMPORT + GLOBAL + ROUTE
    alive = compiled(text, replace(EVEN, heartbeats=beat(WEST, EAST)))
    silent = compiled(text, replace(EVEN, heartbeats=beat(WEST)))
    assert silent.snapshot == alive.snapshot
    for kind, name in (("ServiceImport", "user-service-import"), ("MultiClusterService", "global")):
        assert "Stale" not in status(alive, kind, name)
        found = status(silent, kind, name)
        assert (found["Stale"].status, found["Stale"].reason) == ("True", "HeartbeatLost")
        assert found["Stale"].message == "us-east-1 is silent; what it exported stays in force"


EXPORT = """
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: user-service, namespace: app}
---
"""


def exported(federation: FederationView, text: str = EXPORT) -> dict[str, Condition]:
    objects = [*parse(text), *service("app/user-service")]
    return status(compiled(objects, federation), "ServiceExport", "user-service", MCS)


def test_an_export_is_valid_then_ready() -> None:
    assert spelled(exported(view()).values()) == {
        "Valid": "True/Valid",
        "Ready": "False/Pending",
        "Conflict": "False/NoConflicts",
    }
    assert spelled(exported(EVEN).values()) == {
        "Valid": "True/Valid",
        "Ready": "True/Exported",
        "Conflict": "False/NoConflicts",
    }


def test_an_export_of_nothing() -> None:
    result = compiled(EXPORT, view())
    found = status(result, "ServiceExport", "user-service", MCS)
    assert (found["Valid"].reason, found["Ready"].reason) == ("NoService", "Failed")


def test_an_export_of_an_external_name() -> None:
    external = """
apiVersion: v1
kind: Service
metadata: {name: user-service, namespace: app}
spec: {type: ExternalName, externalName: example.com}
---
"""
    result = compiled(EXPORT + external, view())
    found = status(result, "ServiceExport", "user-service", MCS)
    assert found["Valid"].reason == "InvalidServiceType"


def test_conflicts_are_told_in_the_words_of_the_mcs_api() -> None:
    other = export(EAST, port=9091, create_revision=1).model_copy(
        update={"type": ServiceType.HEADLESS}
    )
    conflict = exported(view(exports=(export(WEST, create_revision=2), other)))["Conflict"]
    assert (conflict.status, conflict.reason) == ("True", "PortConflict,TypeConflict")
    assert conflict.message.endswith(
        'Conflicting type. Using "Headless" from oldest service export in "us-east-1". '
        "1/2 clusters disagree."
    )


ROUTE = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: grpc, port: 80, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: users, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
  - backendRefs: [{{group: {GROUP}, kind: ServiceImport, name: user-service-import, port: 9090}}]
---
"""


def endpoint_sets(federation: FederationView) -> dict[str, EndpointSet]:
    objects = [*parse(IMPORT + ROUTE), *service("app/user-service")]
    return {entry.upstream: entry for entry in compiled(objects, federation).snapshot.endpoint_sets}


def test_failover_tiers_become_priorities() -> None:
    federation = view(
        clusters=(WEST, EAST, SOUTH),
        exports=(export(WEST), export(EAST), export(SOUTH)),
        services=(resolved(share(EAST, 10_000, SOUTH, WEST)),),
    )
    found = endpoint_sets(federation)["import/app/user-service/9090/us-east-1"]
    assert [(entry.priority, entry.cluster) for entry in found.localities] == [
        (0, EAST),
        (1, SOUTH),
        (2, WEST),
    ]
    assert all(endpoint.peer for endpoint in found.localities[0].endpoints)
    assert not any(endpoint.peer for endpoint in found.localities[2].endpoints)


def test_a_tier_without_gateways_leaves_no_gap() -> None:
    federation = view(
        clusters=(WEST, EAST, SOUTH),
        exports=(export(WEST), export(EAST), export(SOUTH)),
        services=(resolved(share(EAST, 10_000, SOUTH, WEST)),),
    )
    by_name = PeerGateway(name="gw", address="gateway.example.com:15444")
    none = ClusterGateways(cluster=SOUTH, region=Region(SOUTH), gateways=(by_name,))
    federation = replace(federation, gateways={**federation.gateways, SOUTH: none})
    found = endpoint_sets(federation)["import/app/user-service/9090/us-east-1"]
    assert [(entry.priority, entry.cluster) for entry in found.localities] == [(0, EAST), (1, WEST)]


@pytest.mark.parametrize(
    ("phase", "draining"),
    [(DrainPhase.RAMPING, False), (DrainPhase.DRAINING, True), (DrainPhase.DRAINED, True)],
)
def test_a_drain_shows_in_imports_alone(phase: DrainPhase, draining: bool) -> None:
    drain = ClusterDrain(cluster=WEST, phase=phase, remaining_bp=0, grace_ms=30_000, drain="west")
    federation = view(
        exports=(export(WEST), export(EAST)),
        services=(resolved(share(WEST, 0, EAST), share(EAST, 10_000), drains=(drain,)),),
    )
    sets = endpoint_sets(federation)
    grace = 30_000 if draining else None
    own = Endpoint(host="10.0.0.1", port=8080)
    (first, second) = sets["import/app/user-service/9090/us-west-1"].localities
    assert first.endpoints == (replace(own, draining=draining, drain_grace_ms=grace),)
    assert not any(endpoint.draining for endpoint in second.endpoints)
    assert sets["local/app/user-service/9090"].localities[0].endpoints == (own,)


def test_the_east_west_entrance_leads_to_own_endpoints_only() -> None:
    snapshot = compiled(service("app/user-service"), EVEN).snapshot
    (table,) = snapshot.route_tables
    (host,) = table.virtual_hosts
    for route in host.routes:
        assert [(entry.name, entry.value) for entry in route.match.headers] == [
            ("x-federation-destination", "app/user-service:9090")
        ]
        assert route.request_headers.remove == ("x-federation-destination",)
    local = [entry for entry in snapshot.endpoint_sets if entry.upstream.startswith("local/")]
    assert {entry.cluster for one in local for entry in one.localities} == {WEST}


def test_what_enters_is_spoken_to_as_its_port_and_kind_ask() -> None:
    snapshot = compiled(service("app/user-service"), EVEN).snapshot
    (host,) = snapshot.route_tables[0].virtual_hosts
    calls, others = host.routes
    assert (calls.match.grpc, others.match.grpc) == (True, False)
    used = [
        entry.upstream
        for route in (calls, others)
        if isinstance(route.action, Forward)
        for entry in route.action.destinations
    ]
    assert used == ["local/app/user-service/9090", "local/app/user-service/9090:http1"]
    protocols = {upstream.name: upstream.protocol for upstream in snapshot.upstreams}
    assert [protocols[name] for name in used] == [Protocol.HTTP2, Protocol.HTTP1]


def test_an_import_names_its_peers_before_they_are_endpoints() -> None:
    """Endpoints may overtake their upstream, so it must not change when they come and go."""
    alone = resolved(share(WEST, 10_000))
    objects = [*parse(IMPORT + ROUTE), *service("app/user-service")]
    before = compiled(objects, view(exports=(export(WEST),), services=(alone,))).snapshot
    after = compiled(objects, EVEN).snapshot
    name = "import/app/user-service/9090/us-west-1"
    first, second = (
        next(entry for entry in snapshot.upstreams if entry.name == name)
        for snapshot in (before, after)
    )
    assert first == second
    assert first.peer_tls is not None
