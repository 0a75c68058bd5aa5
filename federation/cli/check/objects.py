"""Objects and their conditions for ``fedctl check``, from etcd or from API servers.

Decides: that both give the same shape: what stands in an object's status document.
Leaves to others: which conditions are a fault (``judge_federation``).
Invariants: read only; a cluster that cannot be read is told and hides no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from federation.cli.check.evidence import Evidence, SeenCondition, SeenKind, SeenObject
from federation.cli.context import Context
from federation.cli.objects_clusters import ClusterObjects, open_objects
from federation.cli.output import Found, document
from federation.model.base import ClusterId
from federation.model.objects import KINDS, ApiObject
from federation.model.status import ObjectStatus
from federation.ports import PortError, StoreUnavailable
from federation.wire import crds

PAGE = 500
OBJECTS_MAX = 20_000
"""Objects of a cluster that are looked at; of more the first are."""

JUDGED = frozenset(
    {"Gateway", "GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute", "BackendTrafficPolicy"}
    | {"ClientTrafficPolicy", "ObservabilityPolicy", "MultiClusterService", "ServiceExport"}
    | {"ServiceImport", "ListenerSet", "Drain"}
)
"""Kinds whose conditions are told."""


async def gather(
    context: Context,
    seen: Evidence,
    kubeconfig: Path | None,
    contexts: Mapping[str, str | None] | None,
) -> Evidence:
    """``seen`` with the objects, and with the kinds that API servers have."""
    if contexts:
        for cluster, name in sorted(contexts.items()):
            seen = await _of_api_server(seen, cluster, kubeconfig, name)
        return seen
    try:
        async with open_objects(context) as stored:
            found = [
                each
                for cluster in await stored.known()
                for each in await _of_store(stored, cluster)
            ]
    except StoreUnavailable:
        return seen
    except PortError as error:
        return replace(seen, objects_unread=(str(error),))
    return replace(seen, objects=tuple(found))


async def _of_store(stored: ClusterObjects, cluster: ClusterId) -> list[SeenObject]:
    here = stored.of(cluster)
    statuses = await here.statuses()
    contents = await here.contents()
    found = [
        seen_object(cluster, document(Found(cluster, each, statuses.get(key, ObjectStatus()))))
        for key, each in sorted(contents.objects.items())
        if each.KIND in JUDGED
    ]
    found += [
        SeenObject(
            cluster,
            "object" if isinstance(key, str) else key.kind,
            key if isinstance(key, str) else f"{key.namespace}/{key.name}",
            unreadable=why.message,
        )
        for key, why in contents.rejected.items()
    ]
    return found[:OBJECTS_MAX]


async def _of_api_server(
    seen: Evidence, cluster: str, kubeconfig: Path | None, name: str | None
) -> Evidence:
    from federation.adapters.kubernetes import ConnectionSettings, connected
    from federation.adapters.kubernetes.resources import (
        Resource,
        find_resource,
        pages,
        served_versions,
    )

    kinds: list[SeenKind] = list(seen.kinds or ())
    found: list[SeenObject] = []
    try:
        async with connected(ConnectionSettings(kubeconfig, name)) as connection:
            for kind in KINDS:
                if kind.KIND not in JUDGED:
                    continue
                resource: Resource | None = await find_resource(connection, kind)
                if resource is None:
                    kinds.append(_kind(cluster, kind, await served_versions(connection, kind)))
                    continue
                kinds.append(_kind(cluster, kind, (resource.version,)))
                async with aclosing(pages(connection, resource, (), page_size=PAGE)) as parts:
                    async for page in parts:
                        shown = (seen_object(cluster, raw) for raw in page.items)
                        found += [replace(each, context=name or cluster) for each in shown]
                        if len(found) >= OBJECTS_MAX:
                            break
    except PortError as error:
        why = f"{cluster}: {error}"
        seen = replace(
            seen,
            objects_unread=(*seen.objects_unread, why),
            kinds_unread=(*seen.kinds_unread, why),
        )
    objects = (*(seen.objects or ()), *found[:OBJECTS_MAX])
    return replace(seen, kinds=tuple(kinds), objects=objects)


def _kind(cluster: str, kind: type[ApiObject], served: Sequence[str]) -> SeenKind:
    wanted = tuple(f"{kind.GROUP}/{version}" for version in kind.VERSIONS)
    has = tuple(f"{kind.GROUP}/{version}" for version in served)
    return SeenKind(cluster, kind.KIND, wanted, has, ours=kind in crds.KINDS)


def seen_object(cluster: str, raw: Mapping[str, Any]) -> SeenObject:
    """An object's JSON document as ``check`` looks at it."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    places = [*status.get("parents", ()), *status.get("ancestors", ())]
    return SeenObject(
        cluster=cluster,
        kind=str(raw["kind"]),
        name=f"{metadata.get('namespace', '')}/{metadata['name']}",
        generation=int(metadata.get("generation", 0)),
        conditions=tuple(_conditions(status)),
        places=len(places),
    )


def _conditions(status: Mapping[str, Any]) -> Iterator[SeenCondition]:
    parts: list[tuple[str, Mapping[str, Any]]] = [("", status)]
    for places, reference in (("parents", "parentRef"), ("ancestors", "ancestorRef")):
        parts += [(_reference(part.get(reference, {})), part) for part in status.get(places) or ()]
    parts += [(f"listener {part.get('name')}", part) for part in status.get("listeners") or ()]
    for where, part in parts:
        for each in part.get("conditions") or ():
            yield SeenCondition(
                where=where,
                type=str(each["type"]),
                status=str(each["status"]),
                reason=str(each.get("reason", "")),
                message=str(each.get("message", "")),
                observed_generation=int(each.get("observedGeneration", 0)),
            )


def _reference(reference: Mapping[str, Any]) -> str:
    kind = reference.get("kind", "Gateway")
    parts = (reference.get("namespace"), reference.get("name"), reference.get("sectionName"))
    return f"{kind} {'/'.join(str(part) for part in parts if part)}"
