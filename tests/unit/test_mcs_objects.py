"""Services and slices behind imports, and the gateways' listeners that they lead to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from federation.derive.compile import CompileInputs, CompileSettings, compile_cluster
from federation.derive.mcs_imports import DERIVED_SERVICE, MANAGED_BY, MANAGER
from federation.derive.mcs_objects import (
    SERVICE_LABEL,
    SOURCE_LABEL,
    DerivedState,
    agrees,
    derive_state,
    derived_name,
    is_as_wanted,
)
from federation.derive.mcs_ports import PortRange
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import (
    ClusterGateways,
    EndpointsFact,
    ExportFact,
    Member,
    PeerGateway,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)
from federation.model.objects import (
    ApiObject,
    EndpointSlice,
    McsServiceImport,
    ObjectKey,
    ObjectSnapshot,
    Service,
)
from federation.model.resolved import (
    ClusterShare,
    Reason,
    ReasonCode,
    ResolvedService,
    SourceResolution,
    Tier,
    TierMember,
)
from federation.model.snapshot import Forward, Listener, Protocol, Refuse
from federation.model.telemetry import AccessLog, Tag, TagSource, Telemetry, Tracing
from federation.model.view import FederationView
from federation.wire.manifest_yaml import parse_documents
from federation.wire.manifests import decode_all

WEST, EAST = ClusterId("us-west-1"), ClusterId("us-east-1")
USERS = ServiceName(namespace="app", name="users")
FRONT = ServiceName(namespace="federation-system", name="federation-gateway")
PORTS = PortRange()
GRPC = ServicePort(name="grpc", port=9090)
RAW = ServicePort(name="tcp", port=42)
UDP = ServicePort(name="udp", port=42, protocol="UDP")
DERIVED = ObjectKey("", "Service", "app", derived_name(USERS))
IMPORT = ObjectKey("multicluster.x-k8s.io", "ServiceImport", "app", "users")

BASE = """
apiVersion: v1
kind: Namespace
metadata: {name: app}
---
apiVersion: v1
kind: Service
metadata: {name: federation-gateway, namespace: federation-system}
spec:
  clusterIP: 10.96.0.9
  clusterIPs: [10.96.0.9]
  ipFamilies: [IPv4]
  ipFamilyPolicy: SingleStack
  ports: [{name: east-west, port: 15444}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: federation-gateway-1
  namespace: federation-system
  labels: {kubernetes.io/service-name: federation-gateway}
addressType: IPv4
ports: [{name: east-west, port: 15444}]
endpoints:
- {addresses: [10.77.0.2], conditions: {ready: true}, nodeName: node-b}
- {addresses: [10.77.0.1], conditions: {ready: true}}
- {addresses: [10.77.0.3], conditions: {ready: false}}
"""


def objects(*more: ApiObject) -> ObjectSnapshot:
    found = [*decode_all(parse_documents(BASE, origin="test")).objects, *more]
    return ObjectSnapshot({entry.key: entry for entry in found}, synced=True)


def export(cluster: ClusterId, *ports: ServicePort, **fields: Any) -> ExportFact:
    region = Region(str(cluster).rpartition("-")[0])
    counts = {"ready": 1, "total": 1, "capacity": 1}
    return ExportFact(cluster=cluster, region=region, service=USERS, ports=ports, **counts | fields)


def view(*facts: ExportFact, **fields: Any) -> FederationView:
    members = {
        cluster: Member(cluster=cluster, region=Region(region), instance=cluster)
        for cluster, region in ((WEST, "us-west"), (EAST, "us-east"))
    }
    gateway = PeerGateway(name="gw", address="10.9.0.1:15444")
    gateways = {EAST: ClusterGateways(cluster=EAST, region=Region("e"), gateways=(gateway,))}
    exports = {USERS: {fact.cluster: fact for fact in facts}} if facts else {}
    return FederationView(members=members, gateways=gateways, exports=exports, **fields)


def derive(found: ObjectSnapshot, federation: FederationView) -> DerivedState:
    return derive_state(WEST, found, federation, gateway_service=FRONT, ports=PORTS)


def allocated(service: Service, *ips: str) -> Service:
    """The Service as an API server has it."""
    spec = service.spec.model_copy(update={"cluster_ip": ips[0], "cluster_ips": ips})
    return service.model_copy(update={"spec": spec})


def settled(federation: FederationView) -> ObjectSnapshot:
    """The cluster once all that is derived has been written, as often as it takes."""
    found, state = objects(), DerivedState()
    for _ in range(4):
        state = derive(found, federation)
        services = {
            key: allocated(value, *(value.spec.cluster_ips or ("10.96.1.1",)))
            for key, value in state.services.items()
        }
        found = objects(*services.values(), *state.slices.values(), *state.imports.values())
    for kind, wanted in (
        (Service, state.services),
        (EndpointSlice, state.slices),
        (McsServiceImport, state.imports),
    ):
        assert agrees(found, kind, wanted)
    return found


def compiled(found: ObjectSnapshot, federation: FederationView) -> Any:
    settings = CompileSettings(gateway_service=FRONT, import_ports=PORTS)
    return compile_cluster(CompileInputs(WEST, Region("us-west"), found, federation, settings))


def test_an_import_gets_the_addresses_of_its_derived_service() -> None:
    federation = view(export(EAST, GRPC, UDP))
    first = derive(objects(), federation)
    service = first.services[DERIVED]
    assert service.metadata.labels == {MANAGED_BY: MANAGER, SERVICE_LABEL: "users"}
    assert (service.spec.selector, service.spec.ip_families) == (None, ("IPv4",))
    assert [port.port for port in service.spec.ports] == [9090, 42]
    assert first.imports[IMPORT].spec.ips == ()
    there = settled(federation).get(McsServiceImport, "app", "users")
    assert there is not None
    assert (there.spec.ips, there.spec.ip_families) == (("10.96.1.1",), ("IPv4",))
    assert (there.metadata.annotations or {})[DERIVED_SERVICE] == DERIVED.name


def test_ports_without_a_name_get_one_beside_others() -> None:
    bare = ServicePort(port=80)
    alone = derive(objects(), view(export(EAST, bare))).services[DERIVED]
    assert [port.name for port in alone.spec.ports] == [""]
    joined = settled(view(export(EAST, bare), export(WEST, GRPC)))
    service = joined.get(Service, "app", DERIVED.name)
    assert service is not None
    assert sorted(port.name for port in service.spec.ports) == ["grpc", "port-80"]
    (slice_,) = (entry for entry in joined.of(EndpointSlice) if entry.metadata.namespace == "app")
    assert sorted(port.name for port in slice_.ports) == ["grpc", "port-80"]


def test_a_deleted_service_comes_back_at_its_address() -> None:
    federation = view(export(EAST, GRPC))
    found = settled(federation)
    before = found.get(Service, "app", DERIVED.name)
    without = replace(found, objects={k: v for k, v in found.objects.items() if k != DERIVED})
    again = derive(without, federation)
    assert before is not None
    assert again.services[DERIVED].spec.cluster_ips == ("10.96.1.1",)
    assert again.imports[IMPORT].spec.ips == ("10.96.1.1",)


def test_slices_lead_to_ready_gateways_at_the_listeners_port() -> None:
    found = settled(view(export(EAST, GRPC, UDP)))
    (slice_,) = (entry for entry in found.of(EndpointSlice) if entry.metadata.namespace == "app")
    labels = slice_.metadata.labels or {}
    assert labels[SERVICE_LABEL] == "users"
    assert labels[SOURCE_LABEL] == WEST
    assert labels["kubernetes.io/service-name"] == DERIVED.name
    assert labels["endpointslice.kubernetes.io/managed-by"] == MANAGER
    assert [entry.addresses for entry in slice_.endpoints] == [("10.77.0.1",), ("10.77.0.2",)]
    service = found.get(Service, "app", DERIVED.name)
    assert service is not None
    assert [(port.name, port.port) for port in slice_.ports] == [
        ("grpc", service.spec.ports[0].target_port)
    ]
    assert slice_.ports[0].port in PORTS


def test_gateways_that_are_not_known_take_nothing_from_slices() -> None:
    federation = view(export(EAST, GRPC))
    found = settled(federation)
    kept = {
        key: value
        for key, value in found.objects.items()
        if not (isinstance(value, EndpointSlice) and key.namespace == "federation-system")
    }
    state = derive(replace(found, objects=kept), federation)
    (slice_,) = state.slices.values()
    assert len(slice_.endpoints) == 2


def test_nothing_is_behind_an_import_that_is_somebody_elses() -> None:
    theirs = decode_all(
        parse_documents(
            "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\n"
            "metadata: {name: users, namespace: app}\nspec: {type: ClusterSetIP}\n",
            origin="test",
        )
    ).objects
    state = derive(objects(*theirs), view(export(EAST, GRPC)))
    assert (state.services, state.slices) == ({}, {})
    assert agrees(objects(*theirs), McsServiceImport, state.imports)


def test_everything_goes_with_the_last_export() -> None:
    found = settled(view(export(EAST, GRPC)))
    state = derive(found, view())
    assert state == DerivedState()
    assert not agrees(found, Service, state.services)


def test_headless_imports_lead_to_the_endpoints() -> None:
    fact = EndpointsFact(
        cluster=EAST,
        service=USERS,
        name="users-x1",
        address_type="IPv4",
        ports=(SlicePort(name="grpc", port=9090),),
        endpoints=(SliceEndpoint(addresses=("10.5.0.1",), hostname="users-0", ready=False),),
    )
    found = view(export(EAST, GRPC, type=ServiceType.HEADLESS), endpoints={USERS: (fact,)})
    state = derive(objects(), found)
    assert state.services == {}
    assert state.imports[IMPORT].spec.ips == ()
    (slice_,) = state.slices.values()
    labels = slice_.metadata.labels or {}
    assert (labels[SERVICE_LABEL], labels[SOURCE_LABEL]) == ("users", EAST)
    assert "kubernetes.io/service-name" not in labels
    (endpoint,) = slice_.endpoints
    assert (endpoint.addresses, endpoint.hostname) == (("10.5.0.1",), "users-0")
    assert endpoint.conditions.ready is False


def test_drift_is_seen_and_what_an_api_server_adds_is_not() -> None:
    found = settled(view(export(EAST, GRPC)))
    service = found.get(Service, "app", DERIVED.name)
    assert service is not None
    added = service.model_copy(
        update={"spec": service.spec.model_copy(update={"internal_traffic_policy": "Cluster"})}
    )
    assert is_as_wanted(added, service)
    (port,) = service.spec.ports
    moved = port.model_copy(update={"target_port": 1})
    bent = service.model_copy(update={"spec": service.spec.model_copy(update={"ports": (moved,)})})
    assert not is_as_wanted(bent, service)


def shares(*parts: tuple[ClusterId, int], behind: ClusterId | None = None) -> Any:
    reason = Reason(code=ReasonCode.REMAINING_CAPACITY, message="the rest")
    tiers = (
        (Tier(members=(TierMember(cluster=behind, weight=1),), reason=reason),) if behind else ()
    )
    found = tuple(
        ClusterShare(
            cluster=cluster,
            region=Region("r"),
            weight_asked_bp=weight,
            weight_bp=weight,
            failover=tiers,
            reasons=(),
        )
        for cluster, weight in parts
    )
    source = SourceResolution(region=Region("us-west"), shares=found)
    return {USERS: ResolvedService(service=USERS, sources=(source,))}


def listeners(found: Any) -> dict[str, Listener]:
    return {
        entry.name.removeprefix("federation/import/app/users/"): entry
        for entry in found.snapshot.listeners
        if entry.name.startswith("federation/import/")
    }


def test_a_port_of_calls_is_routed_like_the_import() -> None:
    federation = view(export(EAST, GRPC), export(WEST, GRPC))
    federation = replace(federation, resolved=shares((WEST, 7_000), (EAST, 3_000)))
    found = compiled(settled(federation), federation)
    listener = listeners(found)["9090"]
    (table,) = (t for t in found.snapshot.route_tables if t.name == listener.route_table)
    (route,) = table.virtual_hosts[0].routes
    assert isinstance(route.action, Forward)
    assert {(w.upstream, w.weight) for w in route.action.destinations} == {
        ("import/app/users/9090/us-west-1", 7_000),
        ("import/app/users/9090/us-east-1", 3_000),
    }
    assert route.match.grpc is False


def test_a_port_of_connections_is_passed_on_with_a_name_for_peers() -> None:
    federation = view(export(EAST, RAW))
    federation = replace(federation, resolved=shares((EAST, 10_000)))
    found = compiled(settled(federation), federation)
    listener = listeners(found)["42"]
    assert listener.plain
    ((target,),) = (chain.passthrough for chain in listener.chains)
    upstream = next(u for u in found.snapshot.upstreams if u.name == target.upstream)
    assert upstream.protocol is Protocol.TCP
    assert upstream.peer_tls is not None
    assert upstream.peer_tls.sni == "p42.users.app.tcp.clusterset.local"
    here = compiled(objects(), view(export(WEST, RAW)))
    (entrance,) = (entry for entry in here.snapshot.listeners if entry.port == 15444)
    (chain,) = (chain for chain in entrance.chains if chain.passthrough)
    assert chain.hostnames == ("p42.users.app.tcp.clusterset.local",)
    assert chain.tls is not None


def test_a_port_is_served_by_the_clusters_that_have_it_alone() -> None:
    """ "Service Port": the share of a cluster without it goes where failover sends it."""
    other = ServicePort(name="tcp2", port=4242)
    federation = view(export(WEST, RAW), export(EAST, other))
    federation = replace(federation, resolved=shares((WEST, 10_000), behind=EAST))
    found = compiled(settled(federation), federation)
    opened = listeners(found)
    for port, cluster in (("42", WEST), ("4242", EAST)):
        ((target,),) = (chain.passthrough for chain in opened[port].chains)
        assert target.upstream == f"import/app/users/{port}:tcp/{cluster}"
        (endpoints,) = (e for e in found.snapshot.endpoint_sets if e.upstream == target.upstream)
        assert {entry.cluster for entry in endpoints.localities} <= {cluster}


POLICY = """
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {{name: told, namespace: app, generation: 2}}
spec:
  targetRef: {{group: multicluster.x-k8s.io, kind: ServiceImport, name: users{section}}}
  tracing:
    provider: {{backendRef: {{name: otel-collector, port: 4317}}}}
    samplingRate: 5
    customTags: [{{name: team, {tag}}}]
  accessLog: {{type: File, format: {{type: Text, text: "%METHOD%"}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: otel-collector, namespace: app}}
spec: {{ports: [{{port: 4317}}]}}
"""
TEAM = "literal: {value: users}"


def told(*ports: ServicePort, section: str = "", tag: str = TEAM) -> tuple[Any, str]:
    """What follows from a policy for an import with these ports, and why it is (not) accepted."""
    federation = view(export(EAST, *ports))
    federation = replace(federation, resolved=shares((EAST, 10_000)))
    text = POLICY.format(section=section, tag=tag)
    policy = decode_all(parse_documents(text, origin="test")).objects
    base = settled(federation)
    found = compiled(
        replace(base, objects={**base.objects, **{entry.key: entry for entry in policy}}),
        federation,
    )
    key = ObjectKey("gateway.networking.k8s.io", "ObservabilityPolicy", "app", "told")
    (ancestor,) = found.statuses[key].ancestors
    ref = ancestor.ancestor_ref
    assert (ref.group, ref.kind, ref.name) == (IMPORT.group, IMPORT.kind, IMPORT.name)
    (accepted,) = (entry for entry in ancestor.conditions if entry.type == "Accepted")
    return found, f"{accepted.status}: {accepted.message}"


def test_a_policy_for_an_import_says_what_its_calls_tell() -> None:
    found, accepted = told(GRPC, RAW)
    assert accepted == "True: "
    collector = "service/app/otel-collector/4317"
    opened = listeners(found)
    assert opened["9090"].telemetry == Telemetry(
        Tracing(collector, 50_000, (Tag("team", TagSource.LITERAL, "users"),)),
        (AccessLog(path="/dev/stdout", text="%METHOD%"),),
    )
    assert opened["42"].telemetry is None
    assert collector in {entry.name for entry in found.snapshot.upstreams}
    held = found.statuses[IMPORT].condition("gateway.networking.k8s.io/ObservabilityPolicyAffected")
    assert (held.status, held.reason) == ("True", "PolicyAffected")


def test_a_policy_for_connections_alone_says_that_it_tells_nothing() -> None:
    found, accepted = told(RAW)
    assert accepted == (
        "True: without effect: no port of ServiceImport app/users takes calls at this cluster's "
        "gateways"
    )
    assert listeners(found)["42"].telemetry is None


def test_who_owns_an_import_does_not_own_the_gateway() -> None:
    found, accepted = told(GRPC, tag="env: {name: SECRET}")
    assert accepted.startswith("False: spec.tracing.customTags[0].env: ")
    assert "a policy for a ServiceImport cannot read it" in accepted
    assert listeners(found)["9090"].telemetry is None
    _, accepted = told(GRPC, section=", sectionName: grpc")
    assert accepted == "False: spec.targetRef.sectionName: single ports cannot be targeted"


def test_a_port_stays_open_while_no_cluster_takes_calls() -> None:
    federation = view(export(EAST, GRPC, RAW))
    federation = replace(federation, resolved=shares())
    found = compiled(settled(federation), federation)
    opened = listeners(found)
    (table,) = (t for t in found.snapshot.route_tables if t.name == opened["9090"].route_table)
    assert isinstance(table.virtual_hosts[0].routes[0].action, Refuse)
    ((target,),) = (chain.passthrough for chain in opened["42"].chains)
    assert target.upstream == "unavailable"


def test_what_is_not_carried_stands_in_the_status() -> None:
    federation = view(export(EAST, GRPC, UDP))
    status = compiled(settled(federation), federation).statuses[IMPORT]
    condition = status.condition("PortsServed")
    assert (condition.status, condition.reason) == ("False", "UnsupportedProtocol")
    assert "port udp 42/UDP" in condition.message
    ready = status.condition("Ready")
    assert (ready.status, ready.reason) == ("True", "Ready")


def test_an_import_without_an_address_is_pending() -> None:
    federation = view(export(EAST, GRPC))
    state = derive(objects(), federation)
    status = compiled(objects(*state.imports.values()), federation).statuses[IMPORT]
    ready = status.condition("Ready")
    assert (ready.status, ready.reason) == ("False", "Pending")
    assert DERIVED.name in ready.message


def test_ports_that_are_used_up_stand_in_the_status() -> None:
    federation = view(export(EAST, GRPC, RAW))
    one = PortRange(20_000, 20_000)
    state = derive_state(WEST, objects(), federation, gateway_service=FRONT, ports=one)
    service = allocated(state.services[DERIVED], "10.96.1.1")
    found = objects(service, *state.imports.values())
    settings = CompileSettings(gateway_service=FRONT, import_ports=one)
    inputs = CompileInputs(WEST, Region("us-west"), found, federation, settings)
    result = compile_cluster(inputs)
    condition = result.statuses[IMPORT].condition("PortsServed")
    assert condition is not None
    assert condition.reason == "NoPortLeft"
    assert len(listeners(result)) == 1


def test_families_without_use_here_are_said() -> None:
    kubernetes = decode_all(
        parse_documents(
            "apiVersion: v1\nkind: Service\nmetadata: {name: kubernetes, namespace: default}\n"
            "spec: {ipFamilies: [IPv4], ports: [{port: 443}]}\n",
            origin="test",
        )
    ).objects
    fact = export(EAST, GRPC, type=ServiceType.HEADLESS, ip_families=("IPv6",))
    federation = view(fact)
    state = derive(objects(), federation)
    found = objects(*kubernetes, *state.imports.values())
    ready = compiled(found, federation).statuses[IMPORT].condition("Ready")
    assert (ready.status, ready.reason) == ("False", "IPFamilyNotSupported")
