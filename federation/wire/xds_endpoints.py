"""Cluster load assignments (EDS).

Decides: how localities, priorities, draining and peers are spelled.
Leaves to others: which endpoints there are (``derive.compile``); health beyond draining is the
gateway's own finding.
Invariants: an Envoy locality is one member cluster (``region``, its name as ``zone``); a
peer's endpoint always carries the mark that selects mutual TLS.
"""

from __future__ import annotations

from envoy.config.core.v3 import address_pb2, base_pb2, health_check_pb2
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


def _locality(source: LocalityEndpoints) -> endpoint_components_pb2.LocalityLbEndpoints:
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=source.region, zone=source.cluster),
        priority=source.priority,
        load_balancing_weight=uint32(source.weight),
        lb_endpoints=[_endpoint(entry, source) for entry in source.endpoints],
    )


def _endpoint(source: Endpoint, locality: LocalityEndpoints) -> endpoint_components_pb2.LbEndpoint:
    notes: dict[str, object] = {"cluster_id": locality.cluster, "peer": source.peer}
    if source.draining and source.drain_grace_ms is not None:
        notes["drain_grace_ms"] = source.drain_grace_ms
    message = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(
            address=address_pb2.Address(
                socket_address=address_pb2.SocketAddress(
                    address=source.host, port_value=source.port
                )
            )
        ),
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
