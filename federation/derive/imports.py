"""Which Service an import means, and which clusters a name means (docs/semantics.md).

Decides: the order in which an import's name is read as a Service, and that a name which is both a
region and a cluster means the region.
Leaves to others: what is exported (``derive.exports``), weights (``derive.resolve``), conditions
and routes (``derive.compile``).
Invariants: the answer depends on the names alone, never on readiness, so that an import does not
change its meaning while endpoints come and go.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from federation.model.base import ClusterId, Region, ServiceName
from federation.model.objects import FederatedServiceImport, McsServiceImport

IMPORT_SUFFIX = "-import"
"""Ending of an import's name that its Service does not have."""


def candidates(source: FederatedServiceImport | McsServiceImport) -> tuple[ServiceName, ...]:
    """The Services that the import may mean, the first one first.

    An MCS import is always of its own name; a ``serviceRef`` leaves no choice either.
    """
    namespace, name = source.metadata.namespace, source.metadata.name
    if isinstance(source, McsServiceImport):
        return (ServiceName(namespace=namespace, name=name),)
    if source.spec.service_ref is not None:
        return (ServiceName(namespace=namespace, name=source.spec.service_ref.name),)
    names = [name]
    if name.endswith(IMPORT_SUFFIX) and name != IMPORT_SUFFIX:
        names.append(name.removesuffix(IMPORT_SUFFIX))
    return tuple(ServiceName(namespace=namespace, name=entry) for entry in names)


def meant_service(
    source: FederatedServiceImport | McsServiceImport, exported: Container[ServiceName]
) -> ServiceName | None:
    """The first candidate that any cluster exports, or ``None`` when none does."""
    return next((entry for entry in candidates(source) if entry in exported), None)


def clusters_named(name: str, regions: Mapping[ClusterId, Region]) -> tuple[ClusterId, ...]:
    """The member clusters that ``name`` means, sorted; empty when it names nothing."""
    in_region = tuple(sorted(cluster for cluster, region in regions.items() if region == name))
    if in_region:
        return in_region
    return (ClusterId(name),) if ClusterId(name) in regions else ()
