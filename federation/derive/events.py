"""Which changes are events: from what was so to what is so now.

Decides: what a person should see at an object: it is refused or accepted again, a gateway refused
what it became, an import lost its backends, a cluster gave up its part of a service or has it back,
a drain began or ended, a shrink is in doubt.
Leaves to others: statuses and shares themselves, how many events are kept (the agent), where
(an ``EventSink``).
Invariants: pure; equal states make no event; a first look tells what is wrong and no more, as
something that was perhaps told before; events are in the order of their objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from federation.derive.imports import meant_service
from federation.derive.resolve_asked import percent
from federation.model.base import ClusterId, ServiceName
from federation.model.conditions import Condition, ConditionStatus
from federation.model.duration import format_duration
from federation.model.events import NOTE_MAX, ObjectEvent
from federation.model.facts import ExportFact, Quarantine
from federation.model.objects import (
    ApiObject,
    DrainRequest,
    FederatedServiceImport,
    McsServiceImport,
    Namespace,
    ObjectKey,
    ObjectSnapshot,
)
from federation.model.resolved import ClusterShare, DrainPhase, ReasonCode, SourceResolution
from federation.model.status import DrainProgress, ObjectStatus

_ACTIONS: Mapping[str, str] = {
    "Accepted": "Accept",
    "ResolvedRefs": "ResolveReferences",
    "Programmed": "ConfigureGateways",
    "BackendsReady": "CheckBackends",
    "Ready": "CheckBackends",
    "FailoverReady": "CheckFailover",
}
"""Conditions that are good when they are true, and what is done meanwhile."""

_BAD_WHEN_TRUE: Mapping[str, str] = {
    "Conflict": "MergeExports",
    "PartiallyInvalid": "ResolveReferences",
}

_ON_PURPOSE = frozenset({ReasonCode.DRAINING, ReasonCode.DRAINED})

_MOVING = frozenset(phase.value for phase in DrainPhase)

SERVICES_TOLD = 10
"""Services named in one note."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What events are made from: ``sources`` are resolutions for callers of this cluster,
    ``exports`` what all clusters export."""

    objects: ObjectSnapshot
    statuses: Mapping[ObjectKey, ObjectStatus]
    sources: Mapping[ServiceName, SourceResolution] = field(default_factory=dict)
    exports: Mapping[ServiceName, Mapping[ClusterId, ExportFact]] = field(default_factory=dict)
    quarantine: Quarantine | None = None


def derive_events(before: Seen | None, now: Seen, *, cluster: ClusterId) -> tuple[ObjectEvent, ...]:
    """The events between two looks; ``before`` is ``None`` at the first."""
    return tuple(
        event.model_copy(update={"note": _cut(event.note), "known": before is None})
        for event in (
            *_of_statuses(before, now),
            *_of_readiness(before, now),
            *_of_shares(before, now),
            *_of_quarantine(before, now, cluster),
        )
    )


# --- conditions and drains --------------------------------------------------------------------


_NO_STATUS = ObjectStatus()


def _of_statuses(before: Seen | None, now: Seen) -> Iterator[ObjectEvent]:
    for key in sorted(now.statuses):
        earlier = before.statuses.get(key, _NO_STATUS) if before is not None else None
        if earlier is now.statuses[key]:
            continue  # of thousands nearly all
        source = now.objects.objects.get(key)
        if source is None:
            continue
        yield from _of_conditions(source, earlier or ObjectStatus(), now.statuses[key])
        if isinstance(source, DrainRequest) and earlier is not None:
            yield from _of_drain(source, earlier.drain, now.statuses[key].drain)


def _of_conditions(
    source: ApiObject, before: ObjectStatus, now: ObjectStatus
) -> Iterator[ObjectEvent]:
    known = dict(_conditions(before))
    for place, entry in _conditions(now):
        action = _ACTIONS.get(entry.type) or _BAD_WHEN_TRUE.get(entry.type)
        if action is None:
            continue
        earlier = known.get(place)
        was_bad = earlier is not None and _bad(earlier)
        where = f"{place[0]}: " if place[0] else ""
        if _bad(entry):
            said = (entry.reason, entry.message)
            if not was_bad or earlier is None or (earlier.reason, earlier.message) != said:
                yield _event(source, entry.reason, action, where + entry.message, warning=True)
        elif was_bad and entry.status is not ConditionStatus.UNKNOWN:
            note = f"{where}{entry.type} is {entry.status} again"
            yield _event(source, entry.reason, action, note)


Place = tuple[str, str]
"""Where a condition stands (empty: the object itself) and its type."""


def _conditions(status: ObjectStatus) -> Iterator[tuple[Place, Condition]]:
    groups = [("", status.conditions)]
    groups += [(f"listener {entry.name}", entry.conditions) for entry in status.listeners]
    for parent in status.parents:
        ref = parent.parent_ref
        section = f" {ref.section_name}" if ref.section_name else ""
        groups.append((f"{ref.kind} {ref.name}{section}", parent.conditions))
    for ancestor in status.ancestors:
        ref = ancestor.ancestor_ref
        groups.append((f"{ref.kind} {ref.name}", ancestor.conditions))
    for place, conditions in groups:
        for entry in conditions:
            yield (place, entry.type), entry


def _bad(entry: Condition) -> bool:
    if entry.type in _BAD_WHEN_TRUE:
        return entry.status is ConditionStatus.TRUE
    if entry.status is not ConditionStatus.FALSE:
        return False
    # What gateways have not taken up yet is no event; what they refused is.
    return entry.type != "Programmed" or entry.reason == "Invalid"


def _of_drain(
    source: DrainRequest, before: DrainProgress | None, now: DrainProgress | None
) -> Iterator[ObjectEvent]:
    was = before.phase if before is not None else ""
    phase = now.phase if now is not None else ""
    target = source.spec.target
    if phase in _MOVING and was not in _MOVING:
        over = format_duration(source.spec.over_ms)
        yield _event(source, "DrainStarted", "Drain", f"{target} gives up its traffic over {over}")
    if phase == DrainPhase.DRAINED and was != phase:
        yield _event(source, "Drained", "Drain", f"all traffic of {target} is moved away")
    if phase in ("Returning", "Expired") and was not in ("Returning", "Expired"):
        note = f"the drain of {target} has expired; its traffic returns"
        yield _event(source, "DrainExpired", "Undrain", note)


# --- exports and shares of clusters ------------------------------------------------------------


def _of_readiness(before: Seen | None, now: Seen) -> Iterator[ObjectEvent]:
    """At imports: nobody who exports the service has a ready endpoint, or somebody has again."""
    if before is None:
        return
    for service in sorted(before.exports.keys() & now.exports.keys(), key=str):
        facts = now.exports[service]
        was, ready = _any_ready(before.exports[service]), _any_ready(facts)
        if was == ready or not facts:
            continue
        where = ", ".join(sorted(facts))
        note = f"none of the endpoints of {service} in {where} is ready"
        if ready:
            note = f"endpoints of {service} are ready again"
        reason = "BackendsReady" if ready else "NoReadyBackends"
        for source in _imports_of(service, now):
            yield _event(source, reason, "CheckBackends", note, warning=not ready)


def _any_ready(facts: Mapping[ClusterId, ExportFact]) -> bool:
    return any(fact.ready for fact in facts.values())


def _of_shares(before: Seen | None, now: Seen) -> Iterator[ObjectEvent]:
    if before is None:
        return
    for service in sorted(now.sources, key=str):
        earlier = before.sources.get(service)
        if earlier is None or earlier == now.sources[service]:
            continue
        known = {share.cluster: share for share in earlier.shares}
        told = [
            said
            for share in now.sources[service].shares
            if share.cluster in known
            and (said := _moved(service, known[share.cluster], share)) is not None
        ]
        if told:
            for source in _imports_of(service, now):
                for warning, reason, note in told:
                    yield _event(source, reason, "MoveTraffic", note, warning=warning)


def _moved(
    service: ServiceName, before: ClusterShare, now: ClusterShare
) -> tuple[bool, str, str] | None:
    """Whether it is a warning, its reason and its note; ``None``: nothing that is an event."""
    asked = percent(now.weight_asked_bp)
    if now.weight_asked_bp and before.weight_bp and not now.weight_bp:
        why = "; ".join(f"{reason.code}: {reason.message}" for reason in now.reasons)
        note = f"{now.cluster} takes none of its {asked} of {service} now; {why}"
        on_purpose = any(reason.code in _ON_PURPOSE for reason in now.reasons)
        return not on_purpose, "FailedOver", note
    if before.weight_bp < before.weight_asked_bp and now.weight_bp >= now.weight_asked_bp > 0:
        return False, "Returned", f"{now.cluster} has its {asked} of {service} back"
    return None


def _imports_of(service: ServiceName, now: Seen) -> Iterator[ApiObject]:
    imports: list[FederatedServiceImport | McsServiceImport] = [
        *now.objects.of(FederatedServiceImport),
        *now.objects.of(McsServiceImport),
    ]
    for source in imports:
        if meant_service(source, now.exports) == service:
            yield source


# --- doubts -----------------------------------------------------------------------------------


def _of_quarantine(before: Seen | None, now: Seen, cluster: ClusterId) -> Iterator[ObjectEvent]:
    earlier = before.quarantine if before is not None else None
    if now.quarantine is not None and (
        earlier is None or earlier.missing != now.quarantine.missing
    ):
        note = f"{now.quarantine.reason} (fedctl accept-shrink {cluster})"
        yield from _at_namespaces(now, now.quarantine, "ShrinkQuarantined", note, warning=True)
    elif now.quarantine is None and earlier is not None:
        note = "what the cluster exports is no longer in doubt"
        yield from _at_namespaces(now, earlier, "QuarantineLifted", note, warning=False)


def _at_namespaces(
    now: Seen, quarantine: Quarantine, reason: str, note: str, *, warning: bool
) -> Iterator[ObjectEvent]:
    """At the namespaces of the missing exports: these themselves are not there to be described."""
    for source in now.objects.of(Namespace):
        names = [name for name in quarantine.missing if name.namespace == source.metadata.name]
        if names:
            more = len(names) - SERVICES_TOLD
            listed = ", ".join(name.name for name in names[:SERVICES_TOLD])
            listed += f" and {more} more" if more > 0 else ""
            yield _event(source, reason, "Publish", f"{listed}: {note}", warning=warning)


def _event(
    source: ApiObject, reason: str, action: str, note: str, *, warning: bool = False
) -> ObjectEvent:
    return ObjectEvent(regarding=source, warning=warning, reason=reason, action=action, note=note)


def _cut(note: str) -> str:
    """``note`` within the bytes that an API server takes."""
    encoded = note.encode()
    if len(encoded) <= NOTE_MAX:
        return note
    return encoded[: NOTE_MAX - 3].decode(errors="ignore") + "…"
