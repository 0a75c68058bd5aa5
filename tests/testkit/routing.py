"""Builders for what the compile step reads: objects of a cluster and the federation's state.

Decides: defaults of a small federation (`us-west-1` is the own cluster), ages by position.
Leaves to others: what follows from it.
Invariants: everything built is an ordinary value of the model, parsed as users' manifests are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from federation.derive.compile import Compiled, CompileInputs, CompileSettings, compile_cluster
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.conditions import Condition
from federation.model.facts import (
    ClusterGateways,
    ExportFact,
    Member,
    PeerGateway,
    ServicePolicyFact,
    ServicePort,
)
from federation.model.objects import ApiObject, EndpointSlice, ObjectSnapshot, Secret, Service
from federation.model.resolved import (
    FULL_SHARE_BP,
    ClusterDrain,
    ClusterShare,
    Reason,
    ReasonCode,
    ResolvedService,
    SourceResolution,
    Tier,
    TierMember,
)
from federation.model.snapshot import Route
from federation.model.view import FederationView
from federation.wire.manifest_yaml import parse_documents
from federation.wire.manifests import decode_all

WEST, EAST = ClusterId("us-west-1"), ClusterId("us-east-1")
USERS = ServiceName(namespace="app", name="user-service")


def parse(text: str) -> tuple[ApiObject, ...]:
    """The objects of a YAML text; a rejected one is an error of the test."""
    decoded = decode_all(parse_documents(text, origin="test.yaml"))
    assert not decoded.rejected, decoded.rejected
    return decoded.objects


def aged(objects: Iterable[ApiObject]) -> tuple[ApiObject, ...]:
    """``objects`` with their position as age, the first being the oldest."""
    return tuple(entry.with_creation_order(age) for age, entry in enumerate(objects, start=1))


def snapshot_of(objects: Iterable[ApiObject]) -> ObjectSnapshot:
    """A synced snapshot of ``objects`` as they are."""
    return ObjectSnapshot(objects={entry.key: entry for entry in objects}, synced=True)


def service(
    name: str, endpoints: Sequence[str] = ("10.0.0.1:8080",), *, port: int = 9090
) -> tuple[ApiObject, ...]:
    """Service ``NAMESPACE/NAME`` with a slice of ready ``endpoints`` (one slice for each port)."""
    namespace, _, plain = name.partition("/")
    numbers = sorted({int(address.rpartition(":")[2]) for address in endpoints})
    slices = [
        EndpointSlice.model_validate(
            {
                "metadata": {
                    "name": f"{plain}-{number}",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": plain},
                },
                "endpoints": [
                    {"addresses": [address.rpartition(":")[0].strip("[]")]}
                    for address in endpoints
                    if address.endswith(f":{number}")
                ],
                "ports": [{"port": number}],
            }
        )
        for number in numbers
    ]
    source = Service.model_validate(
        {"metadata": {"name": plain, "namespace": namespace}, "spec": {"ports": [{"port": port}]}}
    )
    return (source, *slices)


@cache
def key_pair() -> tuple[bytes, bytes]:
    """A certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "grpc.example.com")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate(name: str) -> Secret:
    """A usable certificate in Secret ``NAMESPACE/NAME``."""
    namespace, _, plain = name.partition("/")
    chain, key = key_pair()
    return Secret.model_validate(
        {
            "metadata": {"name": plain, "namespace": namespace},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": chain.decode(), "tls.key": key.decode()},
        }
    )


def export(
    cluster: ClusterId,
    service: ServiceName = USERS,
    *,
    ready: int = 2,
    port: int = 9090,
    create_revision: int = 1,
) -> ExportFact:
    """An export of ``service`` by ``cluster``."""
    return ExportFact(
        cluster=cluster,
        region=Region(cluster),
        service=service,
        ports=(ServicePort(port=port),),
        ready=ready,
        total=2,
        capacity=ready,
        create_revision=create_revision,
    )


def share(
    cluster: ClusterId, weight_bp: int, *failover: Sequence[ClusterId] | ClusterId
) -> ClusterShare:
    """A share of ``cluster`` with one tier for each further argument."""
    tiers = [[entry] if isinstance(entry, str) else list(entry) for entry in failover]
    reason = Reason(code=ReasonCode.EXPLICIT_WEIGHT, message="as asked")
    return ClusterShare(
        cluster=cluster,
        region=Region(cluster),
        weight_asked_bp=weight_bp,
        weight_bp=weight_bp,
        failover=tuple(
            Tier(
                members=tuple(TierMember(cluster=member, weight=1) for member in tier),
                reason=reason,
            )
            for tier in tiers
        ),
        reasons=(reason,),
    )


def resolved(
    *shares: ClusterShare, service: ServiceName = USERS, drains: Sequence[ClusterDrain] = ()
) -> ResolvedService:
    """A resolution of ``service`` for callers in us-west-1."""
    source = SourceResolution(region=Region(WEST), shares=shares)
    return ResolvedService(service=service, sources=(source,), drains=tuple(drains))


def view(
    *,
    clusters: Sequence[ClusterId] = (WEST, EAST),
    exports: Sequence[ExportFact] = (),
    services: Sequence[ResolvedService] = (),
    policies: Sequence[ServicePolicyFact] = (),
) -> FederationView:
    """The federation: every cluster is a member of the region of its name, with two gateways."""
    by_service: dict[ServiceName, dict[ClusterId, ExportFact]] = {}
    for fact in exports:
        by_service.setdefault(fact.service, {})[fact.cluster] = fact
    asked: dict[ServiceName, dict[ClusterId, ServicePolicyFact]] = {}
    for policy in policies:
        asked.setdefault(policy.service, {})[policy.cluster] = policy
    return FederationView(
        members={
            name: Member(cluster=name, region=Region(name), instance=name) for name in clusters
        },
        gateways={
            name: ClusterGateways(
                cluster=name,
                region=Region(name),
                gateways=tuple(
                    PeerGateway(name=f"gw-{number}", address=f"10.{place + 1}.0.{number}:15444")
                    for number in (1, 2)
                ),
            )
            for place, name in enumerate(clusters)
        },
        exports=by_service,
        policies=asked,
        resolved={entry.service: entry for entry in services},
    )


EVEN = view(
    exports=(export(WEST), export(EAST, create_revision=2)),
    services=(resolved(share(WEST, 6000, EAST), share(EAST, 4000, WEST)),),
)
"""Users served by both clusters, 60 to 40, each the other's failover."""


def compiled(
    objects: Iterable[ApiObject] | str,
    federation: FederationView | None = None,
    settings: CompileSettings | None = None,
) -> Compiled:
    """``objects`` compiled for us-west-1; their ages are their positions."""
    source = parse(objects) if isinstance(objects, str) else objects
    return compile_cluster(
        CompileInputs(
            cluster=WEST,
            region=Region(WEST),
            objects=snapshot_of(aged(source)),
            view=federation or FederationView(),
            settings=settings or CompileSettings(),
        )
    )


def routes_of(result: Compiled, host: str, *, table: str = "infra/grpc-gateway/443") -> list[Route]:
    """The routes that answer for ``host``, in order of precedence."""
    tables = {entry.name: entry for entry in result.snapshot.route_tables}
    hosts = {entry.hostname: entry for entry in tables[table].virtual_hosts}
    return list(hosts[host].routes)


def spelled(conditions: Iterable[Condition]) -> Mapping[str, str]:
    """Conditions by type as ``STATUS/REASON``."""
    return {entry.type: f"{entry.status.value}/{entry.reason}" for entry in conditions}


SHARE_ALL = FULL_SHARE_BP
