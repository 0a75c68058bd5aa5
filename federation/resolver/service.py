"""The resolver's loop: campaign, and while leading turn every change into fenced writes.

Decides: when to step (on news of the state, and by the clock while a drain moves), how writes are
split into transactions, what happens when the store or the lead is lost.
Leaves to others: what to write (``resolver.step``), the election and the mirror (adapters).
Invariants: one step at a time, and only on a view that already shows the last one's writes; every
transaction is guarded by the election key, so a former leader writes nothing; losing the store
writes nothing and ends nothing: the loop tries again for ever; a standby reads and writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import NoReturn

from opentelemetry.trace import Span, Tracer, use_span

from federation.aio import Backoff, cancel_and_wait, retrying
from federation.derive.resolve import Resolution
from federation.model.drain import DrainState
from federation.ports import (
    MAX_WRITES,
    Clock,
    CreatedAt,
    Leadership,
    Listing,
    PortError,
    Put,
    Store,
    StoreUnavailable,
    TemporaryError,
    Write,
)
from federation.resolver.observe import Seen, observe
from federation.resolver.settings import ResolverSettings
from federation.resolver.step import Leader, Step, Stored, step
from federation.resolver.streams import EVERY_S, DrainStreams
from federation.telemetry import Sample, catalogue, count, spans, timed
from federation.wire.etcd import StoredProblem, ViewReader
from federation.wire.etcd_keys import Keys

log = logging.getLogger(__name__)


BATCH_BYTES_MAX = 1_000_000
"""Bytes of values in one commit; etcd refuses requests of more than 1.5 MiB."""


class LeadershipLostError(TemporaryError):
    """Another resolver may lead now; campaign again."""


class Resolver:
    """Any number may run; ``run`` leads when it is its turn and otherwise waits."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        keys: Keys,
        settings: ResolverSettings,
        tracer: Tracer | None = None,
    ) -> None:
        """``tracer`` takes spans of decisions (``None``: none are made)."""
        self._tracer = tracer
        self._leads: _Term | None = None
        self._store = store
        self._clock = clock
        self._keys = keys
        self._settings = settings
        self._term: int | None = None

    def __repr__(self) -> str:
        state = f"leading, term={self._term}" if self.leading else "standby"
        return f"Resolver({self._settings.identity}, {state})"

    @property
    def leading(self) -> bool:
        """Whether this resolver leads, as far as it knows."""
        return self._term is not None

    def observe(self) -> Iterator[Sample]:
        """The gauges of this resolver as they are now."""
        return observe(self._leads.seen if self._leads else None, now_s=self._clock.now())

    async def run(self) -> NoReturn:
        """Campaign and lead, for ever."""
        backoff = Backoff(max_s=self._settings.retry_max_s)
        await retrying(
            self._one_term,
            on=PortError,
            backoff=backoff,
            before_wait=self._report_failure,
        )
        raise AssertionError("a term ends with an exception")

    async def _one_term(self) -> NoReturn:
        async with self._store.campaign(
            self._keys.resolver_election,
            identity=self._settings.identity,
            ttl_s=self._settings.lease_ttl_s,
        ) as leadership:
            self._term = leadership.term
            log.info("leading", extra={"term": leadership.term, "key": leadership.key})
            try:
                await self._until_lost(leadership)
            finally:
                self._term, self._leads = None, None
        raise LeadershipLostError(
            f"{self._settings.identity} lost the lead of term {leadership.term}"
        )

    async def _until_lost(self, leadership: Leadership) -> None:
        work = asyncio.create_task(self._lead(leadership), name="resolve")
        lost = asyncio.create_task(leadership.lost(), name="watch the lead")
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            await cancel_and_wait(work)
            await cancel_and_wait(lost)

    async def _lead(self, leadership: Leadership) -> None:
        term = _Term(self._store, self._clock, self._keys, leadership, self._settings, self._tracer)
        self._leads = term
        async with aclosing(self._store.mirror(self._keys.state)) as listings:
            await self._follow(term, listings)

    async def _follow(self, term: _Term, listings: AsyncGenerator[Listing, None]) -> None:
        """Step on every listing, when the last step asked to be called again, and when streams of
        a drain have gone."""
        clock = asyncio.get_running_loop().time
        due_at: float | None = None
        news = asyncio.ensure_future(anext(listings, None))
        counting = asyncio.create_task(term.streams.run(), name="streams of drains")
        try:
            while True:
                wait_s = None if due_at is None else max(0.0, due_at - clock())
                if term.drains:
                    wait_s = EVERY_S if wait_s is None else min(wait_s, EVERY_S)
                await asyncio.wait({news}, timeout=wait_s)
                is_due = due_at is not None and clock() >= due_at
                has_news = news.done()
                if has_news:
                    term.look(news.result())
                elif not is_due and not term.streams_moved():
                    continue
                next_s = await term.step()
                due_at = None if next_s is None else clock() + next_s
                if has_news:  # what comes during a step is looked at next
                    # Whatever comes meanwhile is one listing, the newest, when it is asked for.
                    await asyncio.sleep(self._settings.coalesce_s)
                    news = asyncio.ensure_future(anext(listings, None))
        finally:
            await cancel_and_wait(news)
            await cancel_and_wait(counting)

    def _report_failure(self, failure: Exception, attempt: int, wait_s: float) -> None:
        count(catalogue.TERMS_LOST)
        log.warning(
            "not leading, campaigning again",
            extra={"reason": str(failure), "attempt": attempt, "wait_s": round(wait_s, 3)},
        )


class _Term:
    """What one leader knows during its term."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        keys: Keys,
        leadership: Leadership,
        settings: ResolverSettings,
        tracer: Tracer | None,
    ) -> None:
        self._tracer = tracer
        self.seen: Seen | None = None
        self._store = store
        self._clock = clock
        self._keys = keys
        self._fence = CreatedAt(leadership.key, leadership.term)
        self._leader = Leader(leadership.term, settings.identity, settings.release)
        self._pace = settings.pace
        self._rights = settings.drain_rights
        self._reader = ViewReader(keys, now=clock.now)
        self.streams = DrainStreams(store, keys)
        self.drains: Mapping[str, DrainState] = {}
        self._listing: Listing | None = None
        self._written_revision = 0
        self._resolution: Resolution | None = None
        self._problems: tuple[StoredProblem, ...] = ()

    def look(self, listing: Listing | None) -> None:
        """Take in the mirror's newest listing, unless a newer one was read directly."""
        if listing is None:
            raise LeadershipLostError("the mirror of the state ended; the store was closed")
        if self._listing is None or listing.revision >= self._listing.revision:
            self._listing = listing

    def streams_moved(self) -> bool:
        """Whether the streams of a drain are other than was written."""
        return self.streams.moved(self.drains)

    async def step(self) -> float | None:
        """Write what is due; returns the seconds until the next step if there is no news."""
        if self._listing is None or self._listing.revision < self._written_revision:
            return None
        began_ns = time.time_ns()
        with timed(catalogue.DECISION_SECONDS):
            planned = self._plan(self._listing)
        count(catalogue.DECISIONS)
        self._resolution = planned.resolution
        self.drains = planned.after.drain_states
        if planned.writes:
            try:
                with self._traced(planned, began_ns, self._listing.revision):
                    await self._write(planned.writes)
            except StoreUnavailable as error:
                log.warning(
                    "writing derived state failed, reading back", extra={"reason": str(error)}
                )
                self._listing = await self._store.list(self._keys.state)
                return 0.0
        return None if planned.wait_ms is None else planned.wait_ms / 1000

    @contextmanager
    def _traced(self, planned: Step, began_ns: int, revision: int) -> Iterator[None]:
        """One span of the decision since ``began_ns``, in it one of the writes, the body."""
        if self._tracer is None:
            yield
            return
        decision: Span = self._tracer.start_span(spans.DECISION, start_time=began_ns)
        decision.set_attributes(
            {
                spans.TERM: self._leader.term,
                spans.REVISION: revision,
                spans.WRITES: len(planned.writes),
                spans.SERVICES: len(planned.after.services),
            }
        )
        with (
            use_span(decision, end_on_exit=True),
            self._tracer.start_as_current_span(spans.WRITE),
        ):
            yield

    def _plan(self, listing: Listing) -> Step:
        reading = self._reader.read(listing.revision, listing.entries)
        for problem in reading.problems:
            if problem not in self._problems:
                log.warning("stored value skipped", extra={"reason": str(problem)})
        self._problems = reading.problems
        planned = step(
            reading.view,
            stored=Stored.of(reading.view),
            before=self._resolution,
            leader=self._leader,
            keys=self._keys,
            now_ms=int(self._clock.now() * 1000),
            pace=self._pace,
            rights=self._rights,
            counted=self.streams.counted,
        )
        self.seen = Seen(self._leader.term, reading.view, planned.after, len(reading.problems))
        return planned

    async def _write(self, writes: Sequence[Write]) -> None:
        for batch in batches(writes):
            revision = await self._store.commit(batch, guards=[self._fence])
            if revision is None:
                raise LeadershipLostError(
                    f"term {self._leader.term} is over: {self._fence.key} is gone"
                )
            self._written_revision = revision
            count(catalogue.DERIVED_WRITES, by=len(batch))
        log.info(
            "derived state written",
            extra={"writes": len(writes), "revision": self._written_revision},
        )


def batches(writes: Iterable[Write]) -> Iterator[Sequence[Write]]:
    """``writes`` in order, in commits that the store takes.

    A value that is too large by itself goes alone, so that its refusal names it.
    """
    batch: list[Write] = []
    size = 0
    for write in writes:
        added = len(write.value) if isinstance(write, Put) else 0
        if batch and (len(batch) == MAX_WRITES or size + added > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(write)
        size += added
    if batch:
        yield batch
