"""Upstreams: the groups of endpoints that routes lead to.

Decides: names of upstreams, their endpoints with priorities, draining, and their policy's settings.
Leaves to others: which upstreams a rule uses (``rules``), shares and failover order
(``derive.resolve``, read from the view).
Invariants: an upstream is shared by all rules under one policy, so that health is known once;
priorities have no gaps; endpoints of other clusters are their gateways, never their servers; the
draining of a cluster shows in imports alone, its own Services go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from federation.derive.compile.backends import port_of
from federation.derive.compile.balancing import balancing_of, outlier_of
from federation.derive.compile.endpoints import is_address, service_endpoints
from federation.derive.compile.index import Index
from federation.derive.compile.inputs import spiffe_id
from federation.derive.compile.policies import (
    connect_timeout_of,
    limits_of,
    probe_of,
)
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.objects import BackendTrafficPolicy
from federation.model.resolved import (
    FULL_SHARE_BP,
    ClusterDrain,
    ClusterShare,
    DrainPhase,
    ResolvedService,
    Tier,
)
from federation.model.snapshot import (
    Endpoint,
    EndpointSet,
    HealthCheck,
    LocalityEndpoints,
    PeerTls,
    Protocol,
    Upstream,
)

UNAVAILABLE = "unavailable"
"""Name of the upstream without endpoints, where the share of invalid references goes."""


INVALID = "invalid"
"""The same for HTTPRoutes, where the Gateway API asks for 500 instead of 503."""


class UpstreamKind(StrEnum):
    """Where an upstream's endpoints come from."""

    SERVICE = "service"
    """A Service of this cluster, for this cluster's callers."""
    IMPORT = "import"
    """A clusterset service, aimed at one cluster, with its failover order."""
    LOCAL = "local"
    """A Service of this cluster, for callers of other clusters."""


@dataclass(frozen=True, slots=True, order=True)
class UpstreamRef:
    """Identity of an upstream; ``target`` is the cluster aimed at, of an import only."""

    kind: UpstreamKind
    namespace: str
    service: str
    port: int
    target: str = ""
    policy: str = ""
    protocol: Protocol = Protocol.HTTP2

    @property
    def name(self) -> str:
        """The upstream's name: path of its identity, then ``@`` and the policy if there is one."""
        port = str(self.port)
        if self.protocol is not Protocol.HTTP2:
            port = f"{port}:{self.protocol}"
        parts = [self.kind.value, self.namespace, self.service, port]
        path = "/".join([*parts, self.target] if self.target else parts)
        return f"{path}@{self.policy}" if self.policy else path

    @property
    def service_name(self) -> ServiceName:
        """The Service meant."""
        return ServiceName(namespace=self.namespace, name=self.service)


def upstream_ref(
    kind: UpstreamKind,
    service: ServiceName,
    port: int,
    *,
    target: str = "",
    policy: BackendTrafficPolicy | None = None,
    protocol: Protocol = Protocol.HTTP2,
) -> UpstreamRef:
    """The identity of an upstream under ``policy``, whose servers speak ``protocol``."""
    return UpstreamRef(
        kind=kind,
        namespace=service.namespace,
        service=service.name,
        port=port,
        target=target,
        policy=policy.key.qualified_name if policy is not None else "",
        protocol=protocol,
    )


def shares_of(index: Index, service: ServiceName, port: int) -> tuple[ClusterShare, ...]:
    """Where calls to ``port`` of a clusterset service go from here, clusters without it left out.

    The share of a cluster without the port goes where its failover order sends it; with no such
    order the others' shares stand for it. Before the resolver has spoken for this region, the own
    cluster serves what it exports itself.
    """
    resolved = index.view.resolved.get(service)
    source = resolved.source(index.region) if resolved is not None else None
    shares = source.shares if source is not None else _own_share(index)
    found = {s.cluster: s for s in shares if _exposes(index, service, port, s.cluster)}
    for share in shares:
        if share.cluster not in found and share.weight_bp:
            _hand_on(index, service, port, share, found)
    return tuple(found[cluster] for cluster in sorted(found))


def _hand_on(
    index: Index,
    service: ServiceName,
    port: int,
    share: ClusterShare,
    found: dict[ClusterId, ClusterShare],
) -> None:
    """Give ``share``, of a cluster without ``port``, to the first tier behind it that has it."""
    tiers = [
        [member for member in tier.members if _exposes(index, service, port, member.cluster)]
        for tier in share.failover
    ]
    members = next((tier for tier in tiers if tier), [])
    whole = sum(member.weight for member in members)
    for member in members:
        held = found.get(member.cluster)
        weight = (held.weight_bp if held is not None else 0) + max(
            1, share.weight_bp * member.weight // whole
        )
        base = held or ClusterShare(
            cluster=member.cluster,
            region=_region(index, member.cluster),
            weight_asked_bp=0,
            weight_bp=0,
            failover=_without(share.failover, member.cluster),
            reasons=(),
        )
        found[member.cluster] = base.model_copy(update={"weight_bp": min(weight, FULL_SHARE_BP)})


def _without(tiers: tuple[Tier, ...], cluster: ClusterId) -> tuple[Tier, ...]:
    left = (
        tier.model_copy(update={"members": tuple(m for m in tier.members if m.cluster != cluster)})
        for tier in tiers
    )
    return tuple(tier for tier in left if tier.members)


def _own_share(index: Index) -> tuple[ClusterShare, ...]:
    own = ClusterShare(
        cluster=index.cluster,
        region=index.region,
        weight_asked_bp=FULL_SHARE_BP,
        weight_bp=FULL_SHARE_BP,
        failover=(),
        reasons=(),
    )
    return (own,)


def _exposes(index: Index, service: ServiceName, port: int, cluster: ClusterId) -> bool:
    fact = index.exports(service).get(cluster)
    return fact is not None and any(entry.port == port for entry in fact.ports)


Built = tuple[Upstream, EndpointSet]
"""An upstream and its endpoints."""


def unavailable() -> Built:
    """The upstream without endpoints."""
    empty = EndpointSet(upstream=UNAVAILABLE, localities=())
    return Upstream(name=UNAVAILABLE, connect_timeout_ms=1_000), empty


def invalid() -> Built:
    """The upstream without endpoints for HTTPRoutes."""
    empty = EndpointSet(upstream=INVALID, localities=())
    return Upstream(name=INVALID, connect_timeout_ms=1_000, empty_status=500), empty


def build_upstream(index: Index, ref: UpstreamRef) -> Built:
    """The upstream of ``ref`` and its endpoints."""
    match ref.kind:
        case UpstreamKind.SERVICE | UpstreamKind.LOCAL:
            levels: Sequence[_Level] = (((index.cluster, 1),),)
            draining = {}
        case UpstreamKind.IMPORT:
            levels = _levels(index, ref)
            draining = _draining(index.view.resolved.get(ref.service_name))
        case _:
            assert_never(ref.kind)
    localities = _localities(index, ref, levels, draining)
    return _upstream(index, ref), EndpointSet(upstream=ref.name, localities=localities)


_Level = tuple[tuple[ClusterId, int], ...]
"""Clusters of one failover level with their weights."""


def _levels(index: Index, ref: UpstreamRef) -> tuple[_Level, ...]:
    shares = shares_of(index, ref.service_name, ref.port)
    tiers = next((share.failover for share in shares if share.cluster == ref.target), ())
    later = (
        tuple(
            (member.cluster, member.weight)
            for member in sorted(tier.members, key=lambda member: member.cluster)
            if _exposes(index, ref.service_name, ref.port, member.cluster)
        )
        for tier in tiers
    )
    return (((ClusterId(ref.target), 1),), *later)


def _draining(resolved: ResolvedService | None) -> dict[ClusterId, ClusterDrain]:
    # While a drain ramps, weights fall and nobody is asked to leave yet.
    drains = resolved.drains if resolved is not None else ()
    return {drain.cluster: drain for drain in drains if drain.phase is not DrainPhase.RAMPING}


def _localities(
    index: Index,
    ref: UpstreamRef,
    levels: Sequence[_Level],
    draining: dict[ClusterId, ClusterDrain],
) -> tuple[LocalityEndpoints, ...]:
    found: list[LocalityEndpoints] = []
    priority = 0
    for level in levels:
        members = [
            LocalityEndpoints(
                cluster=cluster,
                region=_region(index, cluster),
                priority=priority,
                weight=weight,
                endpoints=_drained(endpoints, draining.get(cluster)),
            )
            for cluster, weight in level
            if (endpoints := _endpoints(index, ref, cluster))
        ]
        found += members
        priority += bool(members)
    return tuple(found)


def _region(index: Index, cluster: ClusterId) -> Region:
    if cluster in index.regions:
        return index.regions[cluster]
    gateways = index.view.gateways.get(cluster)
    return gateways.region if gateways is not None else Region("")


def _endpoints(index: Index, ref: UpstreamRef, cluster: ClusterId) -> tuple[Endpoint, ...]:
    if cluster != index.cluster:
        return _peer_gateways(index, cluster)
    service = index.service(ref.service_name)
    port = port_of(service, ref.port) if service is not None else None
    return () if port is None else service_endpoints(index, ref.service_name, port)


def _peer_gateways(index: Index, cluster: ClusterId) -> tuple[Endpoint, ...]:
    gateways = index.view.gateways.get(cluster)
    addresses = {gateway.address for gateway in gateways.gateways} if gateways else set()
    parsed = (_host_and_port(address) for address in addresses)
    return tuple(
        Endpoint(host=host, port=port, peer=True) for host, port in sorted(filter(None, parsed))
    )


def _host_and_port(address: str) -> tuple[str, int] | None:
    # Names are resolved by the agent that publishes them; what is still a name leads nowhere.
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    valid = port.isascii() and port.isdigit() and 0 < int(port) < 65536 and is_address(host)
    return (host, int(port)) if valid else None


def _drained(endpoints: tuple[Endpoint, ...], drain: ClusterDrain | None) -> tuple[Endpoint, ...]:
    if drain is None:
        return endpoints
    return tuple(
        replace(entry, draining=True, drain_grace_ms=drain.grace_ms) for entry in endpoints
    )


def _upstream(index: Index, ref: UpstreamRef) -> Upstream:
    settings = index.settings
    policy = _policy(index, ref)
    imported = ref.kind is UpstreamKind.IMPORT
    default_ms = (
        settings.import_connect_timeout_ms if imported else settings.service_connect_timeout_ms
    )
    return Upstream(
        name=ref.name,
        connect_timeout_ms=connect_timeout_of(policy, default_ms),
        protocol=ref.protocol,
        balancing=balancing_of(policy),
        outlier=outlier_of(policy),
        limits=limits_of(policy),
        health_check=_probe(policy, ref),
        peer_tls=_peer_tls(index, ref) if imported else None,
        peer_keepalive=settings.peer_keepalive if imported else None,
        peers_first=imported and ref.target != index.cluster,
    )


def _probe(policy: BackendTrafficPolicy | None, ref: UpstreamRef) -> HealthCheck | None:
    probe = probe_of(policy)
    if probe is None or ref.kind is not UpstreamKind.IMPORT:
        return probe
    return replace(probe, destination=destination(ref.service_name, ref.port))


def destination(service: ServiceName, port: int) -> str:
    """What a peer's gateway is told to reach, in the header ``x-federation-destination``."""
    return f"{service}:{port}"


def _policy(index: Index, ref: UpstreamRef) -> BackendTrafficPolicy | None:
    namespace, _, name = ref.policy.partition("/")
    return index.objects.get(BackendTrafficPolicy, namespace, name) if name else None


def tcp_server_name(index: Index, service: ServiceName, port: int) -> str:
    """What a peer's gateway is told to reach where no header can say it: TLS's server name."""
    return f"p{port}.{service.name}.{service.namespace}.tcp.{index.settings.trust_domain}"


def _peer_tls(index: Index, ref: UpstreamRef) -> PeerTls:
    """The identities of all other members, whether they are endpoints now or not.

    It depends on membership alone, so that endpoints that come and go never need another upstream:
    the two travel apart, and endpoints that overtake their upstream would be refused. Without
    others it names the own cluster, which no peer is, since an empty list would let in anybody.
    """
    domain = index.settings.trust_domain
    peers = sorted(index.regions.keys() - {index.cluster}) or [index.cluster]
    return PeerTls(
        allowed_spiffe=tuple(spiffe_id(domain, cluster) for cluster in peers),
        sni=tcp_server_name(index, ref.service_name, ref.port)
        if ref.protocol is Protocol.TCP
        else f"east-west.{domain}",
    )
