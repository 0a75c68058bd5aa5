"""The live document: the federation at a glance, as all pages follow it.

Decides: its shape, and what of two documents differs (a JSON merge patch, RFC 7386).
Leaves to others: when it is made (``live``), lists in depth (``lists``).
Invariants: pure; all collections are maps by name, so that a patch names only what changed; no
field changes by time alone, ages are for the page to count; what is unknown is ``None``, not 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from federation.console.services import Services
from federation.console.state import Now
from federation.derive.explain import drain_words
from federation.model.base import ClusterId
from federation.model.drain import Drain, DrainState, drain_object_name
from federation.model.traffic_report import Flow, TrafficReport
from federation.operations.drains import not_ours

Json = dict[str, Any]

PROBLEMS_MAX = 20


def live_document(now: Now, services: Services, versions: Mapping[str, int]) -> Json:
    """The document for everything known ``now``."""
    view = now.view
    flows = _flows(now.traffic)
    stale = [cluster for cluster in view.members if cluster not in view.heartbeats]
    regions: dict[str, Json] = {}
    for cluster, member in sorted(view.members.items()):
        regions.setdefault(member.region, {"clusters": []})["clusters"].append(cluster)
    return {
        "at": now.at or None,
        "store": {
            "reachable": now.reach.reachable,
            "since": now.reach.since,
            "reason": now.reach.reason,
        },
        "revision": view.revision,
        "leader": None
        if now.leader is None
        else {"resolver": now.leader.resolver, "term": now.leader.term},
        "regions": regions,
        "clusters": {str(cluster): _cluster(now, cluster) for cluster in sorted(view.members)},
        "flows": flows,
        "drains": drains(now),
        "totals": {
            "services": services.total,
            "differing": services.states["differs"],
            "unresolved": services.states["unresolved"],
            "conflicts": services.states["conflict"],
            "callsPerS": _sum(flow["callsPerS"] for flow in flows.values()),
            "errorsPerS": _sum(flow["errorsPerS"] for flow in flows.values()),
            "gateways": sum(len(found.gateways) for found in view.gateways.values()),
            "staleClusters": len(stale),
        },
        "problems": list(now.problems[:PROBLEMS_MAX]),
        "versions": dict(versions),
    }


def _cluster(now: Now, cluster: ClusterId) -> Json:
    view = now.view
    heartbeat = view.heartbeats.get(cluster)
    manifest = view.manifests.get(cluster)
    quarantine = manifest.quarantine if manifest else None
    entrances = view.gateways.get(cluster)
    return {
        "region": view.members[cluster].region,
        "stale": heartbeat is None,
        "staleSince": _stale_since(now, cluster) if heartbeat is None else None,
        "version": heartbeat.version if heartbeat else None,
        "degraded": list(heartbeat.degraded) if heartbeat else [],
        "quarantine": None
        if quarantine is None
        else {
            "missing": [str(service) for service in quarantine.missing],
            "reason": quarantine.reason,
            "since": quarantine.since,
        },
        "exports": manifest.count if manifest else 0,
        "entrances": len(entrances.gateways) if entrances else 0,
        "gatewaysConnected": heartbeat.gateways_connected if heartbeat else None,
        "reportAt": now.traffic_seen.get(cluster),
    }


def _stale_since(now: Now, cluster: ClusterId) -> float | None:
    """The leading resolver saw it go; before it says so, our own clock did."""
    silent = now.view.resolved_manifest.silent if now.view.resolved_manifest else ()
    told = next((entry.since_ms / 1000 for entry in silent if entry.cluster == cluster), None)
    return told if told is not None else now.view.stale_since.get(cluster)


def drains(now: Now) -> Json:
    """All drains by name, also those whose weight is on the way back."""
    view = now.view
    names = sorted({*view.drains, *view.drain_states})
    return {name: _drain(view.drains.get(name), view.drain_states.get(name)) for name in names}


def _drain(drain: Drain | None, state: DrainState | None) -> Json:
    spec = drain or (state.spec if state else None)
    assert spec is not None  # a name comes from one of both
    refused = not_ours(spec)
    started = state.started_at_ms / 1000 if state and state.refusal is None else None
    return {
        "name": spec.name,
        "target": spec.target,
        "targetKind": spec.target_kind.value,
        "service": None if spec.service is None else str(spec.service),
        "progress": drain_words(state),
        "remainingBp": state.remaining_bp if state else None,
        "overMs": spec.over_ms,
        "graceMs": spec.grace_ms,
        "startedAt": started,
        "expiresAt": None
        if spec.expires_ms is None or started is None
        else started + spec.expires_ms / 1000,
        "requested": drain is not None,
        "requestedBy": spec.requested_by,
        "refusal": state.refusal.message if state and state.refusal else None,
        "byObject": None
        if spec.cluster is None
        else {"cluster": spec.cluster, "name": drain_object_name(spec)},
        "streamsLeft": state.streams_left if state else None,
        "stoppable": drain is not None and refused is None,
        "whyNotStoppable": refused
        or (None if drain is not None else "it was taken back; its weight is returning"),
    }


def _flows(traffic: Mapping[ClusterId, TrafficReport]) -> dict[str, Json]:
    """What goes between clusters, all services together. Percentiles cannot be added up; the
    highest of any service stands for all."""
    found: dict[str, Json] = {}
    for cluster, report in sorted(traffic.items()):
        for flow in report.flows:
            key = f"{cluster}>{flow.to_cluster}"
            entry = found.setdefault(key, _no_flow(report, flow))
            entry["callsPerS"] = _sum((entry["callsPerS"], flow.calls_per_s))
            entry["errorsPerS"] = _sum((entry["errorsPerS"], flow.errors_per_s))
            entry["p50Ms"] = _highest(entry["p50Ms"], flow.p50_ms)
            entry["p99Ms"] = _highest(entry["p99Ms"], flow.p99_ms)
            entry["open"] += flow.open
    return found


def _no_flow(report: TrafficReport, flow: Flow) -> Json:
    return {
        "from": report.cluster,
        "to": flow.to_cluster,
        "fromRegion": report.region,
        "toRegion": flow.to_region,
        "callsPerS": 0.0,
        "errorsPerS": 0.0,
        "p50Ms": None,
        "p99Ms": None,
        "open": 0,
    }


def _highest(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def _sum(values: Any) -> float:
    return round(math.fsum(values), 3)


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> Json:
    """What makes ``new`` of ``old`` (RFC 7386); empty: they are equal.

    A ``None`` in ``new`` cannot be told from a removed key; who reads a patch takes a missing key
    for ``None``.
    """
    patch: Json = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(value, Mapping) and isinstance(old[key], Mapping):
            if inner := merge_patch(old[key], value):
                patch[key] = inner
        elif value != old[key]:
            patch[key] = value
    return patch
