"""ListenerSets: which of them a Gateway takes, and their statuses.

Decides: whether a Gateway allows a ListenerSet, the order in which their listeners come, and the
conditions of a set and of each of its listeners.
Leaves to others: the listeners themselves (``listeners``), whether gateways took them
(``derive.programmed``).
Invariants: a Gateway that says nothing takes none; a set whose Gateway is another controller's, or
not there, gets no status; a set that is not allowed changes nothing for the Gateway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from federation.derive.compile.gateways import PENDING, PENDING_MESSAGE, listener_kinds
from federation.derive.compile.index import Index
from federation.derive.compile.listeners import Listeners, ListenerState
from federation.derive.compile.namespaces import namespace_labels
from federation.derive.compile.problem import Problem, condition, verdict
from federation.model.conditions import Condition
from federation.model.objects import FromNamespaces, Gateway, ListenerSet, ObjectKey
from federation.model.status import ListenerStatus, ObjectStatus

NOT_ALLOWED = "NotAllowed"
NOT_VALID = "ListenersNotValid"


def allowed_sets(
    index: Index, gateways: Iterable[Gateway]
) -> Mapping[ObjectKey, Sequence[ListenerSet]]:
    """The ListenerSets that each Gateway takes, oldest first."""
    served = {gateway.key: gateway for gateway in gateways}
    found: dict[ObjectKey, list[ListenerSet]] = {}
    for source in index.objects.of(ListenerSet):
        gateway = served.get(source.gateway)
        if gateway is not None and _allowed(index, gateway, source):
            found.setdefault(gateway.key, []).append(source)
    return found


def _allowed(index: Index, gateway: Gateway, source: ListenerSet) -> bool:
    if gateway.spec.allowed_listeners is None:
        return False
    namespaces = gateway.spec.allowed_listeners.namespaces
    match namespaces.from_:
        case FromNamespaces.NONE:
            return False
        case FromNamespaces.ALL:
            return True
        case FromNamespaces.SAME:
            return source.metadata.namespace == gateway.metadata.namespace
        case FromNamespaces.SELECTOR:
            labels = namespace_labels(index, source.metadata.namespace)
            return namespaces.selector is not None and namespaces.selector.matches(labels)


def set_statuses(
    index: Index,
    gateways: Iterable[Gateway],
    listeners: Listeners,
    attached: Mapping[tuple[ObjectKey, str], int],
) -> Mapping[ObjectKey, ObjectStatus]:
    """The statuses of the ListenerSets of ``gateways``; ``attached`` counts routes."""
    served = {gateway.key: gateway for gateway in gateways}
    return {
        source.key: _status(source, listeners.get(source.key), attached)
        for source in index.objects.of(ListenerSet)
        if source.gateway in served
    }


def attached_sets(listeners: Listeners) -> Counter[ObjectKey]:
    """How many ListenerSets are accepted at each Gateway."""
    return Counter(
        states[0].gateway.key
        for states in listeners.values()
        if states[0].added_by is not None and any(state.usable for state in states)
    )


def _status(
    source: ListenerSet,
    states: tuple[ListenerState, ...] | None,
    attached: Mapping[tuple[ObjectKey, str], int],
) -> ObjectStatus:
    generation = source.metadata.generation
    if states is None:
        problem = Problem(
            NOT_ALLOWED,
            f"{source.gateway} takes no ListenerSets of namespace {source.metadata.namespace}; its "
            "spec.allowedListeners would have to",
        )
        refused = tuple(verdict(source, kind, problem) for kind in ("Accepted", "Programmed"))
        return ObjectStatus(observed_generation=generation, conditions=refused)
    return ObjectStatus(
        observed_generation=generation,
        conditions=_conditions(source, states),
        listeners=tuple(
            _listener(source, state, attached.get((source.key, state.spec.name), 0))
            for state in states
        ),
    )


def _conditions(source: ListenerSet, states: tuple[ListenerState, ...]) -> tuple[Condition, ...]:
    faulty = [state.spec.name for state in states if not state.usable]
    any_usable = len(faulty) < len(states)
    message = f"not all listeners can be opened, see listener {', '.join(faulty)}"
    accepted = (
        condition(source, "Accepted", any_usable, NOT_VALID, message)
        if faulty
        else condition(source, "Accepted", True, "Accepted")
    )
    programmed = (
        condition(source, "Programmed", False, PENDING, PENDING_MESSAGE)
        if any_usable
        else condition(source, "Programmed", False, NOT_VALID, "no listener can be opened")
    )
    return accepted, programmed


def _listener(source: ListenerSet, state: ListenerState, attached: int) -> ListenerStatus:
    conflict = state.conflict
    pending = condition(source, "Programmed", False, PENDING, PENDING_MESSAGE)
    closed = Problem("Invalid", "the listener is not opened")
    return ListenerStatus(
        name=state.spec.name,
        attached_routes=attached,
        supported_kinds=listener_kinds(state),
        conditions=(
            verdict(source, "Accepted", conflict or state.refused, message="; ".join(state.notes)),
            condition(source, "Conflicted", True, conflict.reason, conflict.message)
            if conflict is not None
            else condition(source, "Conflicted", False, "NoConflicts"),
            verdict(source, "ResolvedRefs", state.unresolved),
            pending if state.usable else verdict(source, "Programmed", conflict or closed),
        ),
    )
