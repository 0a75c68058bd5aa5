"""Findings about the federation: clusters, resolver, drains, DNS, kinds, policies and routes.

Decides: what is a fault, how grave it is, and the next step.
Leaves to others: asking (``gather``), machines (``judge_machines``).
Invariants: pure; sorted evidence gives findings in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator

from federation.cli.check.evidence import Evidence, SeenCondition, SeenObject
from federation.cli.check.finding import Area, Finding, Severity
from federation.model.resolved import DrainPhase

STUCK_SLACK_MS = 60_000
"""A drain may be as much behind its own ramp and grace before it counts as stuck."""

POLICIES = ("BackendTrafficPolicy", "ClientTrafficPolicy", "ObservabilityPolicy", "SecurityPolicy")
ROUTES = ("GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute")
BAD_IF_TRUE = ("Conflicted", "Conflict", "Stale", "Quarantined", "OverlappingTLSConfig")
"""Conditions that are a fault when they hold; all others are one when they do not."""


def clusters(seen: Evidence) -> Iterator[Finding]:
    """Stale clusters, quarantined shrinks, what agents say they do without."""
    view = seen.view
    if view is None:
        return
    if not view.members:
        yield Finding(
            severity=Severity.NOTE,
            area=Area.CLUSTERS,
            what="no cluster has joined",
            subject="federation",
            why="there is no claim of a cluster's name in etcd",
            next="fedctl cluster add NAME --region REGION, or fedctl lab up",
        )
    silent = view.resolved_manifest.silent if view.resolved_manifest else ()
    since = {entry.cluster: entry.since_ms for entry in silent}
    for cluster in sorted(view.members):
        if cluster not in view.heartbeats:
            began = since.get(cluster)
            age = f" for {max(0, seen.now_s - began / 1000):.0f} s" if began else ""
            yield _cluster(
                *(Severity.ERROR, f"is stale{age}", cluster),
                "its agent has no heartbeat in etcd; its gateways go on with what they have",
                f"start its agent, or see why it cannot reach etcd: fedctl logs --component agent "
                f"--cluster {cluster}",
            )
        beat = view.heartbeats.get(cluster)
        for text in beat.degraded if beat else ():
            yield _cluster(
                *(Severity.WARNING, "does without something", cluster),
                text,
                "give it back to the agent; it takes it up by itself",
            )
        if beat is not None and not beat.gateways_connected:
            yield _cluster(
                *(Severity.WARNING, "no gateway is connected to its agent", cluster),
                "what is published reaches nobody there",
                f"start gateways: fedctl gateway --cluster {cluster} ...",
            )
        manifest = view.manifests.get(cluster)
        if manifest is not None and manifest.quarantine is not None:
            missing = ", ".join(map(str, manifest.quarantine.missing))
            yield _cluster(
                *(Severity.ERROR, "a shrink is quarantined", cluster),
                f"{manifest.quarantine.reason}; missing: {missing}",
                f"bring the objects back, or if they are meant to be gone: fedctl accept-shrink "
                f"{cluster}",
            )


def _cluster(severity: Severity, what: str, subject: str, why: str, todo: str) -> Finding:
    return Finding(
        severity=severity, area=Area.CLUSTERS, what=what, subject=subject, why=why, next=todo
    )


def resolver(seen: Evidence) -> Iterator[Finding]:
    """Nobody leads."""
    if seen.view is not None and seen.view.members and seen.leader is None:
        yield Finding(
            severity=Severity.ERROR,
            area=Area.RESOLVER,
            what="no resolver leads",
            subject="resolver",
            why="nobody stands in the election; what is resolved stays in force, weights and "
            "drains wait",
            next="start one: fedctl resolver",
        )


def drains(seen: Evidence) -> Iterator[Finding]:
    """Drains that have not begun, are refused, or take longer than they were asked to."""
    view = seen.view
    if view is None:
        return
    for name, drain in sorted(view.drains.items()):
        state = view.drain_states.get(name)
        undo = f"fedctl undrain {drain.target}"
        if state is None:
            if seen.leader is None:
                continue  # told already: nobody leads
            why = "the leading resolver has not begun it"
            yield _drain("is not under way", name, why, f"fedctl logs --component resolver; {undo}")
        elif state.refusal is not None:
            yield _drain("is refused", name, state.refusal.message, "what it says, or delete it")
        elif state.phase is not DrainPhase.DRAINED:
            due_ms = state.started_at_ms + drain.over_ms + drain.grace_ms + STUCK_SLACK_MS
            late_s = seen.now_s - due_ms / 1000
            if late_s > 0:
                why = (
                    f"it is {state.phase} with {state.remaining_bp / 100:g} % left, {late_s:.0f} s "
                    "after its ramp and grace should be over"
                )
                yield _drain("is stuck", name, why, f"fedctl status; take it back: {undo}")


def _drain(what: str, subject: str, why: str, todo: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        area=Area.DRAINS,
        what=what,
        subject=subject,
        why=why,
        next=todo,
    )


def dns(seen: Evidence) -> Iterator[Finding]:
    """Names that an agent's DNS server does not answer as it should."""
    for answer in seen.answers or ():
        if answer.why:
            yield Finding(
                severity=Severity.ERROR,
                area=Area.DNS,
                what=f"does not resolve {answer.name}",
                subject=f"{answer.cluster} (DNS at {answer.server})",
                why=answer.why,
                next="does the agent serve DNS (--dns), does it know the import (fedctl get "
                "serviceimports), and does its cluster have a gateway with an address?",
            )


def crds(seen: Evidence) -> Iterator[Finding]:
    """Kinds that an API server lacks, or serves in other versions."""
    for kind in seen.kinds or ():
        if set(kind.wanted) & set(kind.served):
            continue
        has = f"it serves {', '.join(kind.served)}" if kind.served else "it is not there"
        yield Finding(
            severity=Severity.ERROR if kind.ours else Severity.WARNING,
            area=Area.CRDS,
            what=f"{kind.kind} is not served as {' or '.join(kind.wanted)}",
            subject=kind.cluster,
            why=f"{has}; objects of it are not read",
            next="fedctl crds | kubectl apply --server-side -f -"
            if kind.ours
            else "install the Gateway API and MCS API definitions (docs/kubernetes.md)",
        )


def policies(seen: Evidence) -> Iterator[Finding]:
    """Policies without effect, and other objects whose conditions say that something is wrong."""
    for each in seen.objects or ():
        if each.kind not in ROUTES:
            yield from _object(each, Area.POLICIES)
        if each.kind in POLICIES and not each.places and not each.unreadable:
            yield Finding(
                severity=Severity.WARNING,
                area=Area.POLICIES,
                what="affects nothing",
                subject=_subject(each),
                why="no object that it targets is there, or no agent has read it yet",
                next=f"look at its targetRef: {_describe(each)}",
            )


def routes(seen: Evidence) -> Iterator[Finding]:
    """Routes that lead nowhere, and services that no cluster can serve."""
    for each in seen.objects or ():
        if each.kind not in ROUTES:
            continue
        yield from _object(each, Area.ROUTES)
        if not each.places and not each.unreadable:
            yield Finding(
                severity=Severity.WARNING,
                area=Area.ROUTES,
                what="is attached to no Gateway",
                subject=_subject(each),
                why="no parent of it has a status of ours",
                next="look at its parentRefs, and at the Gateways: fedctl get gateways -A",
            )
    for service, resolved in sorted((seen.view.resolved if seen.view else {}).items(), key=str):
        for source in resolved.sources:
            if not any(share.weight_bp for share in source.shares):
                why = "; ".join(reason.message for reason in source.reasons)
                yield Finding(
                    severity=Severity.ERROR,
                    area=Area.ROUTES,
                    what=f"calls from {source.region} lead nowhere",
                    subject=str(service),
                    why=why or "no cluster has a share of them",
                    next=f"fedctl explain {service} --from {source.region}",
                )


def _object(each: SeenObject, area: Area) -> Iterator[Finding]:
    if each.unreadable:
        yield Finding(
            severity=Severity.ERROR,
            area=area,
            what="is no valid object and is left out",
            subject=_subject(each),
            why=each.unreadable,
            next="apply it again as it should be, or delete it",
        )
    for condition in each.conditions:
        if _is_bad(condition):
            yield Finding(
                severity=_severity(condition),
                area=area,
                what=f"{condition.type} is {condition.status} ({condition.reason})"
                + (f" at {condition.where}" if condition.where else ""),
                subject=_subject(each),
                why=condition.message or "no message is given",
                next=f"change what it says: {_describe(each)}",
            )
    late = {c.observed_generation for c in each.conditions if c.observed_generation}
    if late and each.generation and max(late) < each.generation:
        yield Finding(
            severity=Severity.WARNING,
            area=area,
            what="its status is of an older generation",
            subject=_subject(each),
            why=f"the object is at generation {each.generation}, its status speaks of {max(late)}",
            next=f"is the agent of {each.cluster} running? fedctl check --only clusters",
        )


def _describe(each: SeenObject) -> str:
    namespace, _, name = each.name.rpartition("/")
    scope = f" -n {namespace}" if namespace else ""
    program = f"kubectl --context {each.context}" if each.context else "fedctl"
    return f"{program} describe {each.kind.lower()} {name}{scope}"


def _is_bad(condition: SeenCondition) -> bool:
    return condition.status == ("True" if condition.type in BAD_IF_TRUE else "False")


def _severity(condition: SeenCondition) -> Severity:
    grave = ("Accepted", "ResolvedRefs", "Programmed", "Valid")
    return Severity.ERROR if condition.type in grave else Severity.WARNING


def _subject(each: SeenObject) -> str:
    return f"{each.cluster}: {each.kind} {each.name}"
