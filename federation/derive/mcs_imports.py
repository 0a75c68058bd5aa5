"""ServiceImports of the MCS API as they are to be in one cluster (KEP-1645).

Decides: which imports there are (one for each exported service whose namespace exists here,
exporters included) and what stands in them.
Leaves to others: merging exports (``derive.merge``), what stands behind imports (``mcs_objects``),
writing objects (a ``DerivedObjects`` port), their statuses (``compile.imports``).
Invariants: pure; an import lives as long as one export does; labels and annotations are those that
exports name, never copied from a Service.
"""

from __future__ import annotations

from collections.abc import Mapping

from federation.derive.merge import MergedService, merge
from federation.model.base import ServiceName
from federation.model.facts import ServiceType
from federation.model.objects import (
    ApiObject,
    McsServiceImport,
    Namespace,
    ObjectKey,
    ObjectSnapshot,
)
from federation.model.objects.metadata import ObjectMeta
from federation.model.objects.multicluster import ImportPort, McsServiceImportSpec
from federation.model.view import FederationView

MANAGED_BY = "multicluster.kubernetes.io/managed-by"
"""Label of the objects that the federation derives; its value is ``MANAGER``."""

MANAGER = "federation.dev"

DERIVED_SERVICE = "multicluster.kubernetes.io/derived-service"
"""Annotation of an import: the name of its derived Service, in the same namespace."""


def is_ours(source: ApiObject) -> bool:
    """Whether the federation derived ``source``, so that it may change and delete it."""
    return (source.metadata.labels or {}).get(MANAGED_BY) == MANAGER


def derived_imports(
    objects: ObjectSnapshot, view: FederationView
) -> Mapping[ObjectKey, McsServiceImport]:
    """The imports of a cluster with ``objects``, by key."""
    namespaces = {entry.metadata.name for entry in objects.of(Namespace)}
    found = {}
    for service, facts in view.exports.items():
        if facts and service.namespace in namespaces:
            wanted = _import(service, merge(facts))
            found[wanted.key] = wanted
    return found


def _import(service: ServiceName, merged: MergedService) -> McsServiceImport:
    oldest = merged.oldest
    config = None
    if oldest.session_affinity_timeout_s is not None:
        config = {"clientIP": {"timeoutSeconds": oldest.session_affinity_timeout_s}}
    return McsServiceImport(
        metadata=ObjectMeta(
            name=service.name,
            namespace=service.namespace,
            labels={**oldest.labels, MANAGED_BY: MANAGER},
            annotations=dict(oldest.annotations) or None,
        ),
        spec=McsServiceImportSpec(
            type=ServiceType(merged.type),
            ports=tuple(
                ImportPort(
                    name=port.name,
                    port=port.port,
                    protocol=port.protocol,
                    app_protocol=port.app_protocol,
                )
                for port in merged.ports
            ),
            ip_families=merged.ip_families,
            session_affinity=oldest.session_affinity,
            session_affinity_config=config,
            internal_traffic_policy=oldest.internal_traffic_policy,
            traffic_distribution=oldest.traffic_distribution,
        ),
    )
