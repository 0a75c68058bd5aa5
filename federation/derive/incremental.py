"""Results that are kept while what they were made from stays as it was.

Decides: which units of a pure derivation are made again after a change of its inputs. A unit (a
route, an upstream, a status) reads its inputs through ``Table``, which notes what was asked for; a
unit is made again when one of its arguments or one of those answers has changed, and not before.
Nobody writes down what depends on what, so a new rule cannot forget to.
Leaves to others: the units themselves, and what they are put together to.
Invariants: the results are those of making everything anew, as long as units are pure and read
through tables and arguments alone; a result equal to the last one stays the same object, and so
does a mapping of results in which nothing changed, so that later steps compare by identity; what is
remembered is of units that were asked for last time, and of no others.
"""

from __future__ import annotations

import operator
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar, overload

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
A = TypeVar("A", bound=tuple[Any, ...])
D = TypeVar("D")

Token = tuple[str, Any]
"""One question to a table: its name, and the key asked for (or ``WHOLE``, or ``_Presence``)."""


@dataclass(frozen=True, slots=True)
class _Presence:
    """The question whether there is such a key, whatever stands there."""

    key: Hashable


WHOLE = object()
"""The question for everything in a table."""

_ABSENT = object()


class Reads:
    """Where tables note what they are asked while a unit is made."""

    __slots__ = ("noted",)

    def __init__(self) -> None:
        self.noted: set[Token] = set()

    def take(self) -> tuple[Token, ...]:
        """What was asked since the last time."""
        taken, self.noted = tuple(self.noted), set()
        return taken


class Table(Mapping[K, V]):
    """A mapping that notes what it is asked."""

    __slots__ = ("_name", "_reads", "_rows")

    def __init__(self, name: str, rows: Mapping[K, V], reads: Reads) -> None:
        self._name = name
        self._rows = rows
        self._reads = reads

    def __repr__(self) -> str:
        return f"Table({self._name}, rows={len(self._rows)})"

    def __getitem__(self, key: K) -> V:
        self._reads.noted.add((self._name, key))
        return self._rows[key]

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...
    def get(self, key: K, default: object = None, /) -> object:
        """The row of ``key``."""
        self._reads.noted.add((self._name, key))
        return self._rows.get(key, default)

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, Hashable)
        self._reads.noted.add((self._name, _Presence(key)))
        return key in self._rows

    def __iter__(self) -> Iterator[K]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def keys(self) -> KeysView[K]:
        """All keys."""
        return self._whole().keys()

    def values(self) -> ValuesView[V]:
        """All rows."""
        return self._whole().values()

    def items(self) -> ItemsView[K, V]:
        """All rows with their keys."""
        return self._whole().items()

    def _whole(self) -> Mapping[K, V]:
        self._reads.noted.add((self._name, WHOLE))
        return self._rows


@dataclass(frozen=True, slots=True)
class Differences(Generic[K]):
    """Keys by which two mappings differ.

    ``changed`` have other rows, ``moved`` among them are in one of the two alone; rows of
    ``copied`` are equal and not the same object.
    """

    changed: Collection[K] = ()
    moved: Collection[K] = ()
    copied: Collection[K] = ()


def differences(old: Mapping[K, V], new: Mapping[K, V]) -> Differences[K]:
    """What has changed from ``old`` to ``new``, by identity where that is enough."""
    if old is new:
        return Differences()
    changed: set[K] = set()
    moved: set[K] = set()
    copied: set[K] = set()
    before: Callable[[K, object], object] = old.get
    for key, value in new.items():
        was = before(key, _ABSENT)
        if was is value:
            continue
        if was is _ABSENT:
            moved.add(key)
        elif was == value:
            copied.add(key)
        else:
            changed.add(key)
    if len(old) + len(moved) != len(new):
        moved.update(key for key in old if key not in new)
    return Differences(changed | moved, moved, copied)


@dataclass(slots=True)
class Change:
    """What has another answer than last time; grows as tables that are results are compared."""

    dirty: set[Token] = field(default_factory=set)
    reads: Reads = field(default_factory=Reads)

    def table(self, name: str, old: Mapping[K, V], new: Mapping[K, V]) -> Table[K, V]:
        """``new`` as a table; units that asked for what was otherwise in ``old`` are made anew."""
        self.note(name, differences(old, new))
        return Table(name, new, self.reads)

    def note(self, name: str, found: Differences[Any]) -> None:
        """The table ``name`` differs from last time by ``found``."""
        if found.changed:
            self.dirty.add((name, WHOLE))
        self.dirty.update((name, key) for key in found.changed)
        self.dirty.update((name, _Presence(key)) for key in found.moved)

    def made(
        self, known: _Made[V] | None, arguments: tuple[Any, ...], make: Callable[[], V]
    ) -> _Made[V]:
        """A unit made now, with what it asked for; equal parts of ``known`` stay as they are."""
        self.reads.take()
        value = make()
        reads = self.reads.take()
        return _Made(arguments, reads, value if known is None else _kept(known.value, value))


@dataclass(frozen=True, slots=True)
class _Made(Generic[V]):
    arguments: tuple[Any, ...]
    reads: tuple[Token, ...]
    value: V


class Units(Generic[K, A, V]):
    """The units of one kind. ``made`` counts those that the last update made."""

    def __init__(self) -> None:
        self._units: dict[K, _Made[V]] = {}
        self._values: dict[K, V] = {}
        self._wanted: Mapping[K, A] = {}
        self._asked: set[Token] = set()
        self._noted = 0
        self.made = 0

    def __repr__(self) -> str:
        return f"Units({len(self._units)}, made={self.made})"

    def update(
        self, change: Change, wanted: Mapping[K, A], make: Callable[[A], V]
    ) -> Mapping[K, V]:
        """The results of ``wanted``: the arguments of each unit by its key, in their order.

        ``make`` makes one. The same ``wanted`` (the same object) costs nothing if no unit asked for
        anything that changed.
        """
        self.made = 0
        if wanted is self._wanted:
            if not self._asked.isdisjoint(change.dirty):
                self._renew(change, wanted, make)
                self._gather()
            return self._values
        before, self._units = self._units, {}
        same = list(wanted) == list(before)
        for key, arguments in wanted.items():
            unit = before.get(key)
            if unit is None or not _holds(unit, arguments, change.dirty):
                known, unit = unit, change.made(unit, arguments, partial(make, arguments))
                same = same and known is not None and known.value is unit.value
                self._note(unit)
            self._units[key] = unit
        self._wanted = wanted
        self._gather()
        if not same:
            self._values = {key: unit.value for key, unit in self._units.items()}
        return self._values

    def _renew(self, change: Change, wanted: Mapping[K, A], make: Callable[[A], V]) -> None:
        """Make those units anew that asked for what has changed; nothing else is looked at."""
        clean = change.dirty.isdisjoint
        stale = [key for key, unit in self._units.items() if not clean(unit.reads)]
        values = {}
        for key in stale:
            known, arguments = self._units[key], wanted[key]
            unit = self._units[key] = change.made(known, arguments, partial(make, arguments))
            self._note(unit)
            if unit.value is not known.value:
                values[key] = unit.value
        if values:
            self._values = {**self._values, **values}

    def _note(self, unit: _Made[V]) -> None:
        """Count a unit, and what it asked for among what all ask for."""
        self.made += 1
        self._asked.update(unit.reads)

    def _gather(self) -> None:
        """Forget what is no longer asked for, when as many units were made as there are.

        Until then it costs a look at each unit at most.
        """
        self._noted += self.made
        if self._noted > len(self._units) + _NOTED_MIN:
            self._noted = 0
            self._asked = set().union(*(unit.reads for unit in self._units.values()))


_NOTED_MIN = 1_000
"""Units made before what all ask for is gathered anew, where there are few."""


def _holds(known: _Made[Any], arguments: tuple[Any, ...], dirty: set[Token]) -> bool:
    """Whether a unit would be made as it was."""
    return (known.arguments is arguments or _same(known.arguments, arguments)) and dirty.isdisjoint(
        known.reads
    )


def _same(old: tuple[Any, ...], new: tuple[Any, ...]) -> bool:
    return len(old) == len(new) and all(
        one is other or one == other for one, other in zip(old, new, strict=True)
    )


def _kept(old: Any, new: Any) -> Any:
    """``old`` if it equals ``new``; of tuples, each part."""
    if old is new or old == new:
        return old
    if type(old) is type(new) is tuple and len(old) == len(new):
        return tuple(map(_kept, old, new))
    return new


class Single(Generic[V]):
    """One unit, or a step from results to a result."""

    def __init__(self) -> None:
        self._last: _Made[V] | None = None
        self.made = 0

    def __repr__(self) -> str:
        return f"Single(made={self.made})"

    @property
    def value(self) -> V | None:
        """The last result."""
        return self._last.value if self._last is not None else None

    def update(self, change: Change, arguments: tuple[object, ...], make: Callable[[], V]) -> V:
        """The result of ``make``, which sees ``arguments`` (by identity) and tables alone."""
        known, self.made = self._last, 0
        if (
            known is not None
            and all(map(operator.is_, known.arguments, arguments))
            and change.dirty.isdisjoint(known.reads)
        ):
            return known.value
        self.made = 1
        self._last = change.made(known, arguments, make)
        return self._last.value
