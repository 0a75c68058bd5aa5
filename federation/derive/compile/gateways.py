"""Gateways and GatewayClasses: which are ours, and their statuses.

Decides: the classes served, the conditions of a Gateway and of each listener.
Leaves to others: the listeners' own state (``listeners``), whether gateways took the configuration
(``derive.programmed``: until then ``Programmed`` is ``False/Pending``).
Invariants: a Gateway of another controller gets no status; ``attachedRoutes`` counts the routes
that the listener accepted, whether or not it can be opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from federation.derive.compile.features import supported_features
from federation.derive.compile.hostnames import ANY, covers
from federation.derive.compile.index import Index
from federation.derive.compile.listeners import ListenerState
from federation.derive.compile.problem import Problem, condition, verdict
from federation.model.conditions import Condition
from federation.model.objects import Gateway, GatewayClass
from federation.model.objects.gateway import GATEWAY_GROUP
from federation.model.status import ListenerStatus, ObjectStatus, RouteGroupKind

PENDING = "Pending"
"""Reason of ``Programmed`` while gateways have not answered."""

PENDING_MESSAGE = "waiting for gateways to take the configuration"
"""Its message."""


def served_gateways(index: Index) -> tuple[Gateway, ...]:
    """The Gateways of classes that this controller serves, oldest first.

    A class of the settings is served unless there is an object that gives it to another controller.
    """
    controllers = {
        entry.metadata.name: entry.spec.controller_name for entry in index.objects.of(GatewayClass)
    }
    own = index.settings.controller_name
    named = {name for name, controller in controllers.items() if controller == own}
    served = named | (index.settings.gateway_classes - controllers.keys())
    return tuple(
        entry for entry in index.objects.of(Gateway) if entry.spec.gateway_class_name in served
    )


def class_status(index: Index, source: GatewayClass) -> ObjectStatus | None:
    """The status of a GatewayClass, ``None`` if it is another controller's."""
    if source.spec.controller_name != index.settings.controller_name:
        return None
    problem = None
    if source.spec.parameters_ref is not None:
        problem = Problem("InvalidParameters", "spec.parametersRef: parameters are not supported")
    accepted = verdict(source, "Accepted", problem, message=f"served by {index.cluster}")
    return ObjectStatus(
        observed_generation=source.metadata.generation,
        conditions=(accepted,),
        supported_features=supported_features(dedicated=index.settings.dedicated_gateways),
    )


def gateway_status(
    index: Index,
    source: Gateway,
    states: tuple[ListenerState, ...],
    attached: Mapping[str, int],
    parameters: Problem | None,
) -> ObjectStatus:
    """The status of a Gateway; ``attached`` counts routes by listener name.

    ``parameters`` is what is wrong with its parameters.
    """
    return ObjectStatus(
        observed_generation=source.metadata.generation,
        conditions=_gateway_conditions(index, source, states, parameters),
        listeners=tuple(_listener_status(state, states, attached) for state in states),
    )


def _gateway_conditions(
    index: Index,
    source: Gateway,
    states: tuple[ListenerState, ...],
    parameters: Problem | None,
) -> tuple[Condition, ...]:
    faulty = [state.spec.name for state in states if not state.usable]
    any_usable = len(faulty) < len(states)
    unresolved = [state.spec.name for state in states if state.unresolved is not None]
    return (
        _accepted(index, source, faulty, parameters, any_usable=any_usable),
        condition(source, "Programmed", False, PENDING, PENDING_MESSAGE)
        if any_usable
        else condition(source, "Programmed", False, "Invalid", "no listener can be opened"),
        verdict(
            source,
            "ResolvedRefs",
            Problem("ListenersNotResolved", f"see listener {', '.join(unresolved)}")
            if unresolved
            else None,
        ),
        *_insecure(source, states),
    )


def _insecure(source: Gateway, states: tuple[ListenerState, ...]) -> tuple[Condition, ...]:
    """``InsecureFrontendValidationMode``: clients without a valid certificate are let in."""
    names = [state.spec.name for state in states if state.client and state.client.optional]
    if not names:
        return ()
    message = (
        f"clients without a valid certificate are let in at listener {', '.join(names)}: "
        "mode AllowInsecureFallback"
    )
    kind, reason = "InsecureFrontendValidationMode", "ConfigurationChanged"
    return (condition(source, kind, True, reason, message),)


def _accepted(
    index: Index,
    source: Gateway,
    faulty: list[str],
    parameters: Problem | None,
    *,
    any_usable: bool,
) -> Condition:
    types = _address_types(index)
    problem = parameters or (_unsupported_address(source, types) if types else None)
    if problem is not None:
        return condition(source, "Accepted", False, problem.reason, problem.message)
    if faulty:
        message = f"not all listeners can be opened, see listener {', '.join(faulty)}"
        return condition(source, "Accepted", any_usable, "ListenersNotValid", message)
    note = "spec.addresses is without effect: gateways listen where their own settings say"
    told = note if source.spec.addresses and not types else ""
    return condition(source, "Accepted", True, "Accepted", told)


def _unsupported_address(gateway: Gateway, types: Sequence[str]) -> Problem | None:
    """What is wrong with the types of ``spec.addresses``, of which ``types`` are served."""
    for position, entry in enumerate(gateway.spec.addresses):
        if entry.type not in types:
            return Problem(
                "UnsupportedAddress",
                f"spec.addresses[{position}].type: {entry.type} is not supported here, use "
                f"{' or '.join(types)}",
            )
    return None


def _address_types(index: Index) -> tuple[str, ...]:
    """Types of addresses that a Gateway can ask for; empty: its gateways are where they are."""
    if index.settings.dedicated_gateways:
        return ("IPAddress",)
    return ("IPAddress", "Hostname") if index.settings.gateway_service is not None else ()


def listener_kinds(state: ListenerState) -> tuple[RouteGroupKind, ...]:
    """The kinds of routes that a listener takes, as statuses have them."""
    return tuple(RouteGroupKind(group=GATEWAY_GROUP, kind=kind) for kind in state.route_kinds)


def _listener_status(
    state: ListenerState, states: tuple[ListenerState, ...], attached: Mapping[str, int]
) -> ListenerStatus:
    source = state.gateway
    return ListenerStatus(
        name=state.spec.name,
        attached_routes=attached.get(state.spec.name, 0),
        supported_kinds=listener_kinds(state),
        conditions=(
            verdict(source, "Accepted", state.refused, message="; ".join(state.notes)),
            condition(source, "Conflicted", True, state.conflict.reason, state.conflict.message)
            if state.conflict is not None
            else condition(source, "Conflicted", False, "NoConflicts"),
            verdict(source, "ResolvedRefs", state.unresolved),
            condition(source, "Programmed", False, PENDING, PENDING_MESSAGE)
            if state.usable
            else condition(source, "Programmed", False, "Invalid", "the listener is not opened"),
            *_overlap(state, states),
        ),
    )


def _overlap(state: ListenerState, states: tuple[ListenerState, ...]) -> tuple[Condition, ...]:
    """``OverlappingTLSConfig``: clients may reuse a connection for the other listener's hosts."""
    own = state.spec.hostname or ANY
    names = [
        other.spec.name
        for other in states
        if other is not state
        and other.usable
        and other.encrypted
        and other.spec.port == state.spec.port
        and (covers(own, other.spec.hostname or ANY) or covers(other.spec.hostname or ANY, own))
    ]
    if not (names and state.usable and state.encrypted):
        return ()
    message = f"hostname {own} overlaps with that of listener {', '.join(names)}"
    kind, reason = "OverlappingTLSConfig", "OverlappingHostnames"
    return (condition(state.gateway, kind, True, reason, message),)
