"""From xDS resources to the pieces of the core's configuration.

Decides: which resource types are read and by which translator.
Leaves to others: transport (``gateway.xds_client``), consistency of pieces (``gateway.assembly``).
Invariants: pure; a resource is translated whole or refused with the path of the field that this
gateway does not do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

from gateway.xds_translate.clusters import translate_cluster
from gateway.xds_translate.endpoints import translate_endpoints
from gateway.xds_translate.fields import UnsupportedFieldError, unpack
from gateway.xds_translate.listeners import translate_listener
from gateway.xds_translate.piece import HealthPlan, Kind, Piece, PieceId
from gateway.xds_translate.routes import translate_routes
from gateway.xds_translate.secrets import secret_piece, translate_secret

__all__ = [
    "KIND_OF_TYPE",
    "TYPE_OF_KIND",
    "HealthPlan",
    "Kind",
    "Piece",
    "PieceId",
    "UnsupportedFieldError",
    "secret_piece",
    "translate",
    "translate_message",
]


@dataclass(frozen=True, slots=True)
class _Translator:
    message: type[Any]
    read: Callable[[Any], Piece]


_TRANSLATORS = {
    Kind.SECRETS: _Translator(secret_pb2.Secret, translate_secret),
    Kind.CLUSTERS: _Translator(cluster_pb2.Cluster, translate_cluster),
    Kind.ENDPOINTS: _Translator(endpoint_pb2.ClusterLoadAssignment, translate_endpoints),
    Kind.ROUTE_TABLES: _Translator(route_pb2.RouteConfiguration, translate_routes),
    Kind.LISTENERS: _Translator(listener_pb2.Listener, translate_listener),
}

TYPE_OF_KIND = {
    kind: f"type.googleapis.com/{translator.message.DESCRIPTOR.full_name}"
    for kind, translator in _TRANSLATORS.items()
}
"""Type URL of each kind."""

KIND_OF_TYPE = {type_url: kind for kind, type_url in TYPE_OF_KIND.items()}
"""Kind of each type URL."""


def translate(kind: Kind, name: str, body: any_pb2.Any) -> Piece:
    """Translate the packed resource called ``name``. Raises ``UnsupportedFieldError``."""
    piece = translate_message(kind, unpack(body, _TRANSLATORS[kind].message, ""))
    if piece.id.name != name:
        raise UnsupportedFieldError("name", f"is {piece.id.name!r}, and the resource's is {name!r}")
    return piece


def translate_message(kind: Kind, message: Message) -> Piece:
    """Translate a resource message of ``kind``. Raises ``UnsupportedFieldError``."""
    return _TRANSLATORS[kind].read(message)
