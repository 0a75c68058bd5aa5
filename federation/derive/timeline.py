"""Decisions as people follow them: what a change of a stored value means, in one line.

Decides: which changes are worth a line (what an operator, an object, an agent or the resolver
decided), how a line is worded, and which lines tell one story and are folded into one.
Leaves to others: reading the past (``adapters.etcd``), times, how many are kept (``console``).
Invariants: pure; a change that moves nothing and says nothing new has no line; values of Secrets
are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from federation.derive.drain import drain_name
from federation.derive.explain import drain_words
from federation.derive.resolve_asked import percent
from federation.model.base import Value
from federation.model.drain import Drain, DrainState
from federation.model.facts import (
    AcceptedShrink,
    ClusterGateways,
    ExportFact,
    FactsManifest,
    Heartbeat,
    Member,
    ServicePolicyFact,
)
from federation.model.objects import ObjectKey
from federation.model.resolved import ResolvedManifest, ResolvedService
from federation.model.status import ObjectStatus

CHANGES_MAX = 20


class Kind(StrEnum):
    """What a line is about."""

    DRAIN = "drain"
    RESOLUTION = "resolution"
    EXPORT = "export"
    POLICY = "policy"
    CLUSTER = "cluster"
    GATEWAY = "gateway"
    LEADER = "leader"
    OBJECT = "object"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Moved:
    """A number or a word that changed."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Line:
    """One decision. ``story`` is equal for lines that go on with each other; empty: for none.

    ``count`` is how many changes were folded into it.
    """

    kind: Kind
    object: str
    what: str
    actor: str | None = None
    reason: str | None = None
    detail: str = ""
    warning: bool = False
    cluster: str | None = None
    service: str | None = None
    changes: tuple[Moved, ...] = ()
    story: str = ""
    count: int = 1
    stated_ms: int | None = field(default=None, compare=False)


def folded(old: Line, new: Line) -> Line:
    """``old`` and what went on with ``new``: where it began, where it stands now."""
    began = {moved.what: moved.before for moved in old.changes}
    changes = [
        Moved(moved.what, began.pop(moved.what, moved.before), moved.after) for moved in new.changes
    ]
    kept = [moved for moved in old.changes if moved.what in began]
    return replace(
        new,
        changes=tuple([*kept, *changes][:CHANGES_MAX]),
        count=old.count + new.count,
        warning=old.warning or new.warning,
        stated_ms=old.stated_ms,
    )


def of_value(before: Value | None, after: Value | None, *, resolver: str | None) -> Line | None:
    """The line for a changed value of the federation's view; ``None``: it is not worth one."""
    value = after if after is not None else before
    match value:
        case Drain():
            return _drain(value, _typed(Drain, before), gone=after is None)
        case DrainState():
            return _drain_state(value, _typed(DrainState, before), resolver, gone=after is None)
        case ResolvedService():
            return _resolved(_typed(ResolvedService, before), value, resolver, after is None)
        case ExportFact():
            return _export(_typed(ExportFact, before), value, gone=after is None)
        case ServicePolicyFact():
            return _policy(_typed(ServicePolicyFact, before), value, gone=after is None)
        case Member() | Heartbeat() | ClusterGateways():
            return _of_cluster(before, after)
        case FactsManifest():
            return _quarantine(_typed(FactsManifest, before), value)
        case AcceptedShrink() if after is not None:
            return Line(
                Kind.EXPORT,
                f"exports of {value.cluster}",
                f"confirmed that {len(value.missing)} exports are meant to be gone",
                actor=value.requested_by or None,
                cluster=value.cluster,
                detail=", ".join(map(str, value.missing[:CHANGES_MAX])),
            )
        case ResolvedManifest():
            return _leader(_typed(ResolvedManifest, before), value)
        case _:
            return None


def of_object(key: ObjectKey, cluster: str, *, generation: tuple[int | None, int | None]) -> Line:
    """The line for an object that was made, changed or deleted; ``generation`` before and after."""
    before, after = generation
    what = "created" if before is None else "deleted" if after is None else "changed"
    return Line(
        Kind.OBJECT,
        f"{key.kind} {key.qualified_name}",
        what,
        cluster=cluster,
        detail=f"{key.kind} {key.qualified_name} in {cluster} was {what}",
        warning=after is None,
        story="" if what != "changed" else f"object {cluster} {key}",
    )


def of_status(
    key: ObjectKey, cluster: str, before: ObjectStatus | None, after: ObjectStatus
) -> Line | None:
    """The line for conditions of an object that have another status or reason now."""
    old = dict(_conditions(before)) if before is not None else {}
    moved = [
        (name, old.get(name), said)
        for name, said in _conditions(after)
        if old.get(name, ("", "", ""))[:2] != said[:2]
    ]
    if not moved or before is None:
        return None  # an object's first status follows from its being made
    name, _, (status, reason, message) = moved[0]
    return Line(
        Kind.STATUS,
        f"{key.kind} {key.qualified_name}",
        f"{name} is {status}",
        actor=f"agent of {cluster}",
        reason=reason,
        detail=message,
        cluster=cluster,
        warning=any(_bad(entry, said[0]) for entry, _, said in moved),
        changes=tuple(
            Moved(entry, " ".join(was[:2]) if was else "unknown", " ".join(said[:2]))
            for entry, was, said in moved[:CHANGES_MAX]
        ),
        story=f"status {cluster} {key}",
    )


def _conditions(status: ObjectStatus) -> list[tuple[str, tuple[str, str, str]]]:
    groups = [("", status.conditions)]
    groups += [(f"{it.parent_ref.name}: ", it.conditions) for it in status.parents]
    groups += [(f"{it.ancestor_ref.name}: ", it.conditions) for it in status.ancestors]
    groups += [(f"listener {it.name}: ", it.conditions) for it in status.listeners]
    return [
        (f"{of}{it.type}", (it.status.value, it.reason, it.message))
        for of, conditions in groups
        for it in conditions
    ]


def _bad(name: str, status: str) -> bool:
    """Conditions tell good news by True, but for conflicts."""
    return status == ("True" if name.endswith(("Conflict", "Conflicted")) else "False")


def _drain(drain: Drain, before: Drain | None, *, gone: bool) -> Line:
    what = "taken back" if gone else "asked for" if before is None else "changed"
    name = drain_name(drain.target, drain.service)
    of = f" of {drain.service}" if drain.service else ""
    return Line(
        Kind.DRAIN,
        f"drain {name}",
        what,
        # Who takes a drain back leaves no name.
        actor=None if gone else drain.requested_by or None,
        reason="Forced" if drain.forced else None,
        detail=f"{drain.target_kind.value} {drain.target}{of}, over {drain.over_ms / 1000:g} s, "
        f"grace {drain.grace_ms / 1000:g} s",
        cluster=drain.cluster,
        service=str(drain.service) if drain.service else None,
        warning=drain.forced,
    )


def _drain_state(
    state: DrainState, before: DrainState | None, resolver: str | None, *, gone: bool
) -> Line | None:
    words = "over" if gone else drain_words(state)
    if not gone and before is not None:
        same = drain_words(before) == words
        if same and before.remaining_bp == state.remaining_bp:
            return None
    old = before.remaining_bp if before is not None else 10_000
    left = 10_000 if gone else state.remaining_bp
    return Line(
        Kind.DRAIN,
        f"drain {state.drain}",
        words,
        actor=resolver,
        reason=words,
        detail=state.refusal.message if state.refusal else f"{percent(left)} of the weight is left",
        warning=state.refusal is not None,
        service=str(state.spec.service) if state.spec.service else None,
        changes=(Moved("weight left", percent(old), percent(left)),) if old != left else (),
        # A drain of the same name that is asked for anew is another story.
        story=f"drain state {state.drain} {state.started_at_ms} {words}",
        stated_ms=state.started_at_ms if before is None else None,
    )


def _resolved(
    before: ResolvedService | None, after: ResolvedService, resolver: str | None, gone: bool
) -> Line | None:
    old = {} if before is None else _weights(before)
    new = {} if gone else _weights(after)
    moved = tuple(
        Moved(f"{cluster} from {source}", percent(old.get(at, 0)), percent(new.get(at, 0)))
        for at in sorted({*old, *new})
        for source, cluster in (at,)
        if old.get(at, 0) != new.get(at, 0)
    )
    if not moved:
        return None
    reason = None if gone else _first_reason(before, after)
    name = str(after.service)
    return Line(
        Kind.RESOLUTION,
        f"service {name}",
        "no longer resolved" if gone else "weights in force changed",
        actor=resolver,
        reason=reason[0] if reason else None,
        detail=reason[1] if reason else "no cluster exports it any more" if gone else "",
        service=name,
        changes=moved[:CHANGES_MAX],
        story=f"resolution {name} {reason[0] if reason else ''}",
    )


def _weights(resolved: ResolvedService) -> dict[tuple[str, str], int]:
    return {
        (source.region, share.cluster): share.weight_bp
        for source in resolved.sources
        for share in source.shares
    }


def _first_reason(before: ResolvedService | None, after: ResolvedService) -> tuple[str, str] | None:
    """Why the first weight that changed is what it is; rather why one was lost than gained."""
    old = _weights(before) if before is not None else {}
    changed = [
        (share.weight_bp - old.get((source.region, share.cluster), 0), share)
        for source in after.sources
        for share in source.shares
        if share.weight_bp != old.get((source.region, share.cluster), 0)
    ]
    if not changed:
        return None
    _, share = min(changed, key=lambda entry: entry[0])
    told = share.reasons[-1] if share.reasons else None
    return (told.code.value, told.message) if told else None


def _export(before: ExportFact | None, fact: ExportFact, *, gone: bool) -> Line | None:
    agent = f"agent of {fact.cluster}"
    base = Line(
        Kind.EXPORT,
        f"export {fact.service} of {fact.cluster}",
        "exported",
        actor=agent,
        cluster=fact.cluster,
        service=str(fact.service),
        detail=f"{fact.ready} of {fact.total} endpoints are ready",
    )
    if gone:
        detail = "its cluster does not export it any more"
        return replace(base, what="no longer exported", detail=detail, warning=True)
    if before is None:
        return base
    if before.ports != fact.ports or before.type != fact.type:
        return replace(base, what="changed", detail="its ports or type are others")
    if before.ready == fact.ready:
        return None
    return replace(
        base,
        what="has no ready endpoint" if fact.ready == 0 else "ready endpoints changed",
        reason="NoReadyEndpoints" if fact.ready == 0 else None,
        warning=fact.ready == 0,
        changes=(Moved("ready", str(before.ready), str(fact.ready)),),
        story=f"export {fact.cluster} {fact.service}",
    )


def _policy(
    before: ServicePolicyFact | None, fact: ServicePolicyFact, *, gone: bool
) -> Line | None:
    asked = () if gone else _asked(fact)
    old = _asked(before) if before is not None else ()
    if asked == old and not gone:
        return None
    return Line(
        Kind.POLICY,
        f"import {fact.service.namespace}/{fact.import_name} in {fact.cluster}",
        "no longer asks for anything" if gone else "asks for other weights or failover",
        actor=fact.weights_origin or fact.failover_origin or None,
        detail=", ".join(asked) or "nothing is asked for",
        cluster=fact.cluster,
        service=str(fact.service),
        changes=(Moved("asked for", ", ".join(old) or "-", ", ".join(asked) or "-"),),
        story=f"policy {fact.cluster} {fact.service} {fact.import_name}",
    )


def _asked(fact: ServicePolicyFact) -> tuple[str, ...]:
    weights = tuple(f"{it.target} {it.weight}" for it in fact.weights or ())
    return (*weights, *(f"{it.source} fails over to {it.target}" for it in fact.failover))


def _of_cluster(before: Value | None, after: Value | None) -> Line | None:
    match before, after:
        case None, Member():
            return _cluster(after.cluster, "joined", f"region {after.region}")
        case Member(), None:
            return _cluster(before.cluster, "parted", "", warning=True)
        case None, Heartbeat():
            return _cluster(after.cluster, "is heard of", f"version {after.version}")
        case Heartbeat(), None:
            return _cluster(
                before.cluster,
                "went silent",
                "nothing is heard of its agent; what is known of it stays in force",
                reason="Stale",
                warning=True,
            )
        case Heartbeat(), Heartbeat() if before.degraded != after.degraded:
            return _cluster(
                after.cluster,
                "does without something" if after.degraded else "has everything again",
                "; ".join(after.degraded),
                warning=bool(after.degraded),
            )
        case _, ClusterGateways():
            return _gateways(_typed(ClusterGateways, before), after)
        case _:
            return None


def _cluster(
    cluster: str, what: str, detail: str, *, reason: str | None = None, warning: bool = False
) -> Line:
    return Line(
        Kind.CLUSTER,
        f"cluster {cluster}",
        what,
        reason=reason,
        detail=detail,
        cluster=cluster,
        warning=warning,
    )


def _gateways(before: ClusterGateways | None, after: ClusterGateways) -> Line | None:
    old = {it.name: it.address for it in (before.gateways if before is not None else ())}
    new = {it.name: it.address for it in after.gateways}
    if old == new:
        return None
    return Line(
        Kind.GATEWAY,
        f"gateways of {after.cluster}",
        f"{len(new)} advertised",
        actor=f"agent of {after.cluster}",
        detail=", ".join(sorted(new)),
        cluster=after.cluster,
        warning=not new,
        changes=tuple(
            Moved(name, old.get(name, "-"), new.get(name, "-"))
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        )[:CHANGES_MAX],
        story=f"gateways {after.cluster}",
    )


def _quarantine(before: FactsManifest | None, after: FactsManifest) -> Line | None:
    old = before.quarantine if before is not None else None
    if old == after.quarantine:
        return None
    held = after.quarantine
    return Line(
        Kind.EXPORT,
        f"exports of {after.cluster}",
        "a loss is not believed" if held else "no loss is doubted any more",
        actor=f"agent of {after.cluster}",
        reason="Quarantine" if held else None,
        detail=held.reason if held else "",
        cluster=after.cluster,
        warning=held is not None,
    )


def _leader(before: ResolvedManifest | None, after: ResolvedManifest) -> Line | None:
    if before is not None and before.term == after.term:
        return None
    return Line(
        Kind.LEADER,
        f"resolver {after.resolver}",
        "leads",
        actor=after.resolver,
        detail=f"term {after.term}",
    )


ValueT = TypeVar("ValueT", bound=Value)


def _typed(kind: type[ValueT], value: Value | None) -> ValueT | None:
    return value if isinstance(value, kind) else None
