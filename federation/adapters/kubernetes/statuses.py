"""The status sink on an API server: server-side apply on the status subresource.

Decides: which statuses are written (those that differ from what is stored, and none besides), that
what is written rests on the version read, how many writes are under way at once; that one which
somebody else has changed is written again.
Leaves to others: conditions (``derive``), their spelling (``wire.statuses``), the pace of repairs
(``repairs``).
Invariants: entries of other controllers stay; one object's failure stops no other; an object that
has gone is no failure; at most ``WRITES_MAX`` requests are under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from federation.adapters.kubernetes.connection import (
    ChangedMeanwhile,
    Connection,
    Json,
    ResourceAbsent,
)
from federation.adapters.kubernetes.doubts import is_older
from federation.adapters.kubernetes.repairs import Repairs, holds
from federation.adapters.kubernetes.resources import Resource, Resources
from federation.adapters.kubernetes.writes import all_written
from federation.adapters.transitions import with_times
from federation.model.objects import ObjectKey
from federation.model.status import ObjectStatus
from federation.ports import Clock, PortError
from federation.wire.statuses import status_document, stored_status, with_others
from federation.wire.timestamps import timestamp

log = logging.getLogger(__name__)

MANAGER = "federation-agent"
"""Our name among the field managers of an object."""

ATTEMPTS_MAX = 5
"""Tries of one write against others who change the same object."""


class KubernetesStatusSink:
    """Statuses of a cluster's objects; implements ``ports.StatusSink``. One writer."""

    def __init__(self, connection: Connection, clock: Clock, *, controller: str) -> None:
        self._connection = connection
        self._resources = Resources(connection)
        self._clock = clock
        self._controller = controller
        self._written: dict[ObjectKey, ObjectStatus] = {}
        self._versions: dict[ObjectKey, str] = {}
        self._shown_meanwhile: dict[ObjectKey, Json | None] = {}
        self._writing = asyncio.Lock()
        self._repairs = Repairs()
        self._damage = asyncio.Event()

    def __repr__(self) -> str:
        return f"KubernetesStatusSink({self._connection.server}, written={len(self._written)})"

    def forget(self) -> None:
        """Read what is stored before writing again."""
        self._written.clear()
        self._versions.clear()
        self._repairs.forget()

    def saw(self, key: ObjectKey, shown: Json) -> None:
        """Take in what a watch shows of an object: whether our status is there as we wrote it.

        While a write of ours is under way, what is shown may be that write, which the answer alone
        tells: it is looked at then.
        """
        if key in self._shown_meanwhile:
            self._shown_meanwhile[key] = shown
            return
        written = self._written.get(key)
        metadata = shown.get("metadata", {})
        version = str(metadata.get("resourceVersion", ""))
        if written is None or is_older(version, self._versions.get(key, "")):
            return
        stored = shown.get("status") or {}
        if holds(stored, self._wanted(written, stored)):
            self._repairs.mended(key)
        elif self._repairs.damaged(key):
            log.warning(
                "a status of ours was changed by another; it is written again",
                extra={"object": str(key), "by": _last_manager(metadata)},
            )
            self._damage.set()

    async def repair(self) -> None:
        """Write what was damaged again, until cancelled: then others write, and know better."""
        try:
            while True:
                await self._repair_all()
        except asyncio.CancelledError:
            self.forget()
            raise

    async def _repair_all(self) -> None:
        """Write what is due, and wait for the next."""
        clock = asyncio.get_running_loop().time
        self._damage.clear()
        for key in self._repairs.due(clock()):
            async with self._writing:
                await self._repair(key, clock())
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._repairs.next_s()):
                await self._damage.wait()

    async def _repair(self, key: ObjectKey, now_s: float) -> None:
        self._repairs.repaired(key, now_s)
        status = self._written.get(key)
        if status is None:
            return
        try:
            await self._write(key, status)
        except PortError as error:
            self._resources.forget(key)
            self._repairs.damaged(key)
            log.warning(
                "a status is not repaired", extra={"object": str(key), "reason": str(error)}
            )

    async def write(self, statuses: Mapping[ObjectKey, ObjectStatus]) -> None:
        """Bring the stored statuses to ``statuses``. Raises ``TemporaryError`` after all tries."""
        async with self._writing:
            await self._bring_all(statuses)
            self._repairs.forget(self._written)

    async def _bring_all(self, statuses: Mapping[ObjectKey, ObjectStatus]) -> None:
        gone = {key: ObjectStatus() for key in self._written if key not in statuses}
        changed = {
            key: status for key, status in statuses.items() if self._written.get(key) != status
        }
        writes = [
            partial(self._bring, key, status, kept=key in statuses)
            for key, status in sorted((gone | changed).items())
        ]
        await all_written(writes, what="status", noun="a status", plural="statuses")

    async def _bring(self, key: ObjectKey, status: ObjectStatus, *, kept: bool) -> None:
        self._shown_meanwhile[key] = None
        try:
            await self._bring_one(key, status, kept=kept)
        finally:
            shown = self._shown_meanwhile.pop(key)
            if shown is not None:
                self.saw(key, shown)

    async def _bring_one(self, key: ObjectKey, status: ObjectStatus, *, kept: bool) -> None:
        try:
            await self._write(key, status)
        except PortError:
            self._resources.forget(key)
            if not kept:  # to be cleared still, and whatever comes is to be written
                self._written[key] = ObjectStatus()
            raise
        if kept:
            self._written[key] = status
        else:
            self._written.pop(key, None)
            self._versions.pop(key, None)

    async def _write(self, key: ObjectKey, status: ObjectStatus) -> None:
        resource = await self._resources.of(key)
        if resource is None:
            return
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                current = await self._connection.get(resource.object_path(key))
            except ResourceAbsent:
                return
            stored = current.get("status") or {}
            wanted = self._wanted(status, stored)
            if all(stored.get(name) == value for name, value in wanted.items()) and (
                wanted or not stored  # an object made anew has nothing to clear
            ):
                self._versions[key] = str(current["metadata"]["resourceVersion"])
                return
            try:
                await self._apply(resource, key, current, wanted)
            except ResourceAbsent:
                return
            except ChangedMeanwhile:
                if attempt == ATTEMPTS_MAX:
                    raise
            else:
                return

    def _wanted(self, status: ObjectStatus, stored: Json) -> Json:
        """What is to be stored for ``status`` where ``stored`` is now."""
        old = stored_status(stored, controller=self._controller)
        timed = with_times(status, old, timestamp(self._clock.now()))
        return with_others(status_document(timed), stored, controller=self._controller)

    async def _apply(self, resource: Resource, key: ObjectKey, current: Json, wanted: Json) -> None:
        metadata = {"name": key.name, "resourceVersion": current["metadata"]["resourceVersion"]}
        if key.namespace:
            metadata["namespace"] = key.namespace
        body = {
            "apiVersion": resource.api_version,
            "kind": key.kind,
            "metadata": metadata,
            "status": wanted,
        }
        path = f"{resource.object_path(key)}/status"
        applied = await self._connection.apply(path, body, manager=MANAGER)
        self._versions[key] = str(applied.get("metadata", {}).get("resourceVersion", ""))


def _last_manager(metadata: Json) -> str:
    """Who wrote to the object last, as the API server notes it."""
    writes = [entry for entry in metadata.get("managedFields") or [] if isinstance(entry, dict)]
    last = max(writes, key=lambda entry: str(entry.get("time", "")), default={})
    return str(last.get("manager", "unknown"))
