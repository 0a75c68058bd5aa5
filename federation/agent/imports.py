"""Keeps the MCS API's ServiceImports of the cluster at what the federation exports.

Decides: when they are written: after any change of what they follow from, and when one is not
there, since somebody deleted it or the kind was not served before.
Leaves to others: what they say (``derive.mcs_imports``), writing (a ``DerivedObjects`` port).
Invariants: nothing is written from what is not live: an import is never removed because its exports
are not known now.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import aclosing

from federation.agent.state import ClusterObjects, FederationState
from federation.aio import Backoff, Latest, any_change, retrying
from federation.derive.mcs_imports import derived_imports
from federation.model.objects import ApiObject, ObjectKey
from federation.ports import DerivedObjects, TemporaryError

log = logging.getLogger(__name__)

SETTLE_S = 0.05
"""Changes that come together are one look; nobody waits for an import."""


class ImportWriter:
    """The loop, and what it wrote last."""

    def __init__(
        self,
        *,
        objects: Latest[ClusterObjects],
        federation: Latest[FederationState],
        sink: DerivedObjects,
    ) -> None:
        self._objects = objects
        self._federation = federation
        self._sink = sink
        self._written: Mapping[ObjectKey, ApiObject] | None = None

    def __repr__(self) -> str:
        return f"ImportWriter({'unwritten' if self._written is None else len(self._written)})"

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
        wanted = derived_imports(objects.shown, federation.view)
        if wanted != self._written or not wanted.keys() <= objects.shown.objects.keys():
            await self._sink.write(wanted)
            self._written = wanted

    def _note(self, failure: Exception, attempt: int, _wait_s: float) -> None:
        if attempt == 1:
            log.warning("imports are not written", extra={"reason": str(failure)})
