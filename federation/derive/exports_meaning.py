"""Which Service a MultiClusterService or a route speaks of.

Decides: the way from a reference over the import to the Service, with leave across namespaces.
Leaves to others: how an import's name is read (``derive.imports``), what follows from it, saying
what is wrong with an object that speaks of none (``derive.compile``).
Invariants: where no cluster exports a candidate yet, the first one that exists here is meant, so
that a MultiClusterService can be the first to export it.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from federation.derive.imports import candidates, meant_service
from federation.model.base import ServiceName
from federation.model.objects import (
    FederatedServiceImport,
    McsServiceImport,
    MultiClusterService,
    ObjectKey,
    ObjectSnapshot,
    ReferenceGrant,
    Service,
)

AnyImport = FederatedServiceImport | McsServiceImport


@dataclass(frozen=True, slots=True)
class Meanings:
    """Look-ups from references to Services. ``exported`` is what any cluster exports."""

    objects: ObjectSnapshot
    exported: Container[ServiceName]

    def of_import(self, found: AnyImport) -> ServiceName | None:
        """The Service that the import means, ``None`` if no candidate is exported or here."""
        meant = meant_service(found, self.exported)
        if meant is not None:
            return meant
        return next((name for name in candidates(found) if self.service(name)), None)

    def of_multi_cluster_service(self, source: MultiClusterService) -> ServiceName | None:
        """The Service whose weights ``source`` sets, ``None`` if its import leads to none."""
        reference = source.spec.service_import
        namespace = reference.namespace or source.metadata.namespace
        found = self.find_import(namespace, reference.name)
        if found is None or not self.permits(source.key, found.key):
            return None
        return self.of_import(found)

    def find_import(self, namespace: str, name: str) -> AnyImport | None:
        """The import of that name; the federation's kind goes before the MCS API's."""
        return self.objects.get(FederatedServiceImport, namespace, name) or self.objects.get(
            McsServiceImport, namespace, name
        )

    def permits(self, referrer: ObjectKey, referent: ObjectKey) -> bool:
        """Whether ``referrer`` may refer to ``referent``: it stands beside it, or has a grant."""
        return referrer.namespace == referent.namespace or any(
            grant.permits(referrer, referent) for grant in self.objects.of(ReferenceGrant)
        )

    def service(self, name: ServiceName) -> Service | None:
        """The Service of that name in this cluster."""
        return self.objects.get(Service, name.namespace, name.name)
