"""Filters of rules and backends: header changes, mirrors, and what is not served; those that only
HTTPRoutes have are in ``http_filters``.

Decides: how filters become header changes, and which of them cannot be followed.
Leaves to others: what happens to a rule whose filter cannot be followed (``rules``), where mirrors
lead (``traffic``).
Invariants: no filter is skipped silently; a header change that a gateway would refuse never reaches
one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from federation.derive.compile.http_filters import http_filter
from federation.derive.compile.matches import CONNECTION_HEADERS
from federation.model.http import Cors, Redirect, Rewrite
from federation.model.objects import (
    AnyFilter,
    FilterType,
    HeaderModifier,
    HTTPRouteFilter,
    RequestMirror,
)
from federation.model.snapshot import NO_CHANGES, HeaderChanges

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_VALUE = re.compile(r"[\x20-\x7e\x80-\uffff\t]*")
_RESERVED = frozenset({"host", "te", "content-type", "grpc-status", "grpc-message"})
"""Headers that carry gRPC itself; changing them breaks calls instead of shaping them."""
_FRAMING = CONNECTION_HEADERS | {"host", "content-length"}
"""Headers that say whom a message is for and where it ends (a URLRewrite changes the host)."""


@dataclass(frozen=True, slots=True)
class MirrorFilter:
    """A mirror that is asked for at the field path ``where``."""

    where: str
    spec: RequestMirror


@dataclass(frozen=True, slots=True)
class FilterOutcome:
    """What a list of filters asks for, and the faults of those that cannot be followed.

    ``redirect``, ``rewrite`` and ``cors`` are of HTTPRoutes.
    """

    request: HeaderChanges = NO_CHANGES
    response: HeaderChanges = NO_CHANGES
    mirrors: tuple[MirrorFilter, ...] = ()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    cors: Cors | None = None
    faults: tuple[str, ...] = ()


def compile_filters(filters: Iterable[AnyFilter], *, where: str) -> FilterOutcome:
    """What ``filters`` ask for; ``where`` is their field path."""
    outcome = FilterOutcome()
    seen: set[str] = set()
    faults: list[str] = []
    for position, entry in enumerate(filters):
        place = f"{where}[{position}]"
        if entry.type in seen and entry.type != FilterType.REQUEST_MIRROR:
            faults.append(f"{place}.type: {entry.type} stands twice")
            continue
        seen.add(entry.type)
        result = _with_filter(outcome, entry, place)
        if isinstance(result, str):
            faults.append(result)
        else:
            outcome = result
    return replace(outcome, faults=tuple(faults))


def _with_filter(outcome: FilterOutcome, entry: AnyFilter, place: str) -> FilterOutcome | str:
    """``outcome`` with what ``entry`` asks for, or why that cannot be followed."""
    http = isinstance(entry, HTTPRouteFilter)
    modifier = entry.request_header_modifier or entry.response_header_modifier
    if modifier is not None and (fault := _fault(modifier, grpc=not http)):
        return f"{place}.{fault}"
    match entry.type:
        case FilterType.REQUEST_HEADER_MODIFIER if modifier is not None:
            return replace(outcome, request=_changes(modifier))
        case FilterType.RESPONSE_HEADER_MODIFIER if modifier is not None:
            return replace(outcome, response=_changes(modifier))
        case FilterType.REQUEST_MIRROR if entry.request_mirror is not None:
            mirror = MirrorFilter(place, entry.request_mirror)
            return replace(outcome, mirrors=(*outcome.mirrors, mirror))
        case FilterType.EXTENSION_REF:
            return f"{place}.type: ExtensionRef is not supported: no kind of extension is known"
        case _:
            pass
    found = http_filter(entry) if isinstance(entry, HTTPRouteFilter) else None
    match found:
        case Redirect():
            return replace(outcome, redirect=found)
        case Rewrite():
            return replace(outcome, rewrite=found)
        case Cors():
            return replace(outcome, cors=found)
        case str():
            return f"{place}.{found}"
        case None:
            return f"{place}.type: {entry.type} is not supported"


def _fault(modifier: HeaderModifier, *, grpc: bool) -> str:
    for action, headers in (("set", modifier.set), ("add", modifier.add)):
        for header in headers:
            if fault := _name_fault(header.name, grpc=grpc):
                return f"{action}: {fault}"
            if not _VALUE.fullmatch(header.value):
                return f"{action}: the value of {header.name!r} has control characters"
    for name in modifier.remove:
        if fault := _name_fault(name, grpc=grpc):
            return f"remove: {fault}"
    return ""


def _name_fault(name: str, *, grpc: bool) -> str:
    if not _NAME.fullmatch(name):
        return f"{name!r} is not a name of a header"
    if grpc and name.lower() in _RESERVED:
        return f"{name!r} belongs to gRPC and cannot be changed"
    if name.lower() in _FRAMING:
        return f"{name!r} belongs to the connection and cannot be changed"
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
