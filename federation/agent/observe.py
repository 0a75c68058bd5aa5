"""What an agent shows of itself when somebody asks: gauges from its cells.

Decides: which numbers follow from what is known now.
Leaves to others: counting (where things happen), serving (``cli.health``).
Invariants: reads values that do not change; labels are bounded by kinds, connected nodes, members.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator

from federation.agent.published import Publications
from federation.agent.routing import Routing
from federation.agent.state import ClusterObjects, FederationState
from federation.aio import Latest
from federation.model.acks import AckView
from federation.model.base import ClusterId
from federation.model.conditions import ConditionStatus
from federation.model.objects import ObjectKey
from federation.telemetry import MetricSpec, Sample, catalogue

OBSERVED: tuple[MetricSpec, ...] = (
    catalogue.OBJECTS,
    catalogue.OBJECTS_REJECTED,
    catalogue.GENERATION,
    catalogue.GATEWAYS,
    catalogue.GATEWAY_BEHIND,
    catalogue.REFUSED,
    catalogue.EXPORTS,
    catalogue.IMPORTS,
    catalogue.CONFLICTS,
    catalogue.PEER_STALE,
)


def observe(
    cluster: ClusterId,
    *,
    objects: Latest[ClusterObjects],
    federation: Latest[FederationState],
    routing: Latest[Routing],
    acks: Latest[AckView],
    publications: Publications,
) -> Iterator[Sample]:
    """All gauges of ``OBSERVED`` as they are now."""
    if objects.value is not None:
        shown = objects.value.shown
        yield from _by_kind(catalogue.OBJECTS, shown.objects)
        yield from _by_kind(catalogue.OBJECTS_REJECTED, shown.rejected)
    if routing.value is not None:
        yield catalogue.GENERATION, (), float(routing.value.generation)
        yield catalogue.CONFLICTS, (), float(_conflicts(routing.value))
    if federation.value is not None:
        view = federation.value.view
        own = sum(cluster in constituents for constituents in view.exports.values())
        yield catalogue.EXPORTS, (), float(own)
        yield catalogue.IMPORTS, (), float(len(view.exports))
        for member in sorted(set(view.members) - {cluster}):
            since_s = view.stale_since.get(member)
            silent_s = max(time.time() - since_s, 0.0) if since_s is not None else 0.0
            yield catalogue.PEER_STALE, (member,), silent_s
    nodes = (acks.value or AckView()).nodes
    kinds = Counter(node.kind for node in nodes)
    for kind in ("gateway", "envoy"):
        yield catalogue.GATEWAYS, (kind,), float(kinds[kind])
    for node in nodes:
        behind_s = publications.behind_s(node.generation)
        yield catalogue.GATEWAY_BEHIND, (node.node,), behind_s
    refused = Counter(resource.kind for node in nodes for resource in node.refused)
    for kind in ("listeners", "routes", "clusters", "endpoints", "secrets"):
        yield catalogue.REFUSED, (kind,), float(refused[kind])


def _by_kind(spec: MetricSpec, keys: Iterable[object]) -> Iterator[Sample]:
    # What has no readable key is of no known kind.
    kinds = Counter(key.kind if isinstance(key, ObjectKey) else "unknown" for key in keys)
    for kind, number in sorted(kinds.items()):
        yield spec, (kind,), float(number)


def _conflicts(routing: Routing) -> int:
    found = 0
    for key, status in routing.compiled.statuses.items():
        condition = status.condition("Conflict") if key.kind == "ServiceExport" else None
        found += condition is not None and condition.status is ConditionStatus.TRUE
    return found
