"""Cluster load assignments (EDS).

Decides: how localities, priorities, draining and peers are spelled.
Leaves to others: which endpoints there are (``derive.compile``); health beyond draining is the
gateway's own finding.
Invariants: an Envoy locality is one member cluster (``region``, its name as ``zone``); a
peer's endpoint always carries the mark that selects mutual TLS. Shards of a set are an agreement
with our own gateways (``NAME#3.64`` is number 3 of 64): an endpoint's shard depends on its address
and the number of shards alone, so one that changes costs one shard. Envoy gets sets whole.
"""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from federation.model.snapshot import Endpoint, EndpointSet, LocalityEndpoints
from federation.wire.xds_values import METADATA, metadata, uint32

SOCKET_MATCH = "envoy.transport_socket_match"
"""Metadata by which Envoy chooses among a cluster's transport sockets."""


def load_assignment(source: EndpointSet) -> endpoint_pb2.ClusterLoadAssignment:
    """The endpoints of the cluster of the same name."""
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=source.upstream,
        endpoints=[_locality(locality) for locality in source.localities],
    )


SHARD_ENDPOINTS = 1_024
"""Endpoints in a shard, about: what the change of one costs to write, send and read."""

_SHARD_ENDPOINTS_MAX = 4 * SHARD_ENDPOINTS
_SHARD_ENDPOINTS_MIN = SHARD_ENDPOINTS // 4


def shard_count(endpoints: int, before: int) -> int:
    """Into how many shards a set is cut that was cut into ``before``: a power of two.

    It is cut anew only when shards have become far too large or small, since then all are sent.
    """
    if _SHARD_ENDPOINTS_MIN * before <= endpoints <= _SHARD_ENDPOINTS_MAX * before:
        return before
    if endpoints <= _SHARD_ENDPOINTS_MAX:
        return 1
    return 1 << (endpoints // SHARD_ENDPOINTS).bit_length()


def shards(source: EndpointSet, count: int) -> dict[str, EndpointSet]:
    """``source`` in ``count`` parts by the names of their resources; each is a set of that name."""
    if count == 1:
        return {source.upstream: source}
    parts: list[list[LocalityEndpoints]] = [[] for _ in range(count)]
    for locality in source.localities:
        members: list[list[Endpoint]] = [[] for _ in range(count)]
        for entry in locality.endpoints:
            members[_shard_number(entry, count)].append(entry)
        for part, own in zip(parts, members, strict=True):
            if own:
                part.append(replace(locality, endpoints=tuple(own)))
    return {
        name: EndpointSet(upstream=name, localities=tuple(part))
        for number, part in enumerate(parts)
        for name in [f"{source.upstream}#{number}.{count}"]
    }


def whole_name(resource: str) -> str:
    """The set that a resource is, or is a shard of."""
    name, mark, number = resource.rpartition("#")
    return name if mark and number.replace(".", "", 1).isdigit() else resource


def _shard_number(entry: Endpoint, count: int) -> int:
    return crc32(entry.host.encode(), entry.port) & (count - 1)


def _locality(source: LocalityEndpoints) -> endpoint_components_pb2.LocalityLbEndpoints:
    message = endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=source.region, zone=source.cluster),
        priority=source.priority,
        load_balancing_weight=uint32(source.weight),
    )
    # Copies of what endpoints have in common: making it for each costs five times as much.
    templates: dict[tuple[bool, bool, int | None], endpoint_components_pb2.LbEndpoint] = {}
    for entry in source.endpoints:
        kind = (entry.peer, entry.draining, entry.drain_grace_ms)
        if (template := templates.get(kind)) is None:
            template = templates[kind] = _template(entry, source)
        added = message.lb_endpoints.add()
        added.CopyFrom(template)
        socket = added.endpoint.address.socket_address
        socket.address, socket.port_value = entry.host, entry.port
    return message


def _template(source: Endpoint, locality: LocalityEndpoints) -> endpoint_components_pb2.LbEndpoint:
    """An endpoint like ``source``, without its address."""
    notes: dict[str, object] = {"cluster_id": locality.cluster, "peer": source.peer}
    if source.draining and source.drain_grace_ms is not None:
        notes["drain_grace_ms"] = source.drain_grace_ms
    message = endpoint_components_pb2.LbEndpoint(
        health_status=(
            health_check_pb2.HealthStatus.DRAINING
            if source.draining
            else health_check_pb2.HealthStatus.UNKNOWN
        ),
        metadata=metadata(notes, namespace=METADATA),
    )
    if source.peer:
        message.metadata.filter_metadata[SOCKET_MATCH].update({"peer": True})
    return message
