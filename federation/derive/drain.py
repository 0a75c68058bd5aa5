"""The course of a drain: its ramp down, its grace, and the way its weight comes back.

Decides: how much of a target's weight is still served at a given moment, when a drain is over.
Leaves to others: whether a drain may start (``derive.drain_admission``), where the weight goes
(``derive.resolve``), what gateways do with open streams (``derive.compile``), keeping the state
(the leading resolver).

    (no state) --drain--> Ramping --over_ms--> Draining --grace_ms--> Drained
                             |                    |                     |
                             +------- undo or expiry: returning --------+--> (no state)

A drain of an object that has expired keeps an idle state, so that it does not start again while the
object is there as it was; a refused one has an idle state until it may start.

Invariants: while a drain holds, ``remaining_bp`` never rises; while its weight returns, it never
falls; both move at a bounded rate, whatever the clock does in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import Drain, DrainState, DrainTargetKind, Refusal
from federation.model.resolved import FULL_SHARE_BP, ClusterDrain, DrainPhase

RETURN_OVER_MS = 5_000
"""Time in which all of a share comes back: long enough for the returning cluster's caches and pools
to warm, short enough that a mistaken drain is undone soon."""

TICK_MS = 500
"""Time between two steps of a ramp: 60 steps in the default ramp, 1.7 % each."""

_PHASE_ORDER = (DrainPhase.RAMPING, DrainPhase.DRAINING, DrainPhase.DRAINED)


@dataclass(frozen=True, slots=True)
class DrainStep:
    """Outcome of a step. ``state`` ``None`` ends the progress; ``expired``: delete the drain.

    The drain of an object is never deleted by us: its state remembers that it has expired.
    """

    state: DrainState | None
    expired: bool = False


@dataclass(frozen=True, slots=True)
class DrainEffect:
    """What all drains together do to one cluster for one service.

    ``visible`` is what gateways are told; weight that is only returning is not told, since the
    cluster's endpoints serve again.
    """

    remaining_bp: int = FULL_SHARE_BP
    visible: ClusterDrain | None = None

    @property
    def draining(self) -> bool:
        """Whether a drain holds now."""
        return self.visible is not None


NO_EFFECT = DrainEffect()


def drain_name(target: str, service: ServiceName | None) -> str:
    """The name of the one drain of ``target`` for ``service`` (``None``: for all services)."""
    return target if service is None else f"{target}.{service.namespace}.{service.name}"


def advance(drain: Drain | None, state: DrainState | None, now_ms: int) -> DrainStep:
    """The progress of ``drain`` (``None``: it was undone) at ``now_ms``."""
    if state is not None:
        state = _by_our_clock(state, now_ms)
    if drain is None or (state is not None and not drain.speaks_of_the_same(state.spec)):
        ending = state is None or state.idle
        return DrainStep(None if state is None or ending else _returned(state, now_ms))
    if state is not None and state.expired and state.spec == drain:
        return DrainStep(_expired(state, now_ms))
    if state is None or state.idle:
        state = DrainState(
            drain=drain.name,
            spec=drain,
            started_at_ms=now_ms,
            phase=DrainPhase.RAMPING,
            remaining_bp=FULL_SHARE_BP,
        )
    elif state.returning:
        state = _resumed(drain, state, now_ms)
    if drain.expires_ms is not None and now_ms - state.started_at_ms >= drain.expires_ms:
        if drain.cluster is None:
            return DrainStep(_returned(state, now_ms), expired=True)
        return DrainStep(_expired(state.model_copy(update={"spec": drain}), now_ms))
    return DrainStep(_ramped(drain, state, now_ms))


def starts(drain: Drain, state: DrainState | None) -> bool:
    """Whether ``drain`` is yet to start, so that it has to be admitted first."""
    if state is None or state.refusal is not None:
        return True
    return state.idle and drain != state.spec


def refused(drain: Drain, refusal: Refusal, now_ms: int) -> DrainState:
    """The state of a drain that does not start. Its time is when it was first refused."""
    return DrainState(
        drain=drain.name,
        spec=drain,
        started_at_ms=now_ms,
        phase=DrainPhase.RAMPING,
        remaining_bp=FULL_SHARE_BP,
        refusal=refusal,
    )


def wait_ms(state: DrainState, now_ms: int) -> int | None:
    """How long until ``state`` changes by time alone; ``None`` if it rests."""
    if state.idle:
        return None
    if state.returning_since_ms is not None:
        return TICK_MS - max(0, now_ms - state.returning_since_ms) % TICK_MS
    elapsed_ms = max(0, now_ms - state.started_at_ms)
    waits = []
    if state.phase is DrainPhase.RAMPING:
        waits += [TICK_MS - elapsed_ms % TICK_MS, state.spec.over_ms - elapsed_ms]
    if state.phase is DrainPhase.DRAINING:
        waits.append(state.spec.over_ms + state.spec.grace_ms - elapsed_ms)
    if state.spec.expires_ms is not None:
        waits.append(state.spec.expires_ms - elapsed_ms)
    return max(1, min(waits)) if waits else None


def effect(
    states: Iterable[DrainState], *, cluster: ClusterId, region: Region, service: ServiceName
) -> DrainEffect:
    """What ``states`` do to ``cluster`` for ``service``; of several drains the strictest counts."""
    hits = sorted(
        (
            state
            for state in states
            if not state.idle and targets(state.spec, cluster, region, service)
        ),
        key=lambda state: (state.remaining_bp, -_PHASE_ORDER.index(state.phase), state.drain),
    )
    if not hits:
        return NO_EFFECT
    holding = [state for state in hits if not state.returning]
    visible = None
    if holding:
        strictest = holding[0]
        visible = ClusterDrain(
            cluster=cluster,
            phase=strictest.phase,
            remaining_bp=strictest.remaining_bp,
            grace_ms=strictest.spec.grace_ms,
            drain=strictest.drain,
        )
    return DrainEffect(remaining_bp=hits[0].remaining_bp, visible=visible)


def targets(drain: Drain, cluster: ClusterId, region: Region, service: ServiceName) -> bool:
    """Whether ``drain`` speaks of ``cluster`` and ``service``."""
    named = region if drain.target_kind is DrainTargetKind.REGION else cluster
    return drain.target == named and drain.service in (None, service)


def _ramped(drain: Drain, state: DrainState, now_ms: int) -> DrainState:
    elapsed_ms = max(0, now_ms - state.started_at_ms)
    planned_bp = 0
    if elapsed_ms < drain.over_ms:
        planned_bp = FULL_SHARE_BP - _whole_ticks(elapsed_ms) * FULL_SHARE_BP // drain.over_ms
    remaining_bp = min(state.remaining_bp, planned_bp)
    if remaining_bp > 0:
        phase = DrainPhase.RAMPING
    elif elapsed_ms < drain.over_ms + drain.grace_ms:
        phase = DrainPhase.DRAINING
    else:
        phase = DrainPhase.DRAINED
    phase = max(phase, state.phase, key=_PHASE_ORDER.index)
    return state.model_copy(update={"spec": drain, "phase": phase, "remaining_bp": remaining_bp})


def _returned(state: DrainState, now_ms: int) -> DrainState | None:
    since_ms = now_ms if state.returning_since_ms is None else state.returning_since_ms
    from_bp = state.returning_from_bp if state.returning else state.remaining_bp
    elapsed_ms = _whole_ticks(max(0, now_ms - since_ms))
    planned_bp = from_bp + elapsed_ms * FULL_SHARE_BP // RETURN_OVER_MS
    remaining_bp = max(state.remaining_bp, min(planned_bp, FULL_SHARE_BP))
    if remaining_bp == FULL_SHARE_BP:
        return None
    return state.model_copy(
        update={
            "phase": DrainPhase.RAMPING,
            "remaining_bp": remaining_bp,
            "returning_since_ms": since_ms,
            "returning_from_bp": from_bp,
        }
    )


def _expired(state: DrainState, now_ms: int) -> DrainState:
    """A drain of an object after its time: its weight returns, then it rests."""
    moved = None if state.idle else _returned(state, now_ms)
    if moved is None:
        moved = state.model_copy(
            update={
                "phase": DrainPhase.RAMPING,
                "remaining_bp": FULL_SHARE_BP,
                "returning_since_ms": None,
                "returning_from_bp": 0,
            }
        )
    return moved.model_copy(update={"expired": True})


def _resumed(drain: Drain, state: DrainState, now_ms: int) -> DrainState:
    """A drain asked for again while its weight was returning goes on from where that stands."""
    return state.model_copy(
        update={
            "started_at_ms": _start_for(state, drain, now_ms),
            "returning_since_ms": None,
            "returning_from_bp": 0,
            "expired": False,
        }
    )


def _by_our_clock(state: DrainState, now_ms: int) -> DrainState:
    """``state`` as it is, unless it began in our future: the clock of who began it was ahead of
    ours. Then it goes on from where it stands, instead of resting until our clock catches up.
    """
    update: dict[str, int] = {}
    if state.started_at_ms > now_ms:
        update["started_at_ms"] = _start_for(state, state.spec, now_ms)
    if state.returning_since_ms is not None and state.returning_since_ms > now_ms:
        update |= {"returning_since_ms": now_ms, "returning_from_bp": state.remaining_bp}
    return state.model_copy(update=update) if update else state


def _start_for(state: DrainState, drain: Drain, now_ms: int) -> int:
    """When a ramp like ``drain`` must have begun to leave now what ``state`` leaves."""
    return now_ms - (FULL_SHARE_BP - state.remaining_bp) * drain.over_ms // FULL_SHARE_BP


def _whole_ticks(elapsed_ms: int) -> int:
    """Progress counts in whole ticks, so that looking twice within one writes nothing."""
    return elapsed_ms // TICK_MS * TICK_MS
