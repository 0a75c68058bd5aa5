"""Drain objects: how far each has come.

Decides: their conditions and progress.
Leaves to others: what an object stands for (``derive.drain_requests``), whether and how it is done
(the leading resolver, whose state is told here).
Invariants: a status speaks of the object as it is now, or says that it is not taken up yet.
"""

from __future__ import annotations

from collections.abc import Mapping

from federation.derive.compile.index import Index
from federation.derive.compile.problem import condition
from federation.derive.drain_requests import REQUESTS_MAX, requested_drains
from federation.model.drain import Drain, DrainState
from federation.model.objects import DrainRequest
from federation.model.resolved import FULL_SHARE_BP, DrainPhase
from federation.model.status import DrainProgress, ObjectStatus

WAITS_FOR_RESOLVER = "no resolver has taken it up yet"


def drain_status(index: Index, source: DrainRequest) -> ObjectStatus:
    """The status of ``source``."""
    view = index.view
    requested = requested_drains(index.cluster, index.objects, view)
    wanted = requested.get(source.metadata.name)
    if wanted is None:
        message = f"{index.cluster} has {REQUESTS_MAX} older Drains; delete one that is not needed"
        return _status(source, DrainProgress(phase="Refused"), accepted=(False, "TooMany", message))
    state = view.drain_states.get(wanted.name)
    published = view.drains.get(wanted.name)
    if state is None or published is None or not _same(state.spec, wanted):
        pending = DrainProgress(phase="Pending")
        return _status(source, pending, accepted=(None, "Pending", WAITS_FOR_RESOLVER))
    if state.refusal is not None:
        verdict = (False, state.refusal.code.value, state.refusal.message)
        return _status(source, DrainProgress(phase="Refused"), accepted=verdict)
    progress = _progress(state)
    return _status(
        source,
        progress,
        accepted=(True, "Accepted", ""),
        drained=(
            progress.phase == DrainPhase.DRAINED.value,
            progress.phase,
            f"{progress.percent_moved} % of the traffic is moved away",
        ),
    )


def _same(known: Drain, wanted: Drain) -> bool:
    return known.model_copy(update={"create_revision": 0}) == wanted


def _progress(state: DrainState) -> DrainProgress:
    phase = state.phase.value
    if state.expired:
        phase = "Returning" if state.returning else "Expired"
    expires_ms = state.spec.expires_ms
    return DrainProgress(
        phase=phase,
        percent_moved=(FULL_SHARE_BP - state.remaining_bp) * 100 // FULL_SHARE_BP,
        streams_left=state.streams_left,
        started_at_ms=state.started_at_ms,
        expires_at_ms=None if expires_ms is None else state.started_at_ms + expires_ms,
    )


Verdict = tuple[bool | None, str, str]
"""Status, reason and message of a condition."""


def _status(
    source: DrainRequest,
    progress: DrainProgress,
    *,
    accepted: Verdict,
    drained: Verdict | None = None,
) -> ObjectStatus:
    verdicts: Mapping[str, Verdict] = {
        "Accepted": accepted,
        "Drained": drained or (False, progress.phase, "no traffic is moved"),
    }
    return ObjectStatus(
        observed_generation=source.metadata.generation,
        conditions=tuple(
            condition(source, kind, status, reason, message)
            for kind, (status, reason, message) in verdicts.items()
        ),
        drain=progress,
    )
