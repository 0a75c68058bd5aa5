"""The way back of a cluster that could take no calls: its part returns in steps, not at once.

Decides: how much of its part a cluster has, from when it became able to take a source's calls.
Leaves to others: who is able (``derive.resolve_inputs``), where the rest of the part goes meanwhile
(``derive.resolve_flow``), keeping the standing (it is stored in the resolution itself, so that the
next leader goes on from it).

    unknown --able--> returning --over_ms--> whole --lost--> lost --able--> returning ...
                         |                                    ^
                         +--lost----------------------------->+  the next return is held first

Invariants: being lost takes effect at once; the first step back does too; within one stay
``returned_bp`` never falls, whatever the clock does. Progress is relative: of those that may take
traffic the one that is furthest on its way counts as whole, since nobody could relieve it. So
clusters that start together have their full parts at once, and weights that people change hold at
once. One that is held is not measured by others that come back, unless all of them are held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from federation.derive.drain import RETURN_OVER_MS, TICK_MS
from federation.model.base import ClusterId
from federation.model.resolved import FULL_SHARE_BP, Standing


@dataclass(frozen=True, slots=True)
class ReturnPace:
    """How fast parts come back.

    ``over_ms``: time in which all of a part returns; 0 returns it at once.
    ``hold_ms``: a cluster that was lost before it had been whole for this long comes and goes; its
    next return waits at the first step for as long, so that flapping swings no more than a step.
    """

    over_ms: int = RETURN_OVER_MS
    hold_ms: int = 10_000


def advance_standings(
    before: Iterable[Standing],
    *,
    able: Collection[ClusterId],
    receiving: Collection[ClusterId],
    known: Collection[ClusterId],
    pace: ReturnPace,
    now_ms: int,
) -> tuple[Standing, ...]:
    """The standings at ``now_ms``.

    ``able`` can take calls, ``receiving`` are those of them that no drain holds, ``known`` are the
    clusters there are: a lost one is remembered as long as it is known.
    """
    last = {entry.cluster: entry for entry in before}
    stays = {cluster: _stay(cluster, last.get(cluster), pace, now_ms) for cluster in sorted(able)}
    own_bp = {cluster: _progress_bp(entry, pace, now_ms) for cluster, entry in stays.items()}
    trusted = [cluster for cluster in receiving if not stays[cluster].held]
    furthest_bp = max((own_bp[c] for c in trusted or receiving or stays), default=FULL_SHARE_BP)
    found = []
    for cluster, entry in stays.items():
        whole_bp = FULL_SHARE_BP if entry.held and trusted else furthest_bp
        returned_bp = min(FULL_SHARE_BP, own_bp[cluster] * FULL_SHARE_BP // whole_bp)
        found.append(_at_least(entry, returned_bp))
    found += [
        entry if entry.lost_ms is not None else _lost(entry, now_ms)
        for cluster, entry in last.items()
        if cluster not in stays and cluster in known
    ]
    return tuple(sorted(found, key=lambda entry: entry.cluster))


def wait_ms(standings: Iterable[Standing], pace: ReturnPace, now_ms: int) -> int | None:
    """How long until a standing changes by time alone; ``None`` if all of them rest."""
    waits = [
        _until_next_step(entry, pace, now_ms)
        for entry in standings
        if entry.lost_ms is None and entry.returned_bp < FULL_SHARE_BP
    ]
    return min(waits, default=None)


def _stay(cluster: ClusterId, last: Standing | None, pace: ReturnPace, now_ms: int) -> Standing:
    """The stay that ``cluster`` is in: the one that goes on, or a new one."""
    if last is not None and last.lost_ms is None:
        if last.since_ms <= now_ms:
            return last
        # Our clock is behind our predecessor's: begin anew rather than wait until it catches up.
        return last.model_copy(update={"since_ms": now_ms})
    return Standing(
        cluster=cluster,
        since_ms=now_ms,
        returned_bp=0,
        held=last is not None and _flaps(last, pace),
    )


def _at_least(entry: Standing, returned_bp: int) -> Standing:
    if entry.returned_bp >= returned_bp:
        return entry
    return entry.model_copy(update={"returned_bp": returned_bp})


def _lost(entry: Standing, now_ms: int) -> Standing:
    return entry.model_copy(update={"returned_bp": 0, "lost_ms": now_ms})


def _flaps(last: Standing, pace: ReturnPace) -> bool:
    """Whether the stay that ended was too short to be trusted."""
    assert last.lost_ms is not None
    return last.lost_ms - last.since_ms < _held_ms(last, pace) + pace.over_ms + pace.hold_ms


def _held_ms(entry: Standing, pace: ReturnPace) -> int:
    return pace.hold_ms if entry.held else 0


def _elapsed_ms(entry: Standing, pace: ReturnPace, now_ms: int) -> int:
    """Time on the way back; negative while it is held."""
    return now_ms - entry.since_ms - _held_ms(entry, pace)


def _progress_bp(entry: Standing, pace: ReturnPace, now_ms: int) -> int:
    if pace.over_ms <= 0:
        return FULL_SHARE_BP
    steps = max(0, _elapsed_ms(entry, pace, now_ms)) // TICK_MS + 1
    return max(1, min(FULL_SHARE_BP, steps * TICK_MS * FULL_SHARE_BP // pace.over_ms))


def _until_next_step(entry: Standing, pace: ReturnPace, now_ms: int) -> int:
    elapsed_ms = _elapsed_ms(entry, pace, now_ms)
    if elapsed_ms < 0:
        return TICK_MS - elapsed_ms
    return TICK_MS - elapsed_ms % TICK_MS
