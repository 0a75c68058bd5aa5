"""Where the API server keeps objects of our kinds: paths, and the versions that it serves.

Decides: which of the versions that we read is asked for (the first of the kind's own list that the
server has), and which objects of a kind are asked for at all.
Leaves to others: requests (``connection``), when to look again (``reflector``).
Invariants: what is not found is ``None``, never an error: CRDs come and go.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from federation.adapters.kubernetes.connection import Connection, Json, Query, ResourceAbsent
from federation.model.objects import ApiObject, ConfigMap, ObjectKey, Secret
from federation.model.objects.registry import find_kind, plural

SELECTORS: dict[type[ApiObject], Query] = {
    Secret: [("fieldSelector", "type=kubernetes.io/tls")],
    ConfigMap: [("fieldSelector", "metadata.name!=kube-root-ca.crt")],
}
"""Which objects of a kind are read, where it is not all: other Secrets are none of our business."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as one API server serves it."""

    kind: type[ApiObject]
    version: str

    @property
    def api_version(self) -> str:
        """``GROUP/VERSION``, or the version alone for the core group."""
        return f"{self.kind.GROUP}/{self.version}" if self.kind.GROUP else self.version

    @property
    def path(self) -> str:
        """Where all objects of the kind are listed."""
        return f"{_version_path(self.kind.GROUP, self.version)}/{plural(self.kind)}"

    @property
    def query(self) -> Query:
        """The selection of objects."""
        return SELECTORS.get(self.kind, ())

    def object_path(self, key: ObjectKey) -> str:
        """Where one object is."""
        base = _version_path(self.kind.GROUP, self.version)
        inside = f"/namespaces/{key.namespace}" if self.kind.NAMESPACED else ""
        return f"{base}{inside}/{plural(self.kind)}/{key.name}"

    def key_of(self, raw: Json) -> ObjectKey:
        """The key of an object as the server gives it."""
        return key_of(self.kind, raw)


def key_of(kind: type[ApiObject], raw: Json) -> ObjectKey:
    """The key of an object of ``kind`` as a server gives it."""
    metadata = raw.get("metadata", {})
    namespace = str(metadata.get("namespace", "")) if kind.NAMESPACED else ""
    return ObjectKey(kind.GROUP, kind.KIND, namespace, str(metadata.get("name", "")))


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: objects, each with its kind, and the version that the list is of."""

    items: tuple[Json, ...]
    version: str


async def pages(
    connection: Connection, resource: Resource, query: Query, *, page_size: int
) -> AsyncGenerator[Page, None]:
    """Every object that ``query`` selects, part by part. Raises ``PortError``."""
    # Items of a list do not repeat what they are.
    kind = {"apiVersion": resource.api_version, "kind": resource.kind.KIND}
    async with aclosing(listed(connection, resource.path, query, page_size=page_size)) as found:
        async for page in found:
            yield Page(tuple({**kind, **raw} for raw in page.items), page.version)


async def listed(
    connection: Connection, path: str, query: Query, *, page_size: int
) -> AsyncGenerator[Page, None]:
    """What ``query`` selects of the list at ``path``, as it is there. Raises ``PortError``."""
    asked = [*query, ("limit", str(page_size))]
    more = ""
    while True:
        found = await connection.get(path, [*asked, ("continue", more)] if more else asked)
        metadata = found.get("metadata", {})
        yield Page(tuple(found.get("items", [])), str(metadata.get("resourceVersion", "")))
        more = metadata.get("continue", "")
        if not more:
            return


def _version_path(group: str, version: str) -> str:
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


async def find_resource(connection: Connection, kind: type[ApiObject]) -> Resource | None:
    """The kind as the server has it now. Raises ``PortError`` when the server cannot say."""
    for version in kind.VERSIONS:
        try:
            served = await connection.get(_version_path(kind.GROUP, version))
        except ResourceAbsent:
            continue
        names = {entry.get("name") for entry in served.get("resources", [])}
        if plural(kind) in names:
            return Resource(kind, version)
    return None


async def served_versions(connection: Connection, kind: type[ApiObject]) -> tuple[str, ...]:
    """Every version of the kind that the server has, ours or not. Raises ``PortError``."""
    try:
        group = await connection.get(f"/apis/{kind.GROUP}")
    except ResourceAbsent:
        return ()
    found = []
    for version in (str(entry["version"]) for entry in group.get("versions", ())):
        served = await connection.get(_version_path(kind.GROUP, version))
        if plural(kind) in {entry.get("name") for entry in served.get("resources", ())}:
            found.append(version)
    return tuple(found)


class Resources:
    """The resources of a server, asked for once each and forgotten when they fail."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[type[ApiObject], Resource] = {}

    async def of(self, key: ObjectKey) -> Resource | None:
        """Where ``key`` is kept; ``None`` if its kind is not served. Raises ``PortError``."""
        kind = find_kind(key.group, key.kind)
        if kind is None:
            return None
        if kind not in self._known:
            found = await find_resource(self._connection, kind)
            if found is None:
                return None
            self._known[kind] = found
        return self._known[kind]

    def forget(self, key: ObjectKey) -> None:
        """Ask again next time."""
        kind = find_kind(key.group, key.kind)
        if kind is not None:
            self._known.pop(kind, None)
