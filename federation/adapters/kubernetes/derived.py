"""Objects that we derive, kept on the API server under a label of ours.

Decides: what is created, changed and deleted to bring them to what is wanted.
Leaves to others: what is wanted (``derive``), requests (``connection``).
Invariants: only objects with our label are changed or deleted, whoever else makes some of the same
name; one object's failure stops no other; at most ``WRITES_MAX`` requests are under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from federation.adapters.kubernetes.connection import (
    ApiServerRefused,
    Connection,
    Json,
    ResourceAbsent,
)
from federation.adapters.kubernetes.resources import Resource, find_resource
from federation.adapters.kubernetes.statuses import MANAGER, WRITES_MAX
from federation.derive.mcs_imports import MANAGED_BY
from federation.derive.mcs_imports import MANAGER as OWNER
from federation.model.objects import ApiObject, ObjectKey
from federation.ports import PortError, TemporaryError
from federation.wire.manifests import decode_value

log = logging.getLogger(__name__)

PAGE = 500


class KubernetesDerivedObjects:
    """Derived objects of one kind; implements ``ports.DerivedObjects``. One writer."""

    def __init__(self, connection: Connection, kind: type[ApiObject]) -> None:
        self._connection = connection
        self._kind = kind
        self._foreign: set[ObjectKey] = set()
        self._served = True

    def __repr__(self) -> str:
        return f"KubernetesDerivedObjects({self._kind.KIND}, {self._connection.server})"

    async def write(self, objects: Mapping[ObjectKey, ApiObject]) -> None:
        """Bring the objects that are ours to ``objects``."""
        resource = await find_resource(self._connection, self._kind)
        if resource is None:
            if objects and self._served:
                log.info("derived objects are not served", extra={"kind": self._kind.KIND})
                self._served = False
            return
        self._served = True
        stored = await self._stored(resource)
        changed = {key for key, wanted in objects.items() if not _same(stored.get(key), wanted)}
        room = asyncio.Semaphore(WRITES_MAX)
        failures: list[PortError] = []

        async def one(key: ObjectKey) -> None:
            async with room:
                try:
                    if key in objects:
                        await self._apply(resource, objects[key], known=key in stored)
                    else:
                        await self._connection.delete(resource.object_path(key))
                except PortError as error:
                    failures.append(error)

        async with asyncio.TaskGroup() as group:
            for key in sorted(changed | (set(stored) - set(objects))):
                group.create_task(one(key))
        for error in failures:
            if isinstance(error, ApiServerRefused):
                log.warning("a derived object was refused", extra={"reason": str(error)})
        temporary = [error for error in failures if isinstance(error, TemporaryError)]
        if temporary:
            raise TemporaryError(f"{len(temporary)} objects were not written: {temporary[0]}")

    async def _stored(self, resource: Resource) -> dict[ObjectKey, ApiObject | None]:
        """What is ours there; ``None`` for what cannot be read and is to be written anew."""
        found: dict[ObjectKey, ApiObject | None] = {}
        more = ""
        while True:
            query = [("labelSelector", f"{MANAGED_BY}={OWNER}"), ("limit", str(PAGE))]
            page = await self._connection.get(
                resource.path, [*query, ("continue", more)] if more else query
            )
            for raw in page.get("items", []):
                whole = {"apiVersion": resource.api_version, "kind": self._kind.KIND, **raw}
                metadata = raw["metadata"]
                key = ObjectKey(
                    self._kind.GROUP, self._kind.KIND, metadata["namespace"], metadata["name"]
                )
                decoded = decode_value(whole, origin="", unknown_fields="ignore")
                found[key] = decoded if isinstance(decoded, ApiObject) else None
            more = page.get("metadata", {}).get("continue", "")
            if not more:
                return found

    async def _apply(self, resource: Resource, wanted: ApiObject, *, known: bool) -> None:
        path = resource.object_path(wanted.key)
        if not known and await self._is_foreign(path, wanted.key):
            return
        document = {**wanted.to_document(), "apiVersion": resource.api_version}
        document["metadata"] = {
            name: value
            for name, value in document["metadata"].items()
            if name in ("name", "namespace", "labels", "annotations")
        }
        await self._connection.apply(path, document, manager=MANAGER)

    async def _is_foreign(self, path: str, key: ObjectKey) -> bool:
        try:
            current: Json = await self._connection.get(path)
        except ResourceAbsent:
            self._foreign.discard(key)
            return False
        labels = current.get("metadata", {}).get("labels") or {}
        foreign = labels.get(MANAGED_BY) != OWNER
        if foreign and key not in self._foreign:
            self._foreign.add(key)
            log.warning(
                "an object of this name is not ours and stays as it is",
                extra={"object": str(key), "label": MANAGED_BY},
            )
        return foreign


def _same(stored: ApiObject | None, wanted: ApiObject) -> bool:
    if stored is None:
        return False
    was, now = stored.to_document(), wanted.to_document()
    return all(
        was["metadata"].get(name) == now["metadata"].get(name) for name in ("labels", "annotations")
    ) and was.get("spec") == now.get("spec")
