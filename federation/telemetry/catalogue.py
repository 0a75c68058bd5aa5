"""Every metric of the control plane: name, kind, labels and meaning.

Decides: names and labels, for the scrape, the push by OTLP, the rules, the dashboards and the list
in the documentation alike.
Leaves to others: counting (``meters``), the numbers that are read when somebody asks (the services'
``observe`` modules).
Invariants: a process counts no name that is not here; no label has a value that only a client
thought up. Labels by service, drain, node or cluster have as many values as the clusterset has of
them, and at most ``NAMED_MAX`` by service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

NAMED_MAX: Final = 1000
"""Services with series of their own; those beyond it, by name, have none."""


# `gateway.metrics.catalogue` says why the gateway has one of its own.
@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric family, by its name as Prometheus shows it."""

    name: str
    """Of a counter with ``_total``."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """A base unit of Prometheus; empty for plain numbers."""


def _counter(name: str, text: str, *labels: str) -> MetricSpec:
    return MetricSpec(f"federation_{name}_total", "counter", text, labels)


def _gauge(name: str, text: str, *labels: str, unit: str = "") -> MetricSpec:
    return MetricSpec(f"federation_{name}", "gauge", text, labels, unit)


def _seconds(name: str, text: str) -> MetricSpec:
    return MetricSpec(f"federation_{name}_seconds", "histogram", text, (), "seconds")


# The agent.
OBJECTS: Final = _gauge("agent_objects", "Objects of the cluster that are read.", "kind")
OBJECTS_REJECTED: Final = _gauge(
    "agent_objects_rejected", "Objects whose newest version cannot be read.", "kind"
)
OBJECTS_HELD: Final = _gauge(
    "agent_objects_held", "Missing objects that routing still believes to be there."
)
WATCH_CURRENT: Final = _gauge(
    "agent_watch_current", "1 while what is known of a kind is current, else 0.", "kind"
)
WATCH_HEARD: Final = _gauge(
    "agent_watch_heard_timestamp_seconds",
    "When the API server last said something about a kind.",
    "kind",
    unit="seconds",
)
LISTS: Final = _counter("agent_lists", "Times that all objects of a kind were listed.", "kind")
WATCH_FAILURES: Final = _counter(
    "agent_watch_failures", "Lists and watches of a kind that failed.", "kind"
)
CLOCK_SKEW: Final = _gauge(
    "agent_clock_skew_seconds",
    "By how much the API server's clock is ahead of ours; differences below 5 s count as none.",
    unit="seconds",
)
COMPILATIONS: Final = _counter("agent_compilations", "Compilations of what gateways do.")
COMPILE_SECONDS: Final = _seconds("agent_compile", "Duration of a compilation.")
COMPILED: Final = _counter(
    "agent_compiled_pieces", "Pieces that compilations made anew, by kind.", "piece"
)
PUBLICATIONS: Final = _counter("agent_snapshots_published", "Snapshots published to gateways.")
GENERATION: Final = _gauge("agent_snapshot_generation", "Generation of the snapshot in force.")
GATEWAYS: Final = _gauge("agent_gateways_connected", "Connected xDS clients.", "kind")
GATEWAY_BEHIND: Final = _gauge(
    "agent_gateway_behind_seconds",
    "Time for which a connected gateway has not answered a publication; 0: it answered all.",
    "node",
    unit="seconds",
)
REFUSED: Final = _gauge(
    "agent_refused_resources", "Resources that connected gateways refuse now.", "kind"
)
REFUSALS: Final = _counter("agent_refusals", "Answers of gateways that refused resources.")
WRITES: Final = _counter(
    "agent_writes",
    "Writes to the cluster's API server: status or derived; result is ok, refused or failed.",
    "what",
    "result",
)
AGENT_LEADING: Final = _gauge("agent_leading", "1 while this agent writes for its cluster.")
STORE_REVISION: Final = _gauge("agent_store_revision", "Newest revision of etcd that was seen.")
STORE_HEARD: Final = _gauge(
    "agent_store_heard_timestamp_seconds",
    "When etcd last told news; signs of life of the clusters are news every few seconds.",
    unit="seconds",
)
PRESENT: Final = _gauge("agent_present", "1 while the cluster's heartbeat stands in etcd.")
FACTS: Final = _counter("agent_facts_published", "Commits of facts about this cluster to etcd.")
FACTS_FAILED: Final = _counter("agent_facts_failures", "Publications of facts that failed.")
TRAFFIC_REPORTS: Final = _counter(
    "agent_traffic_reports",
    "Reports of live traffic for etcd: result is written, or dropped since etcd did not take it.",
    "result",
)
QUARANTINED: Final = _gauge(
    "agent_quarantined_services",
    "Exported services whose disappearance is not believed, and so not published.",
)
EXPORTS: Final = _gauge("agent_exports", "Services that this cluster exports.")
IMPORTS: Final = _gauge("agent_imports", "Services of the clusterset, as this agent sees them.")
CONFLICTS: Final = _gauge(
    "agent_export_conflicts", "Own ServiceExports with the condition Conflict."
)
PEER_STALE: Final = _gauge(
    "agent_peer_stale_seconds",
    "Time for which another member has given no sign of life, as this agent sees it; 0: it does.",
    "peer",
    unit="seconds",
)

# The resolver.
LEADING: Final = _gauge("resolver_leading", "1 while this resolver leads.")
TERM: Final = _gauge("resolver_term", "Term of this resolver's lead; 0: it does not lead.")
DECISIONS: Final = _counter("resolver_decisions", "Steps of the leading resolver.")
DECISION_SECONDS: Final = _seconds("resolver_decision", "Duration of a step without its writes.")
DERIVED_WRITES: Final = _counter("resolver_writes", "Keys of derived state that were written.")
TERMS_LOST: Final = _counter(
    "resolver_terms_lost", "Times that a lead, or the way to one, was lost."
)
CLUSTERS: Final = _gauge("resolver_clusters", "Member clusters.")
STALE: Final = _gauge(
    "resolver_cluster_stale_seconds",
    "Time for which a member has given no sign of life; 0: it does.",
    "cluster",
    unit="seconds",
)
SERVICES: Final = _gauge(
    "resolver_services",
    "Services by state: as_asked, moved (weights in force are not those asked for), no_target.",
    "state",
)
NO_TARGET: Final = _gauge(
    "resolver_no_target",
    "1 for a service that callers of a region can reach nowhere; absent while they can.",
    "service",
    "source_region",
)
NO_FAILOVER: Final = _gauge(
    "resolver_no_failover_target",
    "1 for a service that has traffic from a region and nowhere to go if its cluster is lost, "
    "although several clusters export it; absent otherwise.",
    "service",
    "source_region",
)
TIER: Final = _gauge(
    "resolver_tier",
    "Tier in force for a region's calls: 0 where policy sends them, 1 where failover does, -1 "
    "nowhere.",
    "service",
    "source_region",
)
DRAIN_REMAINING: Final = _gauge(
    "resolver_drain_remaining_ratio", "Part of the weight that a drain leaves now.", "drain"
)
DRAIN_PHASE: Final = _gauge("resolver_drain_phase", "1 for a drain's phase.", "drain", "phase")
DRAIN_OVERDUE: Final = _gauge(
    "resolver_drain_overdue_seconds",
    "Time since the ramp and the grace of a drain were over without it being done; 0: they aren't.",
    "drain",
    unit="seconds",
)
DRAIN_STREAMS: Final = _gauge(
    "resolver_drain_streams_left",
    "Calls that go on at what a drain empties; absent while no gateway reports them.",
    "drain",
)
DRAINS_REFUSED: Final = _gauge(
    "resolver_drains_refused", "Drains asked for by objects that do not start."
)
STORED_PROBLEMS: Final = _gauge("resolver_unreadable_values", "Values in etcd that are skipped.")

# The DNS server.
DNS_QUERIES: Final = _counter(
    "dns_queries", "Messages that came, by what they were answered.", "transport", "rcode"
)
DNS_TRUNCATED: Final = _counter("dns_truncated_replies", "Datagrams that sent the client to TCP.")
DNS_REFUSED: Final = _counter(
    "dns_refused_connections", "Connections closed at once, since there were too many."
)

AGENT: Final[tuple[MetricSpec, ...]] = (
    OBJECTS,
    OBJECTS_REJECTED,
    OBJECTS_HELD,
    WATCH_CURRENT,
    WATCH_HEARD,
    LISTS,
    WATCH_FAILURES,
    CLOCK_SKEW,
    COMPILATIONS,
    COMPILE_SECONDS,
    COMPILED,
    PUBLICATIONS,
    GENERATION,
    GATEWAYS,
    GATEWAY_BEHIND,
    REFUSED,
    REFUSALS,
    WRITES,
    AGENT_LEADING,
    STORE_REVISION,
    STORE_HEARD,
    PRESENT,
    FACTS,
    FACTS_FAILED,
    TRAFFIC_REPORTS,
    QUARANTINED,
    EXPORTS,
    IMPORTS,
    CONFLICTS,
    PEER_STALE,
)
RESOLVER: Final[tuple[MetricSpec, ...]] = (
    LEADING,
    TERM,
    DECISIONS,
    DECISION_SECONDS,
    DERIVED_WRITES,
    TERMS_LOST,
    CLUSTERS,
    STALE,
    SERVICES,
    NO_TARGET,
    NO_FAILOVER,
    TIER,
    DRAIN_REMAINING,
    DRAIN_PHASE,
    DRAIN_OVERDUE,
    DRAIN_STREAMS,
    DRAINS_REFUSED,
    STORED_PROBLEMS,
)
DNS: Final[tuple[MetricSpec, ...]] = (DNS_QUERIES, DNS_TRUNCATED, DNS_REFUSED)

CATALOGUE: Final[tuple[MetricSpec, ...]] = (*AGENT, *RESOLVER, *DNS)
