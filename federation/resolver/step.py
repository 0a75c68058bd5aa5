"""One step of the leading resolver: from a view and the time to the writes that are due.

Decides: which keys change: progress of drains, resolved services that differ from what is stored,
drains that have expired, and last the manifest that seals them.
Leaves to others: resolution (``derive``), transactions and fencing (``resolver.service``).
Invariants: pure; a step whose writes have all been applied has none; nothing is written because of
the wall clock alone, except while a drain moves or a part returns; the manifest is the last write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from federation.derive.drain import advance, refused, starts, wait_ms
from federation.derive.drain_admission import DrainRight, judge_request
from federation.derive.resolve import DEFAULT_PACE, Resolution, resolve
from federation.derive.resolve_return import ReturnPace
from federation.model.base import ServiceName
from federation.model.drain import Drain, DrainState
from federation.model.resolved import ResolvedManifest, ResolvedService, SilentCluster
from federation.model.view import FederationView
from federation.ports import Delete, Put, Write
from federation.wire.etcd import checksum, to_bytes
from federation.wire.etcd_keys import Keys


@dataclass(frozen=True, slots=True)
class Stored:
    """What the resolver has in the store: its own writes, or what a view shows of them."""

    services: Mapping[ServiceName, ResolvedService]
    drain_states: Mapping[str, DrainState]
    manifest: ResolvedManifest | None = None

    @classmethod
    def of(cls, view: FederationView) -> Stored:
        """The resolver's part of ``view``."""
        return cls(view.resolved, view.drain_states, view.resolved_manifest)


@dataclass(frozen=True, slots=True)
class Step:
    """Outcome of a step. ``wait_ms`` is when to step again without news; ``None``: only on news.

    ``writes`` are in order; ``after`` is what is stored once all of them are applied.
    """

    writes: tuple[Write, ...]
    after: Stored
    resolution: Resolution
    wait_ms: int | None


@dataclass(frozen=True, slots=True)
class Leader:
    """Who writes: the term fences, identity and program version are shown."""

    term: int
    identity: str
    release: str = ""


def step(
    view: FederationView,
    *,
    stored: Stored,
    before: Resolution | None,
    leader: Leader,
    keys: Keys,
    now_ms: int,
    pace: ReturnPace = DEFAULT_PACE,
    rights: Collection[DrainRight] = (),
    counted: Callable[[dict[str, DrainState]], dict[str, DrainState]] = dict,
) -> Step:
    """What has to be written so that the store holds what follows from ``view`` at ``now_ms``.

    ``rights`` say what Drain objects of a cluster may drain besides itself and its region;
    ``counted`` gives drains the number of streams that they have still to wait for.
    """
    states, expired = _advanced(view, stored, now_ms, rights)
    states = counted(states)
    resolution = resolve(
        view, drains=states, previous=stored.services, now_ms=now_ms, pace=pace, before=before
    )
    writes: list[Write] = [
        *_drain_writes(keys, stored.drain_states, states, expired),
        *_service_writes(keys, stored.services, resolution.services),
    ]
    sealed = _seal(keys, resolution.services, stored, leader)
    manifest = _manifest(sealed, _silent(view, stored.manifest, now_ms), stored.manifest)
    if manifest != stored.manifest:
        writes.append(Put(keys.resolved_manifest, to_bytes(manifest)))
    waits = [wait for state in states.values() if (wait := wait_ms(state, now_ms)) is not None]
    waits += resolution.waits.values()
    return Step(
        writes=tuple(writes),
        after=Stored(resolution.services, states, manifest),
        resolution=resolution,
        wait_ms=min(waits, default=None),
    )


def _advanced(
    view: FederationView, stored: Stored, now_ms: int, rights: Collection[DrainRight]
) -> tuple[dict[str, DrainState], tuple[str, ...]]:
    """The progress of every drain, and the drains that have expired.

    Those that objects ask for are judged when they are to start, in the order of their age and
    with what started before them in force: of two that contradict each other the older holds.
    """
    states: dict[str, DrainState] = {}
    expired: list[str] = []
    started = dict(stored.drain_states)
    for name in sorted(
        {*view.drains, *started}, key=lambda name: _turn(view.drains.get(name), name)
    ):
        drain, state = view.drains.get(name), started.get(name)
        if drain is not None and drain.cluster is not None and starts(drain, state):
            now = replace(view, drain_states=started)
            refusal = judge_request(drain, now, rights)
            if refusal is not None:
                since_ms = now_ms if state is None or state.refusal is None else state.started_at_ms
                states[name] = started[name] = refused(drain, refusal, since_ms)
                continue
        moved = advance(drain, state, now_ms)
        started.pop(name, None)
        if moved.state is not None:
            states[name] = started[name] = moved.state
        if moved.expired:
            expired.append(name)
    return states, tuple(expired)


def _turn(drain: Drain | None, name: str) -> tuple[int, str]:
    """Place among the drains: by age; what is undone already goes first."""
    return (drain.create_revision if drain is not None else 0, name)


def _drain_writes(
    keys: Keys,
    stored: Mapping[str, DrainState],
    states: Mapping[str, DrainState],
    expired: tuple[str, ...],
) -> list[Write]:
    writes: list[Write] = [Delete(keys.drain(name)) for name in expired]
    for name in sorted({*stored, *states}):
        state = states.get(name)
        if state is None:
            writes.append(Delete(keys.drain_state(name)))
        elif state != stored.get(name):
            writes.append(Put(keys.drain_state(name), to_bytes(state)))
    return writes


def _service_writes(
    keys: Keys,
    stored: Mapping[ServiceName, ResolvedService],
    services: Mapping[ServiceName, ResolvedService],
) -> list[Write]:
    writes: list[Write] = []
    for service in sorted({*stored, *services}, key=str):
        resolved = services.get(service)
        if resolved is None:
            writes.append(Delete(keys.resolved(service)))
        elif resolved != stored.get(service):
            writes.append(Put(keys.resolved(service), to_bytes(resolved)))
    return writes


def _seal(
    keys: Keys, services: Mapping[ServiceName, ResolvedService], stored: Stored, leader: Leader
) -> ResolvedManifest:
    manifest = stored.manifest
    written_by_us = manifest is not None and (
        (manifest.term, manifest.resolver, manifest.count)
        == (leader.term, leader.identity, len(services))
    )
    if manifest is not None and written_by_us and services == stored.services:
        return manifest  # signs of life come every second; sealing anew costs by the service
    values = {keys.resolved(name): to_bytes(value) for name, value in services.items()}
    return ResolvedManifest(
        term=leader.term,
        resolver=leader.identity,
        epoch=0,
        count=len(values),
        checksum=checksum(values),
        release=leader.release,
    )


def _silent(
    view: FederationView, stored: ResolvedManifest | None, now_ms: int
) -> tuple[SilentCluster, ...]:
    """Members without a heartbeat; who was silent before keeps the time of its last word."""
    before = {entry.cluster: entry.since_ms for entry in (stored.silent if stored else ())}
    return tuple(
        SilentCluster(cluster=cluster, since_ms=before.get(cluster, now_ms))
        for cluster in sorted(set(view.members) - set(view.heartbeats))
    )


def _manifest(
    sealed: ResolvedManifest, silent: tuple[SilentCluster, ...], stored: ResolvedManifest | None
) -> ResolvedManifest:
    """The manifest to store; its epoch grows with every change of it."""
    epoch = stored.epoch if stored else 0
    manifest = sealed.model_copy(update={"epoch": epoch, "silent": silent})
    if manifest == stored:
        return manifest
    return manifest.model_copy(update={"epoch": epoch + 1})
