"""The console's timeline: which moves of weights are one entry, and which are another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from federation.adapters.clock import SystemClock
from federation.console.history import Timeline, Wanted
from federation.derive.timeline import Kind
from federation.model.base import ServiceName, Value
from federation.model.drain import Drain, DrainState, DrainTargetKind
from federation.model.resolved import (
    ClusterShare,
    DrainPhase,
    Reason,
    ReasonCode,
    ResolvedService,
    SourceResolution,
)
from federation.ports import Changed, Changes
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys

KEYS = Keys()
USERS = ServiceName(namespace="app", name="users")

pytestmark = pytest.mark.timeout(20)


class Past:
    """A store's history, written change by change: each in a revision of its own."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._changes: list[Changed] = []
        self._revision = 1

    def put(self, **values: Value | None) -> None:
        """Write (``None``: delete) ``drain``, ``state`` and ``resolved`` in one revision."""
        keys = {
            "drain": KEYS.drain("east"),
            "state": KEYS.drain_state("east"),
            "resolved": KEYS.resolved(USERS),
        }
        self._revision += 1
        for name, value in values.items():
            raw = to_bytes(value) if value is not None else None
            before = self._values.pop(keys[name], None)
            self._changes.append(Changed(keys[name], self._revision, before, raw))
            if raw is not None:
                self._values[keys[name]] = raw

    async def history(self, prefix: str, *, revisions_max: int) -> AsyncGenerator[Changes, None]:
        """All of it, once."""
        yield Changes(self._revision, tuple(self._changes), since=1)


def east(weight_bp: int) -> ResolvedService:
    """Weights in force while region east is drained."""
    code = ReasonCode.DRAINED if weight_bp == 0 else ReasonCode.DRAINING
    share = ClusterShare(
        cluster="east",
        region="east",
        weight_asked_bp=10_000,
        weight_bp=weight_bp,
        failover=(),
        reasons=(Reason(code=code, message="region east is drained"),),
    )
    return ResolvedService(
        service=USERS, sources=(SourceResolution(region="west", shares=(share,)),)
    )


def asked(*, over_ms: int = 30_000) -> Drain:
    return Drain(name="east", target_kind=DrainTargetKind.REGION, target="east", over_ms=over_ms)


def started(at_ms: int, remaining_bp: int) -> DrainState:
    return DrainState(
        drain="east",
        spec=asked(),
        started_at_ms=at_ms,
        phase=DrainPhase.RAMPING,
        remaining_bp=remaining_bp,
    )


def moves(past: Past) -> list[tuple[int, list[tuple[str, str]]]]:
    """How many changes each entry of weights has in it, and from where to where; oldest first."""
    timeline = Timeline(past, KEYS, SystemClock(), revisions=1000, entries=100)
    asyncio.run(timeline.run())
    entries: list[dict[str, Any]] = timeline.page(Wanted(kind=Kind.RESOLUTION))["entries"]
    return [
        (entry["count"], [(it["before"], it["after"]) for it in entry["changes"]])
        for entry in reversed(entries)
    ]


def test_one_drains_ramp_is_one_entry() -> None:
    past = Past()
    past.put(resolved=east(10_000))
    past.put(drain=asked())
    for number, left in enumerate((8_000, 6_000, 4_000)):
        past.put(state=started(1_000, left), resolved=east(left))
        assert len(moves(past)) == 2, number
    assert moves(past)[-1] == (3, [("100 %", "40 %")])


@pytest.mark.parametrize("resolved_first", [False, True])
def test_the_next_drain_has_an_entry_of_its_own(resolved_first: bool) -> None:
    """Whichever of a revision's values is told first."""
    past = Past()
    past.put(resolved=east(10_000))
    for at_ms in (1_000, 90_000):
        for left in (8_000, 4_000):
            both: dict[str, Value] = {"state": started(at_ms, left), "resolved": east(left)}
            past.put(**dict(sorted(both.items(), reverse=not resolved_first)))
        past.put(resolved=east(10_000))
    ramps = [found for count, found in moves(past) if count > 1]
    assert ramps == [[("100 %", "100 %")]] * 2


def test_a_drain_that_is_changed_is_told_apart() -> None:
    past = Past()
    past.put(resolved=east(10_000))
    past.put(drain=asked())
    past.put(resolved=east(8_000))
    past.put(drain=asked(over_ms=1_000))
    past.put(resolved=east(5_000))
    assert moves(past)[1:] == [(1, [("100 %", "80 %")]), (1, [("80 %", "50 %")])]
