"""Brings the stored facts and gateway addresses of the cluster to what is so here.

Decides: when to publish (objects, gateways or the stored facts have changed) and what was seen to
be deleted: a service that was exported in this process's life and is no longer.
Leaves to others: the plan (``publication``), the addresses (``entrances``), the claim (``claim``).
Invariants: facts come from live objects and are compared with live state only; every write is
guarded by the claim, facts also by the seal they were planned against, so that nothing is written
on top of what was not read; a lost answer is settled by reading, not by writing again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing

from federation.agent.claim import Claim, claim
from federation.agent.entrances import entrances, service_gateways
from federation.agent.names import ResolvedNames
from federation.agent.publication import Batch, Publication, Stored, plan
from federation.agent.settings import AgentSettings
from federation.agent.state import ClusterObjects, FederationState
from federation.aio import Backoff, Latest, any_change, retrying
from federation.derive.drain_requests import requested_drains
from federation.derive.entrances import service_entrances
from federation.derive.exports import ClusterFacts, FactDeriver
from federation.model.acks import AckView
from federation.model.base import ServiceName
from federation.model.facts import ClusterGateways, Member, Quarantine
from federation.ports import Absent, Clock, Entry, Guard, Put, Store, TemporaryError, Unchanged
from federation.telemetry import catalogue, count, gauge
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys
from federation.wire.timestamps import timestamp

log = logging.getLogger(__name__)


class OutdatedError(TemporaryError):
    """A guard failed: the claim or the seal is not what the plan was made against."""


class Publisher:
    """The loop and what it remembers: the claim, and which services were here in its life."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        store: Store,
        keys: Keys,
        member: Member,
        clock: Clock,
        objects: Latest[ClusterObjects],
        federation: Latest[FederationState],
        acks: Latest[AckView],
        names: Latest[ResolvedNames],
    ) -> None:
        """``names``: addresses of the load balancer in front of the gateways, by its names."""
        self._settings = settings
        self._names = names
        self._store = store
        self._keys = keys
        self._member = member
        self._clock = clock
        self._objects = objects
        self._federation = federation
        self._acks = acks
        self._deriver = FactDeriver(member.cluster, settings.region)
        self._claim: Claim | None = None
        self._publishing = False
        self._seen: set[ServiceName] = set()
        self._seen_slices: set[ServiceName] = set()
        self._written = 0
        self._settled: object = None
        self._quarantine: Quarantine | None = None

    def __repr__(self) -> str:
        state = "quarantined" if self._quarantine is not None else "publishing"
        return f"Publisher({self._member.cluster}, {state}, revision={self._written})"

    def begin(self, member: Member) -> None:
        """Publish as ``member`` from now on, and believe nothing that was concluded before."""
        self._member = member
        self._claim, self._settled, self._written = None, None, 0

    async def run(self) -> None:
        """Publish after every change, for ever.

        Raises ``NameTakenError``, and ``OvertakenError`` when another agent of the cluster leads.
        """
        self._publishing = True
        cells = (self._objects, self._federation, self._acks, self._names)
        try:
            async with aclosing(any_change(*cells)) as changes:
                async for _ in changes:
                    await retrying(
                        self.step,
                        on=TemporaryError,
                        backoff=Backoff(max_s=1.0),
                        before_wait=self._note,
                    )
        finally:
            self._publishing = False

    async def watch(self) -> None:
        """While another agent publishes, note which services are here, for ever.

        So what is deleted before we publish was seen to go, and is no loss to doubt.
        """
        async with aclosing(any_change(self._objects)) as changes:
            async for _ in changes:
                objects, federation = self._objects.value, self._federation.value
                known = objects is not None and objects.live and federation is not None
                if known and not self._publishing:
                    assert objects is not None
                    assert federation is not None
                    self._facts(objects, federation)

    async def step(self) -> None:
        """Compare and write what differs. Does nothing while something is not known live."""
        objects, federation = self._objects.value, self._federation.value
        if objects is None or federation is None or not (objects.live and federation.live):
            return
        if federation.listing.revision < self._written:
            return  # our own last write is still on its way to us
        facts = self._facts(objects, federation)
        basis = facts, self._basis(objects, federation)
        if basis == self._settled:
            return  # what changed is others' business: heartbeats, what is not exported
        if self._claim is None:
            self._claim = await claim(
                self._store, self._keys, self._member, overtake=not self._member.leader
            )
        publication = self._plan(facts, objects, federation)
        done = await self._commit_gateways(self._claim, objects, federation)
        done = done and await self._commit_facts(self._claim, federation, publication.batches)
        if not done:
            self._claim = None  # look who holds the name now
            raise OutdatedError("planned on an older state of the store; planning anew")
        self._tell_quarantine(publication.quarantine)
        self._settled = basis

    def _basis(self, objects: ClusterObjects, federation: FederationState) -> object:
        """All that a plan depends on besides the facts, to compare with what the last one was
        made from."""
        cluster, facts = self._member.cluster, self._keys.facts(self._member.cluster)
        entries = federation.listing.entries
        own = [entry for entry in entries if entry.key.startswith(facts)]
        stored = federation.view.gateways.get(cluster)
        drains = requested_drains(cluster, objects.routed, federation.view)
        return own, stored, self._wanted_gateways(objects, stored), drains

    def _facts(self, objects: ClusterObjects, federation: FederationState) -> ClusterFacts:
        """The facts; the services that are in them and those with slices are noted as seen."""
        facts = self._deriver.derive(objects.shown, federation.view.exports)
        self._seen |= _shown(facts)
        self._seen_slices |= {name for name, _ in facts.endpoints}
        return facts

    def _plan(
        self, facts: ClusterFacts, objects: ClusterObjects, federation: FederationState
    ) -> Publication:
        cluster = self._member.cluster
        return plan(
            self._keys,
            cluster,
            Stored.of(self._keys, cluster, federation.view, federation.listing.entries),
            facts,
            deleted=self._seen - _shown(facts),
            emptied=self._seen_slices - {name for name, _ in facts.endpoints},
            now=timestamp(self._clock.now()),
            # What routing still believes to be there is: a source that lost most objects has not
            # undone a drain.
            drains=requested_drains(cluster, objects.routed, federation.view),
        )

    def _wanted_gateways(
        self, objects: ClusterObjects, stored: ClusterGateways | None
    ) -> ClusterGateways | None:
        cluster, region = self._member.cluster, self._settings.region
        service = self._settings.compile.gateway_service
        if service is not None:
            found = service_entrances(objects.shown, service, resolved=self._names.value or {})
            return service_gateways(stored, found, service=service, cluster=cluster, region=region)
        acks = self._acks.value or AckView()
        return entrances(stored, acks.nodes, left=acks.left, cluster=cluster, region=region)

    async def _commit_gateways(
        self, held: Claim, objects: ClusterObjects, federation: FederationState
    ) -> bool:
        cluster = self._member.cluster
        stored = federation.view.gateways.get(cluster)
        wanted = self._wanted_gateways(objects, stored)
        if wanted is None or wanted == stored:
            return True
        put = Put(self._keys.gateways(cluster), to_bytes(wanted))
        revision = await self._store.commit([put], guards=[held.guard])
        if revision is not None:
            self._written = revision
            addresses = [peer.address for peer in wanted.gateways]
            log.info("gateways published", extra={"addresses": addresses})
        return revision is not None

    async def _commit_facts(
        self, held: Claim, federation: FederationState, batches: Sequence[Batch]
    ) -> bool:
        key = self._keys.manifest(self._member.cluster)
        seal = _seal_guard(key, federation.listing.entries)
        for batch in batches:
            revision = await self._store.commit(batch.writes, guards=[held.guard, seal])
            if revision is None:
                return False
            self._written = revision
            seal = Unchanged(key, revision)
            count(catalogue.FACTS)
            log.info(
                "facts published",
                extra={
                    "epoch": batch.manifest.epoch,
                    "exports": batch.manifest.count,
                    "writes": len(batch.writes) - 1,
                    "revision": revision,
                },
            )
        return True

    def _tell_quarantine(self, quarantine: Quarantine | None) -> None:
        if quarantine == self._quarantine:
            return
        gauge(catalogue.QUARANTINED, len(quarantine.missing) if quarantine is not None else 0)
        if quarantine is not None:
            missing = [str(name) for name in quarantine.missing]
            log.error(
                "shrink is quarantined", extra={"missing": missing, "reason": quarantine.reason}
            )
        else:
            log.info("quarantine is lifted")
        self._quarantine = quarantine

    def _note(self, failure: Exception, attempt: int, _wait_s: float) -> None:
        count(catalogue.FACTS_FAILED)
        if attempt == 1:
            log.warning("facts are not published", extra={"reason": str(failure)})


def _shown(facts: ClusterFacts) -> set[ServiceName]:
    """The services that are in ``facts``."""
    return {*facts.exports, *(name for name, _ in facts.policies)}


def _seal_guard(key: str, entries: Sequence[Entry]) -> Guard:
    found = next((entry for entry in entries if entry.key == key), None)
    return Absent(key) if found is None else Unchanged(key, found.mod_revision)
