"""The objects of successive snapshots as tables that note what they are asked.

Decides: how a snapshot is compared with the one before, and that the slices of each Service are
found by it; that objects of a kind are gathered when somebody asks.
Leaves to others: what is made of them (``compile.index``, ``exports``).
Invariants: an object that equals the one before is that one, so that whoever meets it twice can
tell by identity; a change costs one comparison by identity for each object, and what it touches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from federation.derive.incremental import Change, Reads, Table, differences
from federation.model.base import ServiceName
from federation.model.objects import ApiObject, EndpointSlice, ObjectKey, ObjectSnapshot


class _Kinds:
    """The objects of each kind, oldest first, gathered when somebody asks."""

    def __init__(self) -> None:
        self._objects = ObjectSnapshot()
        self._gathered: dict[type[ApiObject], tuple[ApiObject, ...]] = {}

    def follow(self, objects: ObjectSnapshot, changed: Iterable[type[ApiObject]]) -> None:
        self._objects = objects
        for kind in changed:
            self._gathered.pop(kind, None)

    def of(self, kind: type[ApiObject]) -> tuple[ApiObject, ...]:
        if kind not in self._gathered:
            self._gathered[kind] = self._objects.of(kind)
        return self._gathered[kind]


ObjectT = TypeVar("ObjectT", bound=ApiObject)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Objects(ObjectSnapshot):
    """A snapshot that notes what it is asked."""

    kinds: _Kinds
    reads: Reads

    def of(self, kind: type[ObjectT]) -> tuple[ObjectT, ...]:
        """All objects of a class, oldest first."""
        self.reads.noted.add((_KIND, kind))
        return cast("tuple[ObjectT, ...]", self.kinds.of(kind))


_OBJECTS, _KIND = "objects", "kind"
"""Names of the tables of objects by key, and of objects by kind."""

_Slices = dict[ServiceName, tuple[EndpointSlice, ...]]


SlicesByService = Mapping[ServiceName, tuple[EndpointSlice, ...]]
"""The EndpointSlices of each Service, by key."""


class ObjectTables:
    """The tables over the newest snapshot. One reader of one ``Change`` at a time."""

    def __init__(self) -> None:
        self._objects: Mapping[ObjectKey, ApiObject] = {}
        self._kinds = _Kinds()
        self._slices: _Slices = {}

    def __repr__(self) -> str:
        return f"ObjectTables(objects={len(self._objects)}, services={len(self._slices)})"

    def follow(
        self, snapshot: ObjectSnapshot, change: Change
    ) -> tuple[ObjectSnapshot, SlicesByService]:
        """``snapshot`` and its slices, both of which note what they are asked."""
        before, now = self._objects, snapshot.objects
        found = differences(before, now)
        if found.copied:
            now = {**now, **{key: before[key] for key in found.copied}}
            snapshot = replace(snapshot, objects=now)
        change.note(_OBJECTS, found)
        touched = [it for key in found.changed for it in (before.get(key), now.get(key)) if it]
        kinds = {type(entry) for entry in touched}
        change.dirty |= {(_KIND, kind) for kind in kinds}
        self._kinds.follow(snapshot, kinds)
        slices = _follow_slices(self._slices, touched, now)
        noting = _Objects(
            objects=Table(_OBJECTS, now, change.reads), kinds=self._kinds, reads=change.reads
        )
        by_service = change.table("slices", self._slices, slices)
        self._objects, self._slices = now, slices
        return noting, by_service


def _follow_slices(
    before: _Slices, touched: Iterable[ApiObject], now: Mapping[ObjectKey, ApiObject]
) -> _Slices:
    """The slices of each Service, of which ``touched`` were or are some."""
    old = [entry for entry in touched if isinstance(entry, EndpointSlice)]
    if not old:
        return before
    gone = {entry.key for entry in old}
    found: defaultdict[ServiceName, dict[ObjectKey, EndpointSlice]] = defaultdict(dict)
    for name in {name for entry in old if (name := _service_of(entry)) is not None}:
        found[name] = {it.key: it for it in before.get(name, ()) if it.key not in gone}
    for key in gone:
        entry = now.get(key)
        if isinstance(entry, EndpointSlice) and (name := _service_of(entry)) is not None:
            found[name][key] = entry
    slices = dict(before)
    for name, entries in found.items():
        if entries:
            slices[name] = tuple(entries[key] for key in sorted(entries))
        else:
            slices.pop(name, None)
    return slices


def _service_of(entry: EndpointSlice) -> ServiceName | None:
    if not entry.service_name:
        return None
    return ServiceName(namespace=entry.metadata.namespace, name=entry.service_name)
