"""One service in depth, exports with their conflicts, gateways.

Decides: what is said of each.
Leaves to others: the numbers and reasons (``derive.explain``), conflicts (``derive.merge``).
Invariants: pure; what is not known is ``None``; statuses that cannot be read are left out.
"""

from __future__ import annotations

from typing import Any

from federation.console.live import Made
from federation.console.state import Now
from federation.derive.explain import ExplainedCluster, Explanation, explain
from federation.derive.merge import merge
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import ExportFact, ServicePort
from federation.model.objects import McsServiceExport, ObjectKey
from federation.model.resolved import Reason
from federation.model.status import ObjectStatus
from federation.wire.etcd import from_bytes
from federation.wire.etcd_keys import Keys

Json = dict[str, Any]
ExportRow = tuple[ServiceName, ClusterId]


def service(made: Made, name: ServiceName, keys: Keys) -> Json:
    """Everything about one service."""
    now = made.now
    view = now.view
    exports = view.exports.get(name, {})
    regions = sorted({member.region for member in view.members.values()})
    explained = [explain(view, name, Region(region)) for region in regions]
    states = next((it.states for it in made.services.judged if it.service == name), ())
    merged = merge(exports) if exports else None
    return {
        "service": str(name),
        "type": merged.type.value if merged else None,
        "ports": [_port(port) for port in merged.ports] if merged else [],
        "imports": sorted({name for it in explained for name in it.imports}),
        "states": [state.value for state in states],
        "sources": [_source(entry) for entry in explained],
        "exports": [export(now, name, cluster, keys=keys) for cluster in sorted(exports)],
        "flows": [
            {
                "from": report.cluster,
                "fromRegion": report.region,
                "to": flow.to_cluster,
                "toRegion": flow.to_region,
                "callsPerS": flow.calls_per_s,
                "errorsPerS": flow.errors_per_s,
                "p50Ms": flow.p50_ms,
                "p99Ms": flow.p99_ms,
                "open": flow.open,
                "tier": flow.tier,
            }
            for report in now.traffic.values()
            for flow in report.flows
            if flow.service == str(name)
        ],
    }


def _source(entry: Explanation) -> Json:
    return {
        "region": entry.source,
        "weightsOrigin": entry.weights_origin,
        "failoverOrigin": entry.failover_origin,
        "resolvedBy": entry.resolved_by,
        "term": entry.term,
        "reasons": reasons(entry.reasons),
        "clusters": [_cluster(row) for row in entry.clusters],
    }


def _cluster(row: ExplainedCluster) -> Json:
    drain = row.drain
    return {
        "cluster": row.cluster,
        "region": row.region,
        "ready": row.ready,
        "total": row.total,
        "stale": row.stale,
        "askedBp": row.weight_asked_bp,
        "inForceBp": row.weight_bp,
        "reasons": reasons(row.reasons),
        "drain": None
        if drain is None
        else {
            "drain": drain.drain,
            "phase": drain.phase.value,
            "remainingBp": drain.remaining_bp,
            "graceMs": drain.grace_ms,
        },
        "tiers": [
            {
                "level": level,
                "clusters": [{"cluster": it.cluster, "weight": it.weight} for it in tier.members],
                "reason": reasons((tier.reason,))[0],
            }
            for level, tier in enumerate(row.failover, start=1)
        ],
    }


def reasons(found: tuple[Reason, ...]) -> list[Json]:
    """Reasons as JSON."""
    return [{"code": reason.code.value, "message": reason.message} for reason in found]


def matching_exports(made: Made, *, text: str, cluster: str, conflicts: bool) -> list[ExportRow]:
    """The exports that are asked for, by service and cluster."""
    view = made.now.view
    disagreeing = {entry.service for entry in made.services.judged if "conflict" in entry.states}
    wanted = text.lower()
    return [
        (entry.service, name)
        for entry in made.services.judged
        if (not wanted or wanted in str(entry.service).lower())
        and (not conflicts or entry.service in disagreeing)
        for name in sorted(view.exports.get(entry.service, {}))
        if not cluster or name == cluster
    ]


def export(now: Now, name: ServiceName, cluster: ClusterId, *, keys: Keys) -> Json:
    """One cluster's export of a service."""
    exports = now.view.exports[name]
    fact = exports[cluster]
    return {
        "service": str(name),
        "cluster": cluster,
        "region": fact.region,
        "type": fact.type.value,
        "ready": fact.ready,
        "total": fact.total,
        "capacity": fact.capacity,
        "ports": [_port(port) for port in fact.ports],
        "exportedAt": fact.exported_at,
        "precedence": 1 + sum(_age(other) < _age(fact) for other in exports.values()),
        "conflict": _conflict(exports),
        "conditions": _conditions(now, name, cluster, keys),
    }


def _conflict(exports: Any) -> Json | None:
    merged = merge(exports) if len(exports) > 1 else None
    if merged is None or not merged.differences:
        return None
    return {
        "message": merged.message(),
        "fields": [entry.word for entry in merged.differences],
        "rulingCluster": merged.oldest.cluster,
    }


def _age(fact: ExportFact) -> tuple[int, str]:
    return fact.create_revision, fact.cluster


def _port(port: ServicePort) -> Json:
    return {
        "name": port.name,
        "port": port.port,
        "protocol": port.protocol,
        "appProtocol": port.app_protocol,
    }


def _conditions(now: Now, name: ServiceName, cluster: ClusterId, keys: Keys) -> list[Json]:
    key = ObjectKey(McsServiceExport.GROUP, McsServiceExport.KIND, name.namespace, name.name)
    entry = now.statuses.get(keys.status(cluster, key))
    if entry is None:
        return []
    try:
        status = from_bytes(ObjectStatus, entry.value)
    except ValueError:
        return []  # as if there were none: its agent rewrites it
    return [
        {
            "type": it.type,
            "status": it.status,
            "reason": it.reason,
            "message": it.message,
            "lastTransitionTime": it.last_transition_time,
        }
        for it in status.conditions
    ]


def gateways(now: Now) -> Json:
    """Every gateway that advertises an entrance or is in a traffic report."""
    view = now.view
    rows = []
    for cluster, member in sorted(view.members.items()):
        report = now.traffic.get(cluster)
        told = {entry.name: entry for entry in (report.gateways if report else ())}
        entrances = view.gateways.get(cluster)
        addresses = {
            entry.name: entry.address for entry in (entrances.gateways if entrances else ())
        }
        heartbeat = view.heartbeats.get(cluster)
        for name in sorted({*told, *addresses}):
            entry = told.get(name)
            rows.append(
                {
                    "cluster": cluster,
                    "region": member.region,
                    "name": name,
                    "address": addresses.get(name),
                    "version": heartbeat.version if heartbeat else None,
                    "state": entry.state if entry else None,
                    "configVersion": entry.config_version if entry else None,
                    "configAgeS": entry.config_age_s if entry else None,
                    "callsOpen": entry.calls_open if entry else None,
                    "connections": entry.connections if entry else None,
                    "admin": entry.admin if entry else None,
                    "reportAt": now.traffic_seen.get(cluster),
                    "stale": heartbeat is None,
                }
            )
    truncated = sum(report.truncated for report in now.traffic.values())
    return {"gateways": rows, "truncatedFlows": truncated}
