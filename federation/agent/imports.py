"""Keeps in the cluster what follows from the clusterset's exports: the MCS API's ServiceImports,
and the Services and EndpointSlices behind them.

Decides: when they are written: after a change of what they follow from, and when one of them is not
as it should be, since somebody changed or deleted it or the kind was not served before.
Leaves to others: what they say (``derive.mcs_objects``), writing (``DerivedObjects`` ports).
Invariants: nothing is written from what is not live: an import is never removed because its exports
are not known now (``derive.mcs_gone``); what came to nothing is not tried again before something
has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing

from federation.agent.settings import AgentSettings
from federation.agent.state import ClusterObjects, FederationState
from federation.aio import Backoff, Latest, any_change, retrying
from federation.derive.incremental import differences
from federation.derive.mcs_gone import with_unexplained
from federation.derive.mcs_imports import is_ours
from federation.derive.mcs_objects import agrees, derive_state, shape
from federation.model.base import ServiceName
from federation.model.objects import (
    ApiObject,
    EndpointSlice,
    Gateway,
    McsServiceImport,
    Namespace,
    ObjectKey,
    ObjectSnapshot,
    Service,
)
from federation.ports import DerivedObjects, TemporaryError

log = logging.getLogger(__name__)

SETTLE_S = 0.05
"""Changes that come together are one look; nobody waits for an import."""

DERIVED_KINDS: tuple[type[ApiObject], ...] = (Service, EndpointSlice, McsServiceImport)
"""Kinds of derived objects in the order of writing: an import comes when it leads somewhere."""


class ImportWriter:
    """The loop, and what it wrote last."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        objects: Latest[ClusterObjects],
        federation: Latest[FederationState],
        sinks: Mapping[type[ApiObject], DerivedObjects],
    ) -> None:
        """``sinks`` are those of ``DERIVED_KINDS``."""
        self._settings = settings
        self._objects = objects
        self._federation = federation
        self._sinks = sinks
        self._settled: object = None
        self._last = ObjectSnapshot()
        self._mattering: list[ApiObject] = []
        self._foreign: dict[type[ApiObject], set[ObjectKey]] = {}
        self._wanted: frozenset[ObjectKey] = frozenset()
        self._unexplained: tuple[ObjectKey, ...] = ()

    def __repr__(self) -> str:
        return f"ImportWriter({'unwritten' if self._settled is None else 'settled'})"

    async def run(self) -> None:
        """Write after every change, for ever."""
        changes = any_change(self._objects, self._federation, settle_s=SETTLE_S)
        async with aclosing(changes):
            async for _ in changes:
                await retrying(
                    self._step,
                    on=TemporaryError,
                    backoff=Backoff(max_s=2.0),
                    before_wait=self._note,
                )

    async def _step(self) -> None:
        objects, federation = self._objects.value, self._federation.value
        if objects is None or federation is None or not (objects.live and federation.live):
            return
        settings = self._settings.compile
        self._follow(objects.shown, settings.gateway_service)
        basis = _basis(self._mattering, federation)
        if basis == self._settled:
            return
        wanted = derive_state(
            self._settings.cluster,
            objects.shown,
            federation.view,
            gateway_service=settings.gateway_service,
            ports=settings.import_ports,
        )
        wanted, unexplained = with_unexplained(wanted, self._mattering, federation.view)
        self._tell(unexplained)
        by_kind: tuple[Mapping[ObjectKey, ApiObject], ...] = (
            wanted.services,
            wanted.slices,
            wanted.imports,
        )
        settled = True
        failure: TemporaryError | None = None
        for kind, wanted_ones in zip(DERIVED_KINDS, by_kind, strict=True):
            foreign = {key for key in wanted_ones if _is_foreign(objects.shown, key)}
            told = foreign <= self._foreign.get(kind, set())
            if not (told and agrees(objects.shown, kind, wanted_ones)):
                # What was written is settled once it is seen: it may be gone again by then.
                try:
                    refused = not await self._sinks[kind].write(wanted_ones)
                except TemporaryError as error:  # the other kinds are not to wait for this one
                    failure = failure or error
                    continue
                self._foreign[kind] = foreign
                settled &= refused
        if failure is not None:
            raise failure
        self._settled = basis if settled else None
        self._wanted = frozenset(key for of_kind in by_kind for key in of_kind)

    def _tell(self, unexplained: tuple[ObjectKey, ...]) -> None:
        """Log what is left alone, when that is news."""
        if unexplained != self._unexplained and unexplained:
            log.warning(
                "derived objects stay although no export is known for them: what their clusters "
                "export cannot be read",
                extra={"count": len(unexplained), "first": str(unexplained[0])},
            )
        self._unexplained = unexplained

    def _follow(self, objects: ObjectSnapshot, front: ServiceName | None) -> None:
        """Bring ``_mattering`` to ``objects``: few of many thousands, and few of the changes."""
        last, self._last = self._last, objects
        changed = differences(last.objects, objects.objects).changed
        touched = (entry for key in changed for entry in _at(key, last, objects))
        if any(self._matters(entry, front) for entry in touched):
            found = objects.objects.values()
            self._mattering = [entry for entry in found if self._matters(entry, front)]

    def _matters(self, entry: ApiObject, front: ServiceName | None) -> bool:
        """Whether derived objects follow from it, it is one, or it stands where one is to be."""
        return _matters(entry, front) or entry.key in self._wanted

    def _note(self, failure: Exception, attempt: int, _wait_s: float) -> None:
        if attempt == 1:
            log.warning("imports are not written", extra={"reason": str(failure)})


def _basis(mattering: Sequence[ApiObject], federation: FederationState) -> object:
    """All that derived objects follow from, to compare with what they were last made from.

    How many endpoints are ready is no part of it: a rolling update writes nothing.
    """
    view = federation.view
    exports = {
        service: tuple(shape(facts[cluster]) for cluster in sorted(facts))
        for service, facts in view.exports.items()
    }
    told = {cluster: view.is_told(cluster) for cluster in (*view.manifests, *view.departed)}
    return exports, view.endpoints, sorted(view.members), told, mattering


def _at(key: ObjectKey, *snapshots: ObjectSnapshot) -> Iterator[ApiObject]:
    """What stands at ``key`` in each of ``snapshots``, where something does."""
    for snapshot in snapshots:
        if (found := snapshot.objects.get(key)) is not None:
            yield found


def _is_foreign(objects: ObjectSnapshot, key: ObjectKey) -> bool:
    """Whether somebody else has an object of this name; the sink says so once."""
    found = objects.objects.get(key)
    return found is not None and not is_ours(found)


def _matters(entry: ApiObject, front: ServiceName | None) -> bool:
    if isinstance(entry, Namespace | Gateway | McsServiceImport):
        return True
    if not isinstance(entry, Service | EndpointSlice):
        return False
    name = entry.service_name if isinstance(entry, EndpointSlice) else entry.metadata.name
    in_front = front is not None and (entry.metadata.namespace, name) == (
        front.namespace,
        front.name,
    )
    return in_front or is_ours(entry)
