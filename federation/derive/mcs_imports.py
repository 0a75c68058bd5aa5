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
from federation.model.base import ClusterId, ServiceName
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

EXPORTERS = "multicluster.kubernetes.io/exported-by"
"""Annotation of an import: the clusters behind it when it was written, with commas between. The
status says so to people; it is no place to remember by, since it is written after the import and
each of its changes would be one of the object."""


def exporters(source: ApiObject) -> frozenset[ClusterId]:
    """The clusters that ``EXPORTERS`` names."""
    text = (source.metadata.annotations or {}).get(EXPORTERS, "")
    return frozenset(ClusterId(name) for name in text.split(",") if name)


def unexplained(source: ApiObject | None, view: FederationView) -> frozenset[ClusterId]:
    """The clusters behind an import that have not said that they export it no longer."""
    recorded = exporters(source) if source is not None and is_ours(source) else frozenset()
    return frozenset(cluster for cluster in recorded if not view.is_told(cluster))


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
            behind = {*facts, *unexplained(objects.objects.get(wanted.key), view)}
            notes = {**(wanted.metadata.annotations or {}), EXPORTERS: ",".join(sorted(behind))}
            found[wanted.key] = wanted.with_metadata(annotations=notes)
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
