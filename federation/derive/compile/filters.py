"""Filters of rules and backends: header changes, mirrors, and what is not served.

Decides: how filters become header changes, and which of them cannot be followed.
Leaves to others: what happens to a rule whose filter cannot be followed (``rules``), where mirrors
lead (``traffic``).
Invariants: no filter is skipped silently; a header change that a gateway would refuse never reaches
one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from federation.model.objects import FilterType, GRPCRouteFilter, HeaderModifier, RequestMirror
from federation.model.snapshot import NO_CHANGES, HeaderChanges

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_VALUE = re.compile(r"[\x20-\x7e\x80-\uffff\t]*")
_RESERVED = frozenset({"host", "te", "content-type", "grpc-status", "grpc-message"})
"""Headers that carry gRPC itself; changing them breaks calls instead of shaping them."""


@dataclass(frozen=True, slots=True)
class MirrorFilter:
    """A mirror that is asked for at the field path ``where``."""

    where: str
    spec: RequestMirror


@dataclass(frozen=True, slots=True)
class FilterOutcome:
    """What a list of filters asks for, and the faults of those that cannot be followed."""

    request: HeaderChanges = NO_CHANGES
    response: HeaderChanges = NO_CHANGES
    mirrors: tuple[MirrorFilter, ...] = ()
    faults: tuple[str, ...] = ()


def compile_filters(filters: Iterable[GRPCRouteFilter], *, where: str) -> FilterOutcome:
    """What ``filters`` ask for; ``where`` is their field path."""
    changes: dict[FilterType, HeaderChanges] = {}
    mirrors: list[MirrorFilter] = []
    faults: list[str] = []
    for position, entry in enumerate(filters):
        modifier = entry.request_header_modifier or entry.response_header_modifier
        if entry.request_mirror is not None:
            mirrors.append(MirrorFilter(f"{where}[{position}]", entry.request_mirror))
        elif modifier is None:
            faults.append(f"{where}[{position}].type: {entry.type} is not supported yet")
        elif entry.type in changes:
            faults.append(f"{where}[{position}].type: {entry.type} stands twice")
        elif fault := _fault(modifier):
            faults.append(f"{where}[{position}].{fault}")
        else:
            changes[entry.type] = _changes(modifier)
    return FilterOutcome(
        request=changes.get(FilterType.REQUEST_HEADER_MODIFIER, NO_CHANGES),
        response=changes.get(FilterType.RESPONSE_HEADER_MODIFIER, NO_CHANGES),
        mirrors=tuple(mirrors),
        faults=tuple(faults),
    )


def _fault(modifier: HeaderModifier) -> str:
    for action, headers in (("set", modifier.set), ("add", modifier.add)):
        for header in headers:
            if fault := _name_fault(header.name):
                return f"{action}: {fault}"
            if not _VALUE.fullmatch(header.value):
                return f"{action}: the value of {header.name!r} has control characters"
    for name in modifier.remove:
        if fault := _name_fault(name):
            return f"remove: {fault}"
    return ""


def _name_fault(name: str) -> str:
    if not _NAME.fullmatch(name):
        return f"{name!r} is not a name of a header"
    if name.lower() in _RESERVED:
        return f"{name!r} belongs to gRPC and cannot be changed"
    return ""


def _changes(modifier: HeaderModifier) -> HeaderChanges:
    # Of several entries of one name the first counts (Gateway API); order is otherwise kept.
    added = {header.name.lower(): header.value for header in reversed(modifier.add)}
    overwritten = {header.name.lower(): header.value for header in reversed(modifier.set)}
    return HeaderChanges(
        set=tuple(sorted(overwritten.items())),
        add=tuple(sorted(added.items())),
        remove=tuple(sorted({name.lower() for name in modifier.remove})),
    )
