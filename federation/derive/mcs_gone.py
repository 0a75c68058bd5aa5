"""Which derived objects are left alone although nothing that is known asks for them.

Decides: whether an import's exporters are known to export it no longer. They are when their sealed
facts say so, or when they were taken out of the federation. A cluster without facts, or with facts
that cannot all be read here, says nothing: the store may have been restored empty, an older agent
may meet facts of newer ones.
Leaves to others: what is wanted (``mcs_objects``), what is doubted (``wire.etcd``).
Invariants: pure; nothing is deleted because something is missing, only because somebody said so;
what is wanted stays as wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from federation.derive.mcs_imports import exporters, is_ours
from federation.derive.mcs_objects import SERVICE_LABEL, SOURCE_LABEL, DerivedState
from federation.model.base import ClusterId
from federation.model.objects import (
    ApiObject,
    EndpointSlice,
    McsServiceImport,
    ObjectKey,
    Service,
)
from federation.model.view import FederationView

ObjectT = TypeVar("ObjectT", bound=ApiObject)


def with_unexplained(
    wanted: DerivedState, stored: Iterable[ApiObject], view: FederationView
) -> tuple[DerivedState, tuple[ObjectKey, ...]]:
    """``wanted`` with what is not known to be gone either, as it stands; the keys of that."""
    ours = [entry for entry in stored if is_ours(entry)]
    imports = {
        (entry.metadata.namespace, entry.metadata.name): entry
        for entry in ours
        if isinstance(entry, McsServiceImport)
    }
    kept = {
        entry.key: entry
        for entry in ours
        if not all(view.is_told(cluster) for cluster in _sources(entry, imports, view))
    }

    state = replace(
        wanted,
        imports={**_of(McsServiceImport, kept), **wanted.imports},
        services={**_of(Service, kept), **wanted.services},
        slices={**_of(EndpointSlice, kept), **wanted.slices},
    )
    asked_for = {**wanted.imports, **wanted.services, **wanted.slices}
    return state, tuple(sorted(kept.keys() - asked_for.keys()))


def _of(kind: type[ObjectT], kept: Mapping[ObjectKey, ApiObject]) -> dict[ObjectKey, ObjectT]:
    return {key: entry for key, entry in kept.items() if isinstance(entry, kind)}


def _sources(
    entry: ApiObject,
    imports: Mapping[tuple[str, str], McsServiceImport],
    view: FederationView,
) -> Iterable[ClusterId]:
    """The clusters that ``entry`` follows from; where nobody knows, all members."""
    labels = entry.metadata.labels or {}
    name = entry.metadata.name
    if not isinstance(entry, McsServiceImport):
        name = labels.get(SERVICE_LABEL, "")
    found = imports.get((entry.metadata.namespace, name))
    sources = set(exporters(found)) if found is not None else set()
    if isinstance(entry, EndpointSlice) and SOURCE_LABEL in labels:
        sources.add(ClusterId(labels[SOURCE_LABEL]))
    return sources or view.members.keys()
