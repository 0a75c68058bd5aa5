"""All areas of ``fedctl check``: which function judges which, and what could not be looked at.

Decides: the order of areas, what an area needs to be looked at.
Invariants: every area is judged, told as unexamined, or was not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from federation.cli.check import judge_federation, judge_machines
from federation.cli.check.evidence import Evidence
from federation.cli.check.finding import Area, Finding, Severity, Unexamined

JUDGES: Mapping[Area, Callable[[Evidence], Iterable[Finding]]] = {
    Area.ETCD: judge_machines.etcd,
    Area.CLOCKS: judge_machines.clocks,
    Area.VERSIONS: judge_machines.versions,
    Area.CLUSTERS: judge_federation.clusters,
    Area.RESOLVER: judge_federation.resolver,
    Area.GATEWAYS: judge_machines.gateways,
    Area.CERTIFICATES: judge_machines.certificates,
    Area.REACHABILITY: judge_machines.reachability,
    Area.DNS: judge_federation.dns,
    Area.CRDS: judge_federation.crds,
    Area.POLICIES: judge_federation.policies,
    Area.ROUTES: judge_federation.routes,
    Area.DRAINS: judge_federation.drains,
}

_OF_STORE = (Area.CLUSTERS, Area.RESOLVER, Area.DRAINS)
_OF_GATEWAYS = (Area.GATEWAYS, Area.CERTIFICATES, Area.REACHABILITY)
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


def judge(seen: Evidence, areas: Collection[Area]) -> list[Finding]:
    """What is to be said about ``areas``, the gravest first."""
    found = [finding for area in Area if area in areas for finding in JUDGES[area](seen)]
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def unexamined(seen: Evidence, areas: Collection[Area]) -> list[Unexamined]:
    """What of ``areas`` nobody could look at, and why."""
    found: list[tuple[Area, str]] = []
    if seen.view is None:
        found += [(area, "etcd is away") for area in _OF_STORE]
    if not seen.gateways:
        why = seen.no_gateways or "no gateway is known; name them with --gateway HOST:PORT"
        found += [(area, why) for area in _OF_GATEWAYS]
    elif not any(gateway.peers for gateway in seen.gateways):
        found.append((Area.REACHABILITY, "no gateway has a route to another cluster yet"))
    if seen.answers is None:
        why = "no DNS server is known; name one with --dns CLUSTER=HOST:PORT"
        found.append((Area.DNS, why if seen.view is not None else "etcd is away"))
    if seen.kinds is None:
        found.append((Area.CRDS, "no API server is named (--context); objects are kept in etcd"))
    if seen.objects is None:
        found += [(area, "etcd is away") for area in (Area.POLICIES, Area.ROUTES)]
    found += [(Area.CRDS, why) for why in seen.kinds_unread]
    found += [(area, w) for w in seen.objects_unread for area in (Area.POLICIES, Area.ROUTES)]
    return [Unexamined(area=area, why=why) for area, why in found if area in areas]
