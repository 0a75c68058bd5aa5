"""Objects that we derive, kept on the API server under a label of ours.

Decides: what is created, changed and deleted to bring them to what is wanted.
Leaves to others: what is wanted (``derive``), requests (``connection``).
Invariants: only objects with our label are changed or deleted, whoever else makes some of the same
name; one object's failure stops no other; at most ``WRITES_MAX`` requests are under way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial

from federation.adapters.kubernetes.connection import (
    Connection,
    Json,
    ResourceAbsent,
)
from federation.adapters.kubernetes.resources import Resource, find_resource, pages
from federation.adapters.kubernetes.statuses import MANAGER
from federation.adapters.kubernetes.writes import all_written
from federation.derive.mcs_imports import MANAGED_BY
from federation.derive.mcs_imports import MANAGER as OWNER
from federation.derive.mcs_objects import is_as_wanted
from federation.model.objects import ApiObject, ObjectKey
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

    async def write(self, objects: Mapping[ObjectKey, ApiObject]) -> bool:
        """Bring the objects that are ours to ``objects``; false when some were refused."""
        resource = await find_resource(self._connection, self._kind)
        if resource is None:
            if objects and self._served:
                log.info("derived objects are not served", extra={"kind": self._kind.KIND})
                self._served = False
            return True
        self._served = True
        stored = await self._stored(resource)
        changed = {
            key
            for key, wanted in objects.items()
            if (found := stored.get(key)) is None
            or found[0] is None
            or not is_as_wanted(found[0], wanted)
        }
        writes = [
            partial(self._apply, resource, objects[key], known=key in stored)
            if key in objects
            # What was changed since we looked at it may be somebody else's by now.
            else partial(self._connection.delete, resource.object_path(key), seen=stored[key][1])
            for key in sorted(changed | (set(stored) - set(objects)))
        ]
        return await all_written(writes, what="derived", noun="a derived object", plural="objects")

    async def _stored(self, resource: Resource) -> dict[ObjectKey, tuple[ApiObject | None, Json]]:
        """What is ours there with its metadata; ``None`` for what cannot be read and is to be
        written anew."""
        found: dict[ObjectKey, tuple[ApiObject | None, Json]] = {}
        query = [("labelSelector", f"{MANAGED_BY}={OWNER}")]
        async with aclosing(pages(self._connection, resource, query, page_size=PAGE)) as listed:
            async for page in listed:
                for raw in page.items:
                    decoded = decode_value(raw, origin="", unknown_fields="ignore")
                    readable = decoded if isinstance(decoded, ApiObject) else None
                    found[resource.key_of(raw)] = (readable, raw["metadata"])
        return found

    async def _apply(self, resource: Resource, wanted: ApiObject, *, known: bool) -> None:
        path = resource.object_path(wanted.key)
        if not known and await self._is_foreign(path, wanted.key):
            return
        document = {**wanted.to_document(), "apiVersion": resource.api_version}
        document.pop("status", None)
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
