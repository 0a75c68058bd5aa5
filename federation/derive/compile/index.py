"""Look-ups over the inputs, made once for each compilation.

Decides: how objects and federation state are found: Services, their slices, grants, exports.
Leaves to others: what follows from them.
Invariants: nothing is added to the inputs; what is ``synced`` or fresh is not judged here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from federation.derive.compile.inputs import CompileInputs, CompileSettings
from federation.derive.imports import meant_service
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import ExportFact
from federation.model.objects import (
    EndpointSlice,
    FederatedServiceImport,
    McsServiceImport,
    MultiClusterService,
    ObjectKey,
    ObjectSnapshot,
    ReferenceGrant,
    Service,
)
from federation.model.view import FederationView

AnyImport = FederatedServiceImport | McsServiceImport


@dataclass(frozen=True, slots=True)
class Index:
    """The inputs of one compilation; ``weight_owners`` are the oldest by subject."""

    cluster: ClusterId
    region: Region
    objects: ObjectSnapshot
    view: FederationView
    settings: CompileSettings
    slices: Mapping[ServiceName, tuple[EndpointSlice, ...]]
    grants: tuple[ReferenceGrant, ...]
    regions: Mapping[ClusterId, Region]
    weight_owners: Mapping[ServiceName, MultiClusterService]

    def service(self, name: ServiceName) -> Service | None:
        """The Service of that name in this cluster."""
        return self.objects.get(Service, name.namespace, name.name)

    def permitted(self, referrer: ObjectKey, referent: ObjectKey) -> bool:
        """Whether a reference may cross into the referent's namespace."""
        return crosses(self.grants, referrer, referent)

    def exports(self, service: ServiceName) -> Mapping[ClusterId, ExportFact]:
        """The exports of the service by cluster; empty when no cluster exports it."""
        return self.view.exports.get(service, {})

    def meaning(self, source: AnyImport) -> ServiceName | None:
        """The Service that an import means, ``None`` while no cluster exports a candidate."""
        return meant_service(source, self.view.exports)


def index(inputs: CompileInputs) -> Index:
    """The look-ups over ``inputs``."""
    regions = {member.cluster: member.region for member in inputs.view.members.values()}
    return Index(
        cluster=inputs.cluster,
        region=inputs.region,
        objects=inputs.objects,
        view=inputs.view,
        settings=inputs.settings,
        slices=_slices(inputs.objects),
        grants=inputs.objects.of(ReferenceGrant),
        regions={**regions, inputs.cluster: inputs.region},
        weight_owners=_weight_owners(inputs.objects, inputs.view),
    )


def import_name(source: MultiClusterService) -> ServiceName:
    """The import whose weights ``source`` sets."""
    ref = source.spec.service_import
    return ServiceName(namespace=ref.namespace or source.metadata.namespace, name=ref.name)


def import_key(objects: ObjectSnapshot, source: MultiClusterService) -> ObjectKey:
    """The object that ``source`` refers to; the federation's kind as long as there is none."""
    name = import_name(source)
    found = find_import(objects, name)
    if found is not None:
        return found.key
    kind = FederatedServiceImport
    return ObjectKey(kind.GROUP, kind.KIND, name.namespace, name.name)


def crosses(grants: Iterable[ReferenceGrant], referrer: ObjectKey, referent: ObjectKey) -> bool:
    """Whether a reference stays in its namespace or has a grant of the referent's."""
    return referrer.namespace == referent.namespace or any(
        grant.permits(referrer, referent) for grant in grants
    )


def find_import(objects: ObjectSnapshot, name: ServiceName) -> AnyImport | None:
    """The import of that name, the federation's kind first."""
    federated = objects.get(FederatedServiceImport, name.namespace, name.name)
    return federated or objects.get(McsServiceImport, name.namespace, name.name)


def weights_subject(
    objects: ObjectSnapshot, view: FederationView, source: MultiClusterService
) -> ServiceName:
    """What the weights of ``source`` are about: the Service, or the import until that is known."""
    name = import_name(source)
    found = find_import(objects, name)
    return (meant_service(found, view.exports) if found is not None else None) or name


def _weight_owners(
    objects: ObjectSnapshot, view: FederationView
) -> dict[ServiceName, MultiClusterService]:
    """The oldest that may speak: one without a grant sets no weights, so it rules nobody."""
    grants = objects.of(ReferenceGrant)
    return {
        weights_subject(objects, view, entry): entry
        for entry in reversed(objects.of(MultiClusterService))
        if crosses(grants, entry.key, import_key(objects, entry))
    }


def _slices(objects: ObjectSnapshot) -> dict[ServiceName, tuple[EndpointSlice, ...]]:
    found: defaultdict[ServiceName, list[EndpointSlice]] = defaultdict(list)
    for entry in objects.of(EndpointSlice):
        if entry.service_name:
            name = ServiceName(namespace=entry.metadata.namespace, name=entry.service_name)
            found[name].append(entry)
    return {
        name: tuple(sorted(entries, key=lambda entry: entry.key)) for name, entries in found.items()
    }
