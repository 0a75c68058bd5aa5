"""Where everything stands in the store: one function for each kind of key.

Decides: the layout below the prefix. What makes up the federation's view stands below ``state/``,
so that one mirror reads it all at one revision; objects and statuses stand beside it, since only
their own cluster reads them::

    state/members/C  state/heartbeats/C  state/gateways/C       of cluster C's agent
    state/departed/C                                            of who took C out
    state/facts/C/manifest  state/facts/C/exports/NS/SERVICE
    state/facts/C/policies/NS/SERVICE/IMPORT  state/facts/C/accepted-shrink
    state/facts/C/endpoints/NS/SERVICE/SLICE                    of headless exports alone
    state/facts/C/drains/NAME                                   what C's Drain objects ask for
    state/drains/NAME  state/drain-states/NAME|C:NAME           of operators; of the resolver
    state/resolved/manifest  state/resolved/services/NS/NAME    of the resolver
    agents/C/IDENTITY                                           of each of several agents of C
    traffic/C                                                   of cluster C's leading agent
    objects/C/GROUP|core/KIND/NS|_/NAME  statuses/...           the universal source
    elections/resolver/...

Leaves to others: values (``wire.etcd``).
Invariants: each part of a key is a DNS name, two with a colon between (a drain of a cluster's
object) or ``_``, so a key splits at slashes in one way only; what one cluster writes is under
prefixes that name it, so that an etcd role can be bound to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.model.base import ClusterId, ServiceName
from federation.model.objects import ObjectKey

_CORE = "core"
_NONE = "_"


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys below ``prefix``, which ends with a slash."""

    prefix: str = "/federation/v1/"

    def __post_init__(self) -> None:
        if not self.prefix.endswith("/"):
            raise ValueError(f'prefix "{self.prefix}" must end with a slash')

    @property
    def state(self) -> str:
        """Prefix of the whole federation view."""
        return f"{self.prefix}state/"

    @property
    def resolver_election(self) -> str:
        """The election of the leading resolver."""
        return f"{self.prefix}elections/resolver"

    def member(self, cluster: ClusterId) -> str:
        """The claim of a cluster's name."""
        return f"{self.state}members/{cluster}"

    def departed(self, cluster: ClusterId) -> str:
        """The word that a cluster was taken out."""
        return f"{self.state}departed/{cluster}"

    def heartbeat(self, cluster: ClusterId) -> str:
        """Liveness of a cluster's agent."""
        return f"{self.state}heartbeats/{cluster}"

    def gateways(self, cluster: ClusterId) -> str:
        """East-west addresses of a cluster."""
        return f"{self.state}gateways/{cluster}"

    def facts(self, cluster: ClusterId) -> str:
        """Prefix of a cluster's facts."""
        return f"{self.state}facts/{cluster}/"

    def manifest(self, cluster: ClusterId) -> str:
        """The seal over a cluster's exports."""
        return f"{self.facts(cluster)}manifest"

    def accepted_shrink(self, cluster: ClusterId) -> str:
        """An operator's word on a quarantined shrink; its agent removes it."""
        return f"{self.facts(cluster)}accepted-shrink"

    def exports(self, cluster: ClusterId) -> str:
        """Prefix of a cluster's exports."""
        return f"{self.facts(cluster)}exports/"

    def export(self, cluster: ClusterId, service: ServiceName) -> str:
        """One exported service."""
        return f"{self.exports(cluster)}{service}"

    def endpoints(self, cluster: ClusterId, service: ServiceName, slice_name: str) -> str:
        """One EndpointSlice of a headless export."""
        return f"{self.facts(cluster)}endpoints/{service}/{slice_name}"

    def policy(self, cluster: ClusterId, service: ServiceName, import_name: str) -> str:
        """What a cluster asks of one import."""
        return f"{self.facts(cluster)}policies/{service}/{import_name}"

    def agents(self, cluster: ClusterId) -> str:
        """Prefix of what the agents of a cluster tell each other."""
        return f"{self.prefix}agents/{cluster}/"

    def agent(self, cluster: ClusterId, identity: str) -> str:
        """What one agent tells the others of its cluster."""
        return f"{self.agents(cluster)}{identity}"

    @property
    def traffic(self) -> str:
        """Prefix of the clusters' traffic reports."""
        return f"{self.prefix}traffic/"

    def traffic_of(self, cluster: ClusterId) -> str:
        """The live traffic of a cluster."""
        return f"{self.traffic}{cluster}"

    def drain(self, name: str) -> str:
        """An operator's drain."""
        return f"{self.state}drains/{name}"

    def requested_drain(self, cluster: ClusterId, name: str) -> str:
        """What the Drain object ``name`` of a cluster asks for."""
        return f"{self.facts(cluster)}drains/{name}"

    def drain_state(self, name: str) -> str:
        """Progress of a drain."""
        return f"{self.state}drain-states/{name}"

    @property
    def resolved_services(self) -> str:
        """Prefix of resolved services."""
        return f"{self.state}resolved/services/"

    def resolved(self, service: ServiceName) -> str:
        """The resolution of one service."""
        return f"{self.resolved_services}{service}"

    @property
    def resolved_manifest(self) -> str:
        """The seal over resolved services."""
        return f"{self.state}resolved/manifest"

    @property
    def all_objects(self) -> str:
        """Prefix of the objects of all clusters."""
        return f"{self.prefix}objects/"

    def objects(self, cluster: ClusterId) -> str:
        """Prefix of a cluster's objects."""
        return f"{self.all_objects}{cluster}/"

    def object(self, cluster: ClusterId, key: ObjectKey) -> str:
        """One object."""
        return f"{self.objects(cluster)}{_object_path(key)}"

    @property
    def all_statuses(self) -> str:
        """Prefix of the statuses of all clusters."""
        return f"{self.prefix}statuses/"

    def statuses(self, cluster: ClusterId) -> str:
        """Prefix of a cluster's statuses."""
        return f"{self.all_statuses}{cluster}/"

    def status(self, cluster: ClusterId, key: ObjectKey) -> str:
        """The status of one object."""
        return f"{self.statuses(cluster)}{_object_path(key)}"

    def of_cluster(self, cluster: ClusterId) -> tuple[str, ...]:
        """All that is a cluster's own: keys, and prefixes, which end with a slash."""
        return (
            self.member(cluster),
            self.heartbeat(cluster),
            self.gateways(cluster),
            self.facts(cluster),
            self.agents(cluster),
            self.traffic_of(cluster),
            self.objects(cluster),
            self.statuses(cluster),
        )

    def object_key(self, cluster: ClusterId, stored: str) -> ObjectKey | None:
        """The object that a key below ``objects`` or ``statuses`` of ``cluster`` is about."""
        for prefix in (self.objects(cluster), self.statuses(cluster)):
            parts = stored.removeprefix(prefix).split("/")
            if stored.startswith(prefix) and len(parts) == 4 and all(parts):
                group, kind, namespace, name = parts
                return ObjectKey(
                    "" if group == _CORE else group,
                    kind,
                    "" if namespace == _NONE else namespace,
                    name,
                )
        return None


def _object_path(key: ObjectKey) -> str:
    return f"{key.group or _CORE}/{key.kind}/{key.namespace or _NONE}/{key.name}"
