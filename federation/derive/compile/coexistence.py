"""GRPCRoutes beside HTTPRoutes: at one listener a host belongs to routes of one kind.

Decides: which of two routes of different kinds that share a host at a listener is attached there.
Leaves to others: everything else about attachment (``attachment``).
Invariants: the older route keeps the listener, then the first by namespace and name (Gateway API);
the order in which routes come does not matter; other listeners of the same parent are not touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from federation.derive.compile.attachment import Attached, ParentOutcome
from federation.derive.compile.hostnames import covering
from federation.derive.compile.problem import Problem
from federation.derive.compile.routes import CompiledRoute
from federation.model.objects import ObjectKey


@dataclass(slots=True)
class _Claims:
    """Hostnames that routes of one kind have at one listener, each with who has it."""

    holders: dict[str, str] = field(default_factory=dict)
    wider: dict[str, str] = field(default_factory=dict)

    def add(self, hostname: str, holder: str) -> None:
        self.holders.setdefault(hostname, holder)
        for pattern in covering(hostname):
            self.wider.setdefault(pattern, holder)

    def holder(self, hostname: str) -> str | None:
        """Who has a host that ``hostname`` means too."""
        if hostname in self.wider:
            return self.wider[hostname]
        patterns = (pattern for pattern in covering(hostname) if pattern in self.holders)
        return next((self.holders[pattern] for pattern in patterns), None)


_ClaimsByListener = defaultdict[tuple[str, str], defaultdict[str, _Claims]]


def one_kind_each(routes: Iterable[CompiledRoute]) -> list[CompiledRoute]:
    """``routes``, oldest first, without the listeners that a route of the other kind has."""
    claims: _ClaimsByListener = defaultdict(lambda: defaultdict(_Claims))
    by_age = sorted(routes, key=lambda route: (route.source.age, route.source.KIND))
    return [_admitted(route, claims) for route in by_age]


def _admitted(route: CompiledRoute, claims: _ClaimsByListener) -> CompiledRoute:
    outcomes = tuple(_outcome(route, outcome, claims) for outcome in route.outcomes)
    for outcome in outcomes:
        for entry in outcome.attached:
            mine = claims[_identity(entry)][route.source.KIND]
            for hostname in entry.hostnames:
                mine.add(hostname, str(route.source.key))
    return _admitted_as(route, outcomes)


class Admissions:
    """``one_kind_each`` of successive routes.

    While routes claim what they claimed before, what they were given stays: a route whose rules
    change claims nothing new.
    """

    def __init__(self) -> None:
        self._asked: Mapping[ObjectKey, CompiledRoute] = {}
        self._given: dict[ObjectKey, CompiledRoute] = {}
        self._in_order: tuple[CompiledRoute, ...] = ()

    def __repr__(self) -> str:
        return f"Admissions(routes={len(self._given)})"

    def update(self, routes: Mapping[ObjectKey, CompiledRoute]) -> tuple[CompiledRoute, ...]:
        """``routes``, oldest first, without the listeners that a route of the other kind has.

        The same routes (the same object) give the same object, and so does each route by itself.
        """
        if routes is self._asked:
            return self._in_order
        asked, self._asked = self._asked, routes
        given, self._given = self._given, {}
        if not _claims_same(asked, routes):
            for route in one_kind_each(routes.values()):
                key = route.source.key
                known = given.get(key)
                self._given[key] = known if known is not None and known == route else route
        else:
            for key, known in given.items():
                same = routes[key] is asked[key]
                self._given[key] = known if same else _admitted_as(routes[key], known.outcomes)
        self._in_order = tuple(self._given.values())
        return self._in_order


def _claims_same(
    old: Mapping[ObjectKey, CompiledRoute], new: Mapping[ObjectKey, CompiledRoute]
) -> bool:
    """Whether routes ask for the same as before, in the same order of age."""
    return old.keys() == new.keys() and all(
        was is route or (was.source.age == route.source.age and was.outcomes == route.outcomes)
        for key, route in new.items()
        for was in (old[key],)
    )


def _admitted_as(route: CompiledRoute, outcomes: tuple[ParentOutcome, ...]) -> CompiledRoute:
    return route if route.outcomes == outcomes else replace(route, outcomes=outcomes)


def _outcome(
    route: CompiledRoute, outcome: ParentOutcome, claims: _ClaimsByListener
) -> ParentOutcome:
    refusals = {
        entry.listener.section: refusal
        for entry in outcome.attached
        if (refusal := _refusal(route, entry, claims))
    }
    if not refusals:
        return outcome
    kept = tuple(entry for entry in outcome.attached if entry.listener.section not in refusals)
    if kept:
        return replace(outcome, attached=kept)
    gateway = outcome.attached[0].listener.gateway.key
    said = "; ".join(f"listener {name} {refusal}" for name, refusal in refusals.items())
    return replace(
        outcome, attached=(), problem=Problem("NotAllowedByListeners", f"{gateway}: {said}")
    )


def _refusal(route: CompiledRoute, entry: Attached, claims: _ClaimsByListener) -> str:
    for kind, held in claims[_identity(entry)].items():
        if kind == route.source.KIND:
            continue
        for hostname in entry.hostnames:
            if (holder := held.holder(hostname)) is not None:
                return (
                    f"serves hostname {hostname} for {holder}, which is older; GRPCRoutes and "
                    "HTTPRoutes cannot share a host of a listener"
                )
    return ""


def _identity(entry: Attached) -> tuple[str, str]:
    return entry.listener.gateway.key.qualified_name, entry.listener.section
