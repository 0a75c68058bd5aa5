"""Exports, imports and cluster weights: the MCS API's kinds and the federation's own.

Decides: their fields and what is wrong in one object by itself.
Leaves to others: which Service an import means and what is exported (``derive.exports``).
Invariants: two kinds are named ServiceImport; the MCS API's is ``McsServiceImport``, the one of
group ``gateway.networking.k8s.io`` is ``FederatedServiceImport``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator

from federation.model.facts import ServiceType
from federation.model.objects.gateway import GATEWAY_GROUP
from federation.model.objects.metadata import (
    ApiObject,
    Name,
    Namespace_,
    OptionalText,
    Part,
    Port,
    Rule,
)
from federation.model.objects.route import MCS_GROUP, WEIGHT_MAX


class ImportPort(Part):
    """A port of an import."""

    name: OptionalText = ""
    """Name of the port, as the Service has it."""
    port: Port
    """Number of the port that routes refer to."""
    protocol: str = "TCP"
    """TCP, UDP or SCTP; only TCP is routed."""
    app_protocol: str | None = None
    """What is spoken on the port, as in a Service (`kubernetes.io/h2c`)."""


class ServiceExportSpec(Part):
    """What travels with an export; never copied from metadata (KEP-1645)."""

    exported_labels: Mapping[str, str] | None = None
    exported_annotations: Mapping[str, str] | None = None


class McsServiceExport(ApiObject):
    """An export of the Service of the same name (multicluster.x-k8s.io)."""

    GROUP: ClassVar[str] = MCS_GROUP
    KIND: ClassVar[str] = "ServiceExport"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1beta1", "v1alpha1")

    api_version: str = f"{MCS_GROUP}/v1beta1"
    kind: str = "ServiceExport"
    spec: ServiceExportSpec = ServiceExportSpec()


class McsServiceImportSpec(Part):
    """A clusterset service as one cluster sees it (KEP-1645)."""

    type: ServiceType = ServiceType.CLUSTER_SET_IP
    ports: tuple[ImportPort, ...] = ()
    ips: tuple[str, ...] = Field(default=(), max_length=2)
    ip_families: tuple[str, ...] = Field(default=(), max_length=2)
    session_affinity: str = "None"
    session_affinity_config: Mapping[str, Any] | None = None
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None


class McsServiceImport(ApiObject):
    """An import of the clusterset service of the same name (multicluster.x-k8s.io)."""

    GROUP: ClassVar[str] = MCS_GROUP
    KIND: ClassVar[str] = "ServiceImport"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1beta1", "v1alpha1")

    api_version: str = f"{MCS_GROUP}/v1beta1"
    kind: str = "ServiceImport"
    spec: McsServiceImportSpec = McsServiceImportSpec()


class ServiceRef(Part):
    """The Service an import means, by name in the import's namespace."""

    name: Name
    """Name of the Service in the namespace of the import."""


class FederatedServiceImportSpec(Part):
    """A service of the clusterset, as routes of this cluster refer to it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.resolution == 'DNS'",
            "must be DNS (clients find the import in svc.clusterset.local)",
            field="resolution",
        ),
    )

    type: ServiceType = ServiceType.CLUSTER_SET_IP
    """ClusterSetIP balances calls; Headless names the endpoints themselves."""
    ports: tuple[ImportPort, ...] = Field(min_length=1)
    """The ports that routes may refer to."""
    resolution: str = "DNS"
    """How clients find the import; DNS is the only way."""
    service_ref: ServiceRef | None = None
    """The Service that is meant; left out, it is derived from the import's own name."""

    @field_validator("resolution")
    @classmethod
    def _dns_only(cls, resolution: str) -> str:
        if resolution != "DNS":
            raise ValueError(
                f'must be DNS (clients find the import in svc.clusterset.local), got "{resolution}"'
            )
        return resolution


class FederatedServiceImport(ApiObject):
    """The federation's ServiceImport (gateway.networking.k8s.io/v1beta1)."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "ServiceImport"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1beta1",)

    api_version: str = f"{GATEWAY_GROUP}/v1beta1"
    kind: str = "ServiceImport"
    spec: FederatedServiceImportSpec


class ServiceImportReference(Part):
    """An import; ``namespace`` ``None`` is the referring object's own."""

    name: Name
    """Name of the ServiceImport."""
    namespace: Namespace_ | None = None
    """Its namespace; left out, that of the referring object. Another one takes a ReferenceGrant
    there."""


class ClusterBackend(Part):
    """The weight of one cluster, or of one region's clusters together."""

    cluster: Name
    """Name of a cluster, or of a region for all its clusters; a name that is both means the
    region."""
    weight: int = Field(default=1, ge=0, le=WEIGHT_MAX)
    """Its part of the traffic relative to the others; 0 gives it none."""


class MultiClusterServiceSpec(Part):
    """Weights of clusters for one import; they hold at every gateway, wherever it stands."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.clusterBackends.all("
            "a, self.clusterBackends.exists_one(b, b.cluster == a.cluster))",
            "a cluster stands twice",
            field="clusterBackends",
        ),
        Rule(
            "self.clusterBackends.exists(b, b.weight > 0)",
            "weight sum is zero",
            field="clusterBackends",
        ),
    )

    service_import: ServiceImportReference
    """The import whose traffic is split."""
    cluster_backends: tuple[ClusterBackend, ...] = Field(min_length=1, max_length=64)
    """The clusters or regions that take part, each with its weight."""

    @field_validator("cluster_backends")
    @classmethod
    def _weights_make_sense(
        cls, backends: tuple[ClusterBackend, ...]
    ) -> tuple[ClusterBackend, ...]:
        names = [backend.cluster for backend in backends]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise ValueError(f'a cluster stands twice, got "{name}"')
        if not any(backend.weight for backend in backends):
            raise ValueError("weight sum is zero")
        return backends


class MultiClusterService(ApiObject):
    """The federation's MultiClusterService."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "MultiClusterService"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1beta1",)

    api_version: str = f"{GATEWAY_GROUP}/v1beta1"
    kind: str = "MultiClusterService"
    spec: MultiClusterServiceSpec
