"""The routing snapshot as Envoy v3 resources, what the agent serves over delta ADS.

Decides: which resources a snapshot becomes and what their names refer to. Per resource type:
``xds_listeners``, ``xds_routes``, ``xds_clusters``, ``xds_endpoints``.
Leaves to others: what is routed where (``derive.compile``), versions and streams (``discovery``),
reading it back (the gateway, or a stock Envoy).
Invariants: plain Envoy v3 messages that a stock Envoy takes; one resource of each name; equal
snapshots and nodes give equal bytes; only listeners, and what is left out with them, depend on the
node; nobody changes a message.
Names: a listener and its route table share one name; an ``Upstream`` is a cluster and the endpoint
set of the same name (or its shards); a node's own identity and trust bundle are the static secrets
``federation/identity`` and ``federation/trust-bundle`` of that node, never sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from federation.derive.serving import served_part
from federation.model.snapshot import CaSecret, EndpointSet, Snapshot, TlsSecret
from federation.wire.xds_clusters import upstream_cluster
from federation.wire.xds_endpoints import load_assignment, shard_count, shards, whole_name
from federation.wire.xds_listeners import NodeView, listener
from federation.wire.xds_routes import route_configuration

__all__ = ["NodeView", "Renderer", "XdsResources", "to_resources", "whole_name"]

V = TypeVar("V")
M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class XdsResources:
    """The resources of one node by name."""

    listeners: Mapping[str, listener_pb2.Listener]
    routes: Mapping[str, route_pb2.RouteConfiguration]
    clusters: Mapping[str, cluster_pb2.Cluster]
    endpoints: Mapping[str, endpoint_pb2.ClusterLoadAssignment]
    secrets: Mapping[str, secret_pb2.Secret]


@dataclass(frozen=True, slots=True)
class _Shared:
    """The resources that are the same for every node which has them."""

    routes: Mapping[str, route_pb2.RouteConfiguration]
    clusters: Mapping[str, cluster_pb2.Cluster]
    endpoints: Mapping[str, endpoint_pb2.ClusterLoadAssignment]
    secrets: Mapping[str, secret_pb2.Secret]


def to_resources(snapshot: Snapshot, node: NodeView) -> XdsResources:
    """The resources that make a gateway at ``node`` route as ``snapshot`` says."""
    return Renderer()(snapshot, node)


class Renderer:
    """``to_resources`` for successive snapshots: what has not changed keeps its message.

    A change touches few of many thousand resources, and comparing two values of a snapshot costs a
    twentieth of making a message. Memory: the newest snapshot and its messages; nodes that serve a
    part of it are given a selection of the same messages.
    """

    def __init__(self) -> None:
        self._whole: dict[bool, tuple[Snapshot, _Shared]] = {}
        self._routes = _Kept(route_configuration)
        self._clusters = _Kept(upstream_cluster)
        self._endpoints = _Kept(load_assignment)
        self._shards = _Kept(load_assignment)
        self._shard_counts: dict[str, int] = {}
        self._secrets = _Kept(_secret)

    def __call__(self, snapshot: Snapshot, node: NodeView) -> XdsResources:
        """The resources that make a gateway at ``node`` route as ``snapshot`` says."""
        part = served_part(snapshot, node.serves)
        listeners = {entry.name: listener(entry, node) for entry in part.listeners}
        whole = self._shared(snapshot, sharded=node.shards)
        if part is snapshot:
            return XdsResources(
                listeners, whole.routes, whole.clusters, whole.endpoints, whole.secrets
            )
        upstreams = {entry.name for entry in part.upstreams}
        return XdsResources(
            listeners=listeners,
            routes={entry.name: whole.routes[entry.name] for entry in part.route_tables},
            clusters={entry.name: whole.clusters[entry.name] for entry in part.upstreams},
            endpoints={
                name: message
                for name, message in whole.endpoints.items()
                if whole_name(name) in upstreams
            },
            secrets={entry.name: whole.secrets[entry.name] for entry in part.secrets},
        )

    def _shared(self, snapshot: Snapshot, *, sharded: bool) -> _Shared:
        known = self._whole.get(sharded)
        if known is None or known[0] is not snapshot:
            known = (snapshot, self._make(snapshot, sharded=sharded))
            self._whole[sharded] = known
        return known[1]

    def _make(self, snapshot: Snapshot, *, sharded: bool) -> _Shared:
        return _Shared(
            routes=self._routes.made({entry.name: entry for entry in snapshot.route_tables}),
            clusters=self._clusters.made({entry.name: entry for entry in snapshot.upstreams}),
            endpoints=self._sharded(snapshot.endpoint_sets)
            if sharded
            else self._endpoints.made({e.upstream: e for e in snapshot.endpoint_sets}),
            secrets=self._secrets.made({entry.name: entry for entry in snapshot.secrets}),
        )

    def _sharded(
        self, sets: Iterable[EndpointSet]
    ) -> dict[str, endpoint_pb2.ClusterLoadAssignment]:
        parts: dict[str, EndpointSet] = {}
        before, self._shard_counts = self._shard_counts, {}
        for entry in sets:
            endpoints = sum(len(locality.endpoints) for locality in entry.localities)
            count = shard_count(endpoints, before.get(entry.upstream, 1))
            self._shard_counts[entry.upstream] = count
            parts |= shards(entry, count)
        return self._shards.made(parts)


class _Kept(Generic[V, M]):
    """The messages made last, each with the value it was made from."""

    def __init__(self, make: Callable[[V], M]) -> None:
        self._make = make
        self._last: dict[str, tuple[V, M]] = {}

    def made(self, values: Mapping[str, V]) -> dict[str, M]:
        last = self._last
        self._last = {
            name: known
            if (known := last.get(name)) is not None and (known[0] is value or known[0] == value)
            else (value, self._make(value))
            for name, value in values.items()
        }
        return {name: message for name, (_, message) in self._last.items()}


def _secret(secret: TlsSecret | CaSecret) -> secret_pb2.Secret:
    message = secret_pb2.Secret(name=secret.name)
    if isinstance(secret, CaSecret):
        message.validation_context.trusted_ca.inline_bytes = secret.ca_pem
        return message
    message.tls_certificate.certificate_chain.inline_bytes = secret.certificate_pem
    message.tls_certificate.private_key.inline_bytes = secret.private_key_pem
    return message
