"""Attachment of routes to listeners: which parents take a route, and for which hostnames.

Decides: ``Accepted`` of a route at each parent, as far as the parent decides it.
Leaves to others: the route's own faults and references (``rules``), precedence (``tables``).
Invariants: a parent of another controller gets no entry; a route attaches to a listener even while
the listener cannot be opened, so that repairing the listener needs no change of the route.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.derive.compile.hostnames import intersect
from federation.derive.compile.index import Index
from federation.derive.compile.listeners import Listeners, ListenerState
from federation.derive.compile.namespaces import namespace_labels
from federation.derive.compile.problem import Problem
from federation.model.objects import (
    AnyRoute,
    FromNamespaces,
    Gateway,
    ListenerSet,
    ObjectKey,
    ParentReference,
)

_PARENTS = (Gateway.KIND, ListenerSet.KIND)
_PARENTS_TOLD = "Gateways and ListenerSets"


@dataclass(frozen=True, slots=True)
class Attached:
    """A listener that took the route, with the hostnames they share."""

    listener: ListenerState
    hostnames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParentOutcome:
    """What one parentRef came to: listeners, or the reason why there is none."""

    ref: ParentReference
    attached: tuple[Attached, ...]
    problem: Problem | None


def attach(index: Index, listeners: Listeners, route: AnyRoute) -> tuple[ParentOutcome, ...]:
    """The outcome for every parentRef that this controller answers for, in the route's order."""
    outcomes = (_outcome(index, listeners, route, ref) for ref in route.spec.parent_refs)
    return tuple(outcome for outcome in outcomes if outcome is not None)


def _outcome(
    index: Index, listeners: Listeners, route: AnyRoute, ref: ParentReference
) -> ParentOutcome | None:
    if ref.group != Gateway.GROUP or ref.kind not in _PARENTS:
        message = f"{ref.kind} {ref.name} cannot be a parent here; parents are {_PARENTS_TOLD}"
        return ParentOutcome(ref, (), Problem("NoMatchingParent", message))
    namespace = ref.namespace or route.metadata.namespace
    key = ObjectKey(Gateway.GROUP, ref.kind, namespace, ref.name)
    if key not in listeners:
        return _without_listeners(index, listeners, ref, key)
    result = _attach_to(index, listeners[key], route, ref)
    if isinstance(result, Problem):
        return ParentOutcome(ref, (), result)
    return ParentOutcome(ref, result, None)


def _without_listeners(
    index: Index, listeners: Listeners, ref: ParentReference, key: ObjectKey
) -> ParentOutcome | None:
    """The outcome of a parent that has no listeners of ours: ``None`` if it is another's."""
    if key.kind == ListenerSet.KIND:
        source = index.objects.get(ListenerSet, key.namespace, key.name)
        if source is not None and source.gateway in listeners:
            message = f"{key} is not accepted by its {source.gateway}"
            return ParentOutcome(ref, (), Problem("NoMatchingParent", message))
    if key in index.objects.objects:
        return None
    return ParentOutcome(ref, (), Problem("NoMatchingParent", f"{key} does not exist"))


def _attach_to(
    index: Index, states: tuple[ListenerState, ...], route: AnyRoute, ref: ParentReference
) -> tuple[Attached, ...] | Problem:
    gateway = states[0].owner.key
    named = [state for state in states if _is_named(state, ref)]
    if not named:
        names = ", ".join(f"{state.spec.name} (port {state.spec.port})" for state in states)
        return Problem(
            "NoMatchingParent", f"{gateway} has no listener {_asked(ref)}; listeners: {names}"
        )
    allowed = [state for state in named if not _refusal(index, state, route)]
    if not allowed:
        refusals = "; ".join(
            f"listener {state.spec.name} {_refusal(index, state, route)}" for state in named
        )
        return Problem("NotAllowedByListeners", f"{gateway}: {refusals}")
    attached = tuple(
        Attached(state, hostnames)
        for state in allowed
        if (hostnames := intersect(state.spec.hostname, route.spec.hostnames))
    )
    if not attached:
        theirs = ", ".join(state.spec.hostname or "*" for state in allowed)
        message = (
            f"{gateway}: hostnames {', '.join(route.spec.hostnames)} have nothing in common with "
            f"the listeners' {theirs}"
        )
        return Problem("NoMatchingListenerHostname", message)
    return attached


def _is_named(state: ListenerState, ref: ParentReference) -> bool:
    return ref.section_name in (None, state.spec.name) and ref.port in (None, state.spec.port)


def _asked(ref: ParentReference) -> str:
    parts = []
    if ref.section_name is not None:
        parts.append(ref.section_name)
    if ref.port is not None:
        parts.append(f"on port {ref.port}")
    return " ".join(parts)


def _refusal(index: Index, state: ListenerState, route: AnyRoute) -> str:
    """Why the listener does not let the route attach; empty if it does."""
    if route.KIND not in state.route_kinds:
        kinds = ", ".join(state.route_kinds)
        taken = f"takes only {kinds}" if kinds else "takes no kind that is served"
        return f"{taken}; its allowedRoutes.kinds would have to list {route.KIND}"
    if not _namespace_allowed(index, state, route.metadata.namespace):
        source = state.spec.allowed_routes.namespaces.from_
        return f"takes no routes of namespace {route.metadata.namespace} (from: {source})"
    return ""


def _namespace_allowed(index: Index, state: ListenerState, namespace: str) -> bool:
    allowed = state.spec.allowed_routes.namespaces
    match allowed.from_:
        case FromNamespaces.ALL:
            return True
        case FromNamespaces.SAME:
            return namespace == state.owner.metadata.namespace
        case FromNamespaces.NONE:
            return False
        case FromNamespaces.SELECTOR:
            labels = namespace_labels(index, namespace)
            return allowed.selector is not None and allowed.selector.matches(labels)
