"""Facts: what one agent observed about its own cluster and published for all.

Decides: the shape and the invariants of published facts.
Leaves to others: which objects they come from (``derive.exports``), where they are stored
(``wire.etcd``), what follows from them (``derive.resolve``).
Invariants: an agent writes facts about its own cluster only; endpoints never travel, counts do
(headless exports excepted); a fact outlives the heartbeat of the agent that wrote it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from federation.model.base import ClusterId, Region, ServiceName, Value
from federation.model.serving import EVERYTHING


class ServiceType(StrEnum):
    """Type of a clusterset service (KEP-1645)."""

    CLUSTER_SET_IP = "ClusterSetIP"
    HEADLESS = "Headless"


class ServicePort(Value):
    """One exported port. ``app_protocol`` is as in the Service; ``None`` means unset."""

    name: str = ""
    port: int = Field(ge=1, le=65535)
    protocol: str = "TCP"
    app_protocol: str | None = None


class Member(Value):
    """A cluster that joined: written once; of two that claim one name the first has it.

    ``instance`` identifies the owner of the name: the agent's persistent identity, kept in its
    state directory, so that a restarted agent finds its own entry and a stranger is refused.
    ``leader`` is the term of the one that leads of several agents of the cluster, empty where there
    is one alone: what a former leader still writes is refused by it.
    """

    cluster: ClusterId
    region: Region
    instance: str
    leader: str = Field(default="", exclude_if=operator.not_)


class Departed(Value):
    """A cluster that an operator took out of the federation.

    Says that what it exported is gone, which the mere absence of its keys does not say: a store
    that was restored empty lacks them, too. Of no meaning once the cluster is a member again.
    """

    cluster: ClusterId


class Heartbeat(Value):
    """Liveness of a cluster's agent, under a lease; its end means ``Stale`` and moves no traffic.

    ``seen_revision`` is the newest store revision the agent has consumed: a canary against an agent
    that is connected but deaf. ``degraded`` is what its cluster does without at present.
    ``sent_ms`` is the agent's Unix time in milliseconds as it was sent (0: not told): it shows
    clocks that disagree, and nothing rests on it.
    """

    cluster: ClusterId
    instance: str
    seen_revision: int
    version: str
    gateways_connected: int = 0
    degraded: tuple[str, ...] = ()
    sent_ms: int = Field(default=0, ge=0, exclude_if=operator.not_)


class PeerGateway(Value):
    """An east-west entrance of a cluster: ``address`` is ``host:port`` as peers reach it."""

    name: str
    address: str


class ClusterGateways(Value):
    """All east-west entrances of a cluster. Kept while gateways restart; empty is not believed."""

    cluster: ClusterId
    region: Region
    gateways: tuple[PeerGateway, ...]


class ExportFact(Value):
    """One exported service of one cluster, as a summary.

    ``ready`` and ``total`` count endpoints; ``capacity`` is the ready capacity used for weights
    (default: ``ready``). ``labels`` and ``annotations`` are those that the export names for the
    import (``exportedLabels``). ``create_revision`` is assigned by etcd when the fact is read back
    and decides precedence between clusters; it is 0 in a fact that was not stored yet.
    """

    cluster: ClusterId
    region: Region
    service: ServiceName
    type: ServiceType = ServiceType.CLUSTER_SET_IP
    ports: tuple[ServicePort, ...]
    ready: int = Field(ge=0)
    total: int = Field(ge=0)
    capacity: int = Field(ge=0)
    session_affinity: str = "None"
    session_affinity_timeout_s: int | None = None
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None
    ip_families: tuple[str, ...] = ()
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    exported_at: str | None = None
    create_revision: int = 0


class SlicePort(Value):
    """A port of all endpoints of a slice; ``port`` ``None`` means every port."""

    name: str = ""
    port: int | None = Field(default=None, ge=1, le=65535)
    protocol: str = "TCP"
    app_protocol: str | None = None


class SliceEndpoint(Value):
    """An endpoint of a headless export, as its cluster's EndpointSlice has it."""

    addresses: tuple[str, ...]
    hostname: str | None = None
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone: str | None = None


class EndpointsFact(Value):
    """One EndpointSlice of a headless export: clients are to see its endpoints themselves.

    ``name`` is the slice's in its own cluster. Not under the seal: endpoints come and go, and a
    slice that is missing for a moment hides its own endpoints alone.
    """

    cluster: ClusterId
    service: ServiceName
    name: str
    address_type: str
    ports: tuple[SlicePort, ...] = ()
    endpoints: tuple[SliceEndpoint, ...] = ()


class ClusterWeight(Value):
    """A line of ``clusterBackends``: ``target`` names a cluster or a region."""

    target: str
    weight: int = Field(ge=0, le=1_000_000)


class FailoverRule(Value):
    """RegionFailover: what ``source`` cannot take of its traffic goes to ``target``."""

    source: str
    target: str


class ServicePolicyFact(Value):
    """What one cluster's objects ask of one import: weights (MultiClusterService) and failover.

    ``service`` is the exported service that the import means in that cluster. ``weights`` is
    ``None`` where no MultiClusterService speaks; ``origin`` names the objects, for reasons.
    """

    cluster: ClusterId
    service: ServiceName
    import_name: str
    weights: tuple[ClusterWeight, ...] | None = None
    weights_origin: str = ""
    failover: tuple[FailoverRule, ...] = ()
    failover_origin: str = ""
    create_revision: int = 0


class Quarantine(Value):
    """A shrink not believed: ``missing`` exports were in the store but not in the source."""

    missing: tuple[ServiceName, ...]
    reason: str
    since: str


class AcceptedShrink(Value):
    """An operator's word that ``missing`` exports of a quarantined shrink are meant to be gone.

    The cluster's agent takes it as a deletion that was seen, once, and removes it.
    """

    cluster: ClusterId
    missing: tuple[ServiceName, ...]
    requested_by: str = ""


class FactsManifest(Value):
    """Seal over a cluster's exports: lets a reader see that its view is complete.

    ``epoch`` rises with every publication by one agent identity; ``checksum`` is SHA-256 over the
    sorted export keys and values, hexadecimal.
    """

    cluster: ClusterId
    epoch: int
    count: int
    checksum: str
    quarantine: Quarantine | None = None


class AgentRefusal(Value):
    """A resource that a gateway refused, as in ``model.acks``; the message is cut."""

    kind: str
    name: str
    message: str


class AgentNode(Value):
    """A gateway connected to an agent, as in ``model.acks``.

    ``current``: it has answered all of the newest publication.
    """

    node: str
    kind: str
    current: bool
    eastwest_address: str | None = None
    address: str | None = None
    port_offset: int = 0
    serves: str = EVERYTHING
    refused: tuple[AgentRefusal, ...] = ()


class AgentView(Value):
    """What one of several agents of a cluster tells the others of it, under a lease.

    ``configured`` stands for the objects that its newest publication was made of; ``nodes`` are the
    gateways connected to it, ``left`` those that took their leave there.
    """

    identity: str
    configured: str = ""
    nodes: tuple[AgentNode, ...] = ()
    left: tuple[str, ...] = ()
