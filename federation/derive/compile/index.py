"""Look-ups over the inputs, kept from one compilation to the next.

Decides: how objects and federation state are found: Services, their slices, grants, exports; what
of it has changed since the last compilation.
Leaves to others: what follows from them.
Invariants: nothing is added to the inputs; what is ``synced`` or fresh is not judged here; whatever
is asked of an ``Index`` is noted, so that its answers can be told to have changed; look-ups follow
by difference, at the cost of one comparison by identity for each object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from federation.derive.compile.inputs import CompileInputs, CompileSettings
from federation.derive.imports import meant_service
from federation.derive.incremental import Change, Single
from federation.derive.object_tables import ObjectTables
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
    """The inputs of one compilation; ``grants`` by namespace, ``weight_owners`` are the oldest by
    subject."""

    cluster: ClusterId
    region: Region
    objects: ObjectSnapshot
    view: FederationView
    settings: CompileSettings
    slices: Mapping[ServiceName, tuple[EndpointSlice, ...]]
    grants: Mapping[str, tuple[ReferenceGrant, ...]]
    regions: Mapping[ClusterId, Region]
    weight_owners: Mapping[ServiceName, MultiClusterService]
    kept_certificates: Mapping[ObjectKey, str]

    def service(self, name: ServiceName) -> Service | None:
        """The Service of that name in this cluster."""
        return self.objects.get(Service, name.namespace, name.name)

    def permitted(self, referrer: ObjectKey, referent: ObjectKey) -> bool:
        """Whether a reference may cross into the referent's namespace."""
        return referrer.namespace == referent.namespace or crosses(
            self.grants.get(referent.namespace, ()), referrer, referent
        )

    def exports(self, service: ServiceName) -> Mapping[ClusterId, ExportFact]:
        """The exports of the service by cluster; empty when no cluster exports it."""
        return self.view.exports.get(service, {})

    def meaning(self, source: AnyImport) -> ServiceName | None:
        """The Service that an import means, ``None`` while no cluster exports a candidate."""
        return meant_service(source, self.view.exports)


_Grants = dict[str, tuple[ReferenceGrant, ...]]


class Indexes:
    """The indexes of successive inputs of one cluster with one set of settings."""

    def __init__(self) -> None:
        self._tables = ObjectTables()
        self._grants: Single[_Grants] = Single()
        self._view = FederationView()
        self._regions: Mapping[ClusterId, Region] = {}
        self._kept: Mapping[ObjectKey, str] = {}
        self._owners: Mapping[ServiceName, MultiClusterService] = {}
        self._weight_owners: Single[Mapping[ServiceName, MultiClusterService]] = Single()

    def __repr__(self) -> str:
        return f"Indexes({self._tables!r})"

    def follow(self, inputs: CompileInputs) -> tuple[Change, Index]:
        """The look-ups over ``inputs``, and what has changed since the last ones."""
        change = Change()
        objects, slices = self._tables.follow(inputs.objects, change)
        before = self._grants.value or {}
        grants = self._grants.update(change, (), lambda: _grants(objects))
        view = self._follow_view(inputs.view, change)
        regions = {member.cluster: member.region for member in inputs.view.members.values()}
        regions = {**regions, inputs.cluster: inputs.region}
        index = Index(
            cluster=inputs.cluster,
            region=inputs.region,
            objects=objects,
            view=view,
            settings=inputs.settings,
            slices=slices,
            grants=change.table("grants", before, grants),
            regions=change.table("regions", self._regions, regions),
            weight_owners={},
            kept_certificates=change.table("kept", self._kept, inputs.kept_certificates),
        )
        self._regions, self._kept = regions, inputs.kept_certificates
        ruled = self._weight_owners.value or {}
        owners = self._weight_owners.update(change, (), lambda: _weight_owners(index))
        return change, replace(index, weight_owners=change.table("owners", ruled, owners))

    def _follow_view(self, view: FederationView, change: Change) -> FederationView:
        # What is no mapping says when the view was made, and by whom: nothing follows from it here.
        tables: dict[str, Any] = {
            field.name: change.table(field.name, getattr(self._view, field.name), rows)
            for field in fields(view)
            if isinstance(rows := getattr(view, field.name), Mapping)
        }
        self._view = view
        return FederationView(**tables)


def _grants(objects: ObjectSnapshot) -> _Grants:
    found: defaultdict[str, list[ReferenceGrant]] = defaultdict(list)
    for grant in objects.of(ReferenceGrant):
        found[grant.metadata.namespace].append(grant)
    return {namespace: tuple(grants) for namespace, grants in found.items()}


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


def _weight_owners(index: Index) -> dict[ServiceName, MultiClusterService]:
    """The oldest that may speak: one without a grant sets no weights, so it rules nobody."""
    return {
        weights_subject(index.objects, index.view, entry): entry
        for entry in reversed(index.objects.of(MultiClusterService))
        if index.permitted(entry.key, import_key(index.objects, entry))
    }
