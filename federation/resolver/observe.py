"""What the leading resolver shows of itself when somebody asks: gauges from its last step.

Decides: which numbers follow from a step; when a drain is overdue.
Leaves to others: the step, counting (``service``), serving (``cli.health``).
Invariants: one that does not lead shows nothing but that; series by service are bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from federation.model.drain import DrainState
from federation.model.resolved import (
    FULL_SHARE_BP,
    DrainPhase,
    ResolvedManifest,
    ResolvedService,
    SourceResolution,
)
from federation.model.view import FederationView
from federation.resolver.step import Stored
from federation.telemetry import NAMED_MAX, MetricSpec, Sample, catalogue

OBSERVED: tuple[MetricSpec, ...] = (
    catalogue.LEADING,
    catalogue.TERM,
    catalogue.CLUSTERS,
    catalogue.STALE,
    catalogue.SERVICES,
    catalogue.NO_TARGET,
    catalogue.NO_FAILOVER,
    catalogue.TIER,
    catalogue.DRAIN_REMAINING,
    catalogue.DRAIN_PHASE,
    catalogue.DRAIN_OVERDUE,
    catalogue.DRAIN_STREAMS,
    catalogue.DRAINS_REFUSED,
    catalogue.STORED_PROBLEMS,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a leader knew and concluded in its last step; ``problems`` are unreadable values."""

    term: int
    view: FederationView
    stored: Stored
    problems: int


def observe(seen: Seen | None, *, now_s: float) -> Iterator[Sample]:
    """All gauges of ``OBSERVED``; ``None``: this resolver does not lead."""
    yield catalogue.LEADING, (), float(seen is not None)
    yield catalogue.TERM, (), float(seen.term if seen is not None else 0)
    if seen is None:
        return
    yield catalogue.STORED_PROBLEMS, (), float(seen.problems)
    yield from _clusters(seen.view, seen.stored.manifest, now_s)
    yield from _services(seen)
    yield from _drains(seen, now_s)


def _clusters(
    view: FederationView, manifest: ResolvedManifest | None, now_s: float
) -> Iterator[Sample]:
    yield catalogue.CLUSTERS, (), float(len(view.members))
    since_s = {it.cluster: it.since_ms / 1000 for it in (manifest.silent if manifest else ())}
    for cluster in sorted(view.members):
        silent_s = max(now_s - since_s[cluster], 0.0) if cluster in since_s else 0.0
        yield catalogue.STALE, (cluster,), silent_s


def _services(seen: Seen) -> Iterator[Sample]:
    services = seen.stored.services
    states = Counter(_state(service) for service in services.values())
    for state in ("as_asked", "moved", "no_target"):
        yield catalogue.SERVICES, (state,), float(states[state])
    for name in islice(sorted(services, key=str), NAMED_MAX):
        several = len(seen.view.exports.get(name, {})) > 1
        for source in services[name].sources:
            labels = (str(name), source.region)
            yield catalogue.TIER, labels, float(_tier(source))
            if not source.shares:
                yield catalogue.NO_TARGET, labels, 1.0
            elif several and _alone(source):
                yield catalogue.NO_FAILOVER, labels, 1.0


def _state(service: ResolvedService) -> str:
    if any(not source.shares for source in service.sources):
        return "no_target"
    moved = any(
        share.weight_bp != share.weight_asked_bp
        for source in service.sources
        for share in source.shares
    )
    return "moved" if moved else "as_asked"


def _tier(source: SourceResolution) -> int:
    """The tier that takes a source's calls, as far as the resolver knows."""
    if not source.shares:
        return -1
    served = any(share.weight_bp and share.weight_asked_bp for share in source.shares)
    asked = any(share.weight_asked_bp for share in source.shares)
    return 0 if served or not asked else 1


def _alone(source: SourceResolution) -> bool:
    """Whether all calls go to one cluster that has nowhere to fail over to."""
    taking = [share for share in source.shares if share.weight_bp]
    return len(taking) == 1 and not taking[0].failover


def _drains(seen: Seen, now_s: float) -> Iterator[Sample]:
    states = seen.stored.drain_states
    refused = sum(state.refusal is not None for state in states.values())
    yield catalogue.DRAINS_REFUSED, (), float(refused)
    for name in sorted(states):
        state = states[name]
        if state.idle:
            continue
        yield catalogue.DRAIN_REMAINING, (name,), state.remaining_bp / FULL_SHARE_BP
        phase = "Returning" if state.returning else str(state.phase)
        yield catalogue.DRAIN_PHASE, (name, phase), 1.0
        if state.streams_left is not None:
            yield catalogue.DRAIN_STREAMS, (name,), float(state.streams_left)
        yield catalogue.DRAIN_OVERDUE, (name,), overdue_s(state, now_s)


def overdue_s(state: DrainState, now_s: float) -> float:
    """Since when a drain should be through its phases, by its ramp and its grace, and is not."""
    if state.returning:
        due_ms, done = (state.returning_since_ms or 0) + state.spec.over_ms, False
    else:
        due_ms = state.started_at_ms + state.spec.over_ms + state.spec.grace_ms
        done = state.phase is DrainPhase.DRAINED
    return 0.0 if done else max(now_s - due_ms / 1000, 0.0)
