"""The resources one kind of node gets, sealed with a version each.

Decides: the resource types served, their order, and that a resource's version is a hash of its
content, so that an equal resource is never sent twice, whoever compiled it.
Leaves to others: what the resources say (``wire.xds``), who holds which (``subscription``).
Invariants: a catalog never changes; equal content has equal versions over restarts of the server,
so a gateway that reconnects to another agent's stream is sent only what differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from google.protobuf import any_pb2
from google.protobuf.message import Message

if TYPE_CHECKING:
    from federation.wire.xds import XdsResources

_PREFIX = "type.googleapis.com/"


class ResourceType(StrEnum):
    """A served resource type, by its type URL."""

    SECRETS = _PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
    CLUSTERS = _PREFIX + "envoy.config.cluster.v3.Cluster"
    ENDPOINTS = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENERS = _PREFIX + "envoy.config.listener.v3.Listener"
    ROUTES = _PREFIX + "envoy.config.route.v3.RouteConfiguration"

    @property
    def word(self) -> str:
        """Short name for logs and messages."""
        return self.name.lower()


MAKE_ORDER = (
    ResourceType.SECRETS,
    ResourceType.CLUSTERS,
    ResourceType.ENDPOINTS,
    ResourceType.LISTENERS,
    ResourceType.ROUTES,
)
"""Order of sending what is new: a resource comes after everything that it can refer to."""

BREAK_ORDER = (
    ResourceType.LISTENERS,
    ResourceType.ROUTES,
    ResourceType.ENDPOINTS,
    ResourceType.CLUSTERS,
    ResourceType.SECRETS,
)
"""Order of removing: a resource goes after everything that can refer to it."""

LEGACY_WILDCARD = frozenset({ResourceType.CLUSTERS, ResourceType.LISTENERS})
"""Types of which a first request without names means all (the xDS protocol's older spelling)."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource, packed for the wire."""

    version: str
    body: any_pb2.Any


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything one node view is served, under the generation of the publication it came from."""

    generation: int
    types: Mapping[ResourceType, Mapping[str, Resource]]

    def of(self, resource_type: ResourceType) -> Mapping[str, Resource]:
        """The resources of one type by name."""
        return self.types.get(resource_type, {})


def seal(resources: XdsResources, *, generation: int) -> Catalog:
    """Pack and version ``resources``."""
    return Sealer().seal(resources, generation=generation)


class Sealer:
    """Seals successive resources; a message that was sealed last time is not packed again.

    Memory: the messages and resources sealed last. Messages are told apart by identity, so nobody
    may change one.
    """

    def __init__(self) -> None:
        self._last: dict[ResourceType, dict[str, tuple[Message, Resource]]] = {}

    def seal(self, resources: XdsResources, *, generation: int) -> Catalog:
        """Pack and version ``resources``."""
        of_type: dict[ResourceType, Mapping[str, Message]] = {
            ResourceType.SECRETS: resources.secrets,
            ResourceType.CLUSTERS: resources.clusters,
            ResourceType.ENDPOINTS: resources.endpoints,
            ResourceType.LISTENERS: resources.listeners,
            ResourceType.ROUTES: resources.routes,
        }
        types = {kind: self._seal(kind, messages) for kind, messages in of_type.items()}
        return Catalog(generation=generation, types=types)

    def _seal(
        self, resource_type: ResourceType, messages: Mapping[str, Message]
    ) -> dict[str, Resource]:
        last = self._last.get(resource_type, {})
        self._last[resource_type] = {
            name: known
            if (known := last.get(name)) is not None and known[0] is messages[name]
            else (messages[name], _resource(messages[name]))
            for name in sorted(messages)
        }
        return {name: sealed for name, (_, sealed) in self._last[resource_type].items()}


def _resource(message: Message) -> Resource:
    body = any_pb2.Any()
    body.Pack(message, deterministic=True)
    return Resource(version=hashlib.sha256(body.value).hexdigest()[:16], body=body)
