"""Deployments, Services and ServiceAccounts of Gateways, kept on the API server.

Decides: when one is applied (it is not there, it is not what we saw after applying it last, or
something else is wanted) and when one is deleted: only with our label, and after it was of no use
for ``REMOVE_AFTER_S``, since a load balancer that is given up loses its address, and a class or a
Gateway that is replaced is not there for a moment.
Leaves to others: what stands in them (``derive.infrastructure``), when to look (the agent).
Invariants: written by server-side apply alone, so that fields of others (replicas of an autoscaler,
what a cloud provider adds) stay; one Gateway's failure stops no other; at most ``WRITES_MAX``
Gateways are worked on at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing

from federation.adapters.kubernetes.connection import Connection, Json, ResourceAbsent
from federation.adapters.kubernetes.resources import listed
from federation.adapters.kubernetes.statuses import MANAGER as FIELD_MANAGER
from federation.adapters.kubernetes.writes import WRITES_MAX
from federation.model.infrastructure import (
    GATEWAY_ANNOTATION,
    MANAGED_BY,
    MANAGER,
    Document,
    MadeKey,
    MadeKind,
    MadeObject,
)
from federation.model.objects import ObjectKey
from federation.ports import Clock, PortError

log = logging.getLogger(__name__)

PAGE = 500

REMOVE_AFTER_S = 5.0
"""How long an object is of no use before it is deleted."""


class KubernetesGatewayInfrastructure:
    """Implements ``ports.GatewayInfrastructure``. One writer."""

    def __init__(self, connection: Connection, clock: Clock, *, namespace: str | None) -> None:
        """``namespace`` holds all of it; ``None``: it may stand in any."""
        self._connection = connection
        self._clock = clock
        self._namespace = namespace
        self._applied: dict[MadeKey, tuple[Document, Json]] = {}
        self._useless_since: dict[MadeKey, float] = {}

    def __repr__(self) -> str:
        return f"KubernetesGatewayInfrastructure({self._connection.server})"

    async def write(
        self, wanted: Mapping[ObjectKey, Sequence[MadeObject]], *, kept: Collection[ObjectKey]
    ) -> Mapping[ObjectKey, str]:
        """Bring what is ours to ``wanted``. Raises ``PortError`` when it cannot be read."""
        stored = await self._stored()
        failures: dict[ObjectKey, str] = {}
        room = asyncio.Semaphore(WRITES_MAX)

        async def one(gateway: ObjectKey, objects: Sequence[MadeObject]) -> None:
            async with room:
                if problem := await self._bring(objects, stored):
                    failures[gateway] = problem

        async with asyncio.TaskGroup() as group:
            for gateway in sorted(wanted):
                group.create_task(one(gateway, wanted[gateway]))
        await self._remove(stored, wanted, {key.qualified_name for key in kept})
        return failures

    async def _stored(self) -> dict[MadeKey, Json]:
        """What is ours there."""
        query = [("labelSelector", f"{MANAGED_BY}={MANAGER}")]
        found: dict[MadeKey, Json] = {}
        for kind in MadeKind:
            path = _path(kind, self._namespace)
            async with aclosing(listed(self._connection, path, query, page_size=PAGE)) as pages:
                async for page in pages:
                    for raw in page.items:
                        about = raw["metadata"]
                        found[MadeKey(kind.kind, about["namespace"], about["name"])] = raw
        return found

    async def _bring(self, objects: Sequence[MadeObject], stored: Mapping[MadeKey, Json]) -> str:
        """Make what one Gateway needs; what went wrong, empty: nothing."""
        try:
            for entry in objects:
                await self._apply(entry, stored.get(entry.key))
        except PortError as error:
            log.warning("a Gateway's own gateways are not made", extra={"reason": str(error)})
            return f"it cannot be made: {error}"
        except _ForeignObjectError as error:
            return str(error)
        return ""

    async def _apply(self, entry: MadeObject, live: Json | None) -> None:
        known = self._applied.get(entry.key)
        if live is not None and known == (entry.document, _settled(live)):
            return
        path = f"{_path(entry.kind, entry.key.namespace)}/{entry.key.name}"
        if live is None:
            await self._refuse_foreign(path, entry.key)
        applied = await self._connection.apply(path, dict(entry.document), manager=FIELD_MANAGER)
        self._applied[entry.key] = (entry.document, _settled(applied))

    async def _refuse_foreign(self, path: str, key: MadeKey) -> None:
        try:
            await self._connection.get(path)
        except ResourceAbsent:
            return
        raise _ForeignObjectError(
            f"{key} is there without the label {MANAGED_BY}: {MANAGER}, so it is somebody else's "
            "and stays as it is; rename or remove it"
        )

    async def _remove(
        self,
        stored: Mapping[MadeKey, Json],
        wanted: Mapping[ObjectKey, Sequence[MadeObject]],
        kept: Collection[str],
    ) -> None:
        now = self._clock.monotonic()
        used = {entry.key for objects in wanted.values() for entry in objects}
        useless = {
            key for key, raw in stored.items() if key not in used and _gateway_of(raw) not in kept
        }
        self._useless_since = {key: self._useless_since.get(key, now) for key in useless}
        for key, since in sorted(self._useless_since.items()):
            if now - since < REMOVE_AFTER_S:
                continue
            kind = next(kind for kind in MadeKind if kind.kind == key.kind)
            try:
                await self._connection.delete(f"{_path(kind, key.namespace)}/{key.name}")
            except PortError as error:
                log.warning("%s is not removed", key, extra={"reason": str(error)})
                continue
            self._applied.pop(key, None)
            gateway = _gateway_of(stored[key])
            log.info("removed %s", key, extra={"gateway": gateway})


class _ForeignObjectError(Exception):
    """An object of our name is somebody else's."""


def _gateway_of(raw: Json) -> str:
    return str((raw["metadata"].get("annotations") or {}).get(GATEWAY_ANNOTATION, ""))


def _settled(raw: Json) -> Json:
    """What of an object people and controllers decide, without what the server keeps about it."""
    about = raw.get("metadata", {})
    kept = {name: about.get(name) for name in ("uid", "labels", "annotations")}
    rest = {
        name: value
        for name, value in raw.items()
        if name not in ("apiVersion", "kind", "metadata", "status")
    }
    return {"metadata": kept, **rest}


def _path(kind: MadeKind, namespace: str | None) -> str:
    base = f"/apis/{kind.api_version}" if "/" in kind.api_version else f"/api/{kind.api_version}"
    inside = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"{base}{inside}/{kind.plural}"
