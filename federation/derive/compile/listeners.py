"""Listeners of Gateways: which can be served, with which certificates, and who holds a port.

Decides: protocols, kinds of routes, certificates, conflicts inside a Gateway, with the ListenerSets
that add to it, and between Gateways.
Leaves to others: routes that attach (``attachment``), statuses (``gateways``).
Invariants: indistinct listeners of one object are all refused, never one of them chosen; between
objects the Gateway comes before its ListenerSets, and an older one before a younger; a port belongs
to one Gateway, the oldest that asks for it, where all Gateways of a cluster are served by the same
gateways at the same address; one listener's fault changes no other listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from federation.derive.compile.certificates import resolve_certificate
from federation.derive.compile.client_validation import ClientValidation, validation_of
from federation.derive.compile.index import Index
from federation.derive.compile.keepalive import GatewayKeepalive
from federation.derive.compile.problem import Problem
from federation.model.objects import (
    Gateway,
    GRPCRoute,
    HTTPRoute,
    Listener,
    ListenerProtocol,
    ListenerSet,
    ObjectKey,
    TlsMode,
)
from federation.model.snapshot import ConnectionLife, TlsSecret

_ENCRYPTED = (ListenerProtocol.HTTPS, ListenerProtocol.TLS)

ROUTE_KINDS = (GRPCRoute.KIND, HTTPRoute.KIND)
"""Kinds of routes that are served."""


@dataclass(frozen=True, slots=True)
class ListenerState:
    """What became of one listener.

    ``added_by`` is the ListenerSet that it stands in, ``None``: the Gateway itself. ``refused`` is
    why it is not accepted, ``conflict`` why it is indistinct, ``unresolved`` which of its
    references fail; ``route_kinds`` are the kinds of routes that it takes; ``notes`` name what is
    without effect.
    """

    gateway: Gateway
    spec: Listener
    position: int
    added_by: ListenerSet | None = None
    refused: Problem | None = None
    conflict: Problem | None = None
    unresolved: Problem | None = None
    route_kinds: tuple[str, ...] = ROUTE_KINDS
    certificates: tuple[TlsSecret, ...] = ()
    client: ClientValidation | None = None
    life: ConnectionLife | None = None
    notes: tuple[str, ...] = ()

    @property
    def owner(self) -> Gateway | ListenerSet:
        """The object that it stands in: routes name it, and references start from it."""
        return self.added_by or self.gateway

    @property
    def section(self) -> str:
        """Its name among all listeners of the Gateway."""
        if self.added_by is None:
            return self.spec.name
        return f"{self.added_by.key.qualified_name}/{self.spec.name}"

    @property
    def encrypted(self) -> bool:
        """Whether clients speak TLS to it."""
        return self.spec.protocol in _ENCRYPTED

    @property
    def passthrough(self) -> bool:
        """Whether TLS is not to be terminated here."""
        return (
            self.encrypted
            and self.spec.tls is not None
            and self.spec.tls.mode is TlsMode.PASSTHROUGH
        )

    @property
    def terminates(self) -> bool:
        """Whether TLS ends here."""
        return self.encrypted and not self.passthrough

    @property
    def usable(self) -> bool:
        """Whether gateways open it."""
        sound = self.refused is None and self.conflict is None
        return sound and (not self.encrypted or self.passthrough or bool(self.certificates))

    @property
    def where(self) -> str:
        """The listener's field path."""
        return f"spec.listeners[{self.position}]"


Listeners = Mapping[ObjectKey, tuple[ListenerState, ...]]
"""By the object that they stand in: a Gateway, or a ListenerSet that its Gateway allows."""


def judge_listeners(
    index: Index,
    gateways: Iterable[Gateway],
    keepalives: Mapping[ObjectKey, GatewayKeepalive],
    sets: Mapping[ObjectKey, Sequence[ListenerSet]],
) -> Listeners:
    """The state of every listener of ``gateways``, which stand oldest first.

    ``sets`` are the ListenerSets that each Gateway allows, in order of precedence.
    """
    holders: dict[int, ObjectKey] = {}
    found: dict[ObjectKey, tuple[ListenerState, ...]] = {}
    for gateway in gateways:
        added = sets.get(gateway.key, ())
        keepalive = keepalives[gateway.key]
        entries: list[tuple[Listener, int, ListenerSet | None]] = [
            *((spec, position, None) for position, spec in enumerate(gateway.spec.listeners)),
            *(
                (spec, position, source)
                for source in added
                for position, spec in enumerate(source.spec.listeners)
            ),
        ]
        judged = _with_one_validation(
            [
                replace(_judge(index, gateway, *entry), life=keepalive.life(entry[0].port))
                for entry in entries
            ]
        )
        judged = [_with_port(index, state, holders) for state in _with_conflicts(judged)]
        for owner in (gateway, *added):
            found[owner.key] = tuple(state for state in judged if state.owner.key == owner.key)
    return found


def wanted_ports(listeners: Listeners) -> Mapping[ObjectKey, tuple[int, ...]]:
    """The ports of each Gateway's accepted listeners; also of those that lack a certificate."""
    found: dict[ObjectKey, set[int]] = {}
    for states in listeners.values():
        for state in states:
            ports = found.setdefault(state.gateway.key, set())
            if state.refused is None:
                ports.add(state.spec.port)
    return {key: tuple(sorted(ports)) for key, ports in found.items()}


def _judge(
    index: Index, gateway: Gateway, spec: Listener, position: int, added_by: ListenerSet | None
) -> ListenerState:
    state = ListenerState(gateway=gateway, spec=spec, position=position, added_by=added_by)
    state = _with_kinds(replace(state, refused=_unsupported(state), notes=_notes(state)))
    if state.encrypted and not state.passthrough:
        state = _with_validation(index, _with_certificates(index, state))
    return state


def _with_validation(index: Index, state: ListenerState) -> ListenerState:
    spec = state.spec
    if state.added_by is not None and spec.tls is not None:
        # Whom clients are checked against is the Gateway's alone to say.
        spec = spec.model_copy(
            update={"tls": spec.tls.model_copy(update={"frontend_validation": None})}
        )
    outcome = validation_of(index, state.gateway, spec, where=state.where)
    return replace(
        state,
        client=outcome.validation,
        refused=state.refused or outcome.refused,
        unresolved=state.unresolved or outcome.unresolved,
    )


def _with_one_validation(states: list[ListenerState]) -> list[ListenerState]:
    """Refuse the listeners of a port that do not agree how clients are validated."""
    return [
        replace(state, refused=problem)
        if state.refused is None and (problem := _other_validation(state, states)) is not None
        else state
        for state in states
    ]


def _other_validation(state: ListenerState, states: list[ListenerState]) -> Problem | None:
    others = _names(
        other
        for other in states
        if other.spec.port == state.spec.port
        and other.terminates
        and other.refused is None
        and _demand(other) != _demand(state)
    )
    if not (state.terminates and others):
        return None
    return Problem(
        "UnsupportedValue",
        f"{state.where}: listener {others} of port {state.spec.port} validates clients otherwise, "
        "and a client may use one connection for both; use spec.tls.frontend, or another port",
    )


def _demand(state: ListenerState) -> tuple[bytes, bool] | None:
    client = state.client
    return None if client is None else (client.authorities.ca_pem, client.optional)


def _unsupported(state: ListenerState) -> Problem | None:
    protocol = state.spec.protocol
    if protocol == ListenerProtocol.TLS and not state.passthrough:
        return Problem(
            "UnsupportedProtocol",
            f"{state.where}: protocol TLS is served with tls.mode Passthrough only, use HTTPS",
        )
    if protocol != ListenerProtocol.HTTP and not state.encrypted:
        return Problem(
            "UnsupportedProtocol",
            f"{state.where}.protocol: {protocol} is not served, use HTTPS or HTTP",
        )
    return None


def _notes(state: ListenerState) -> tuple[str, ...]:
    if state.spec.protocol == ListenerProtocol.HTTP and state.spec.tls is not None:
        return (f"{state.where}.tls is without effect: protocol HTTP is served as h2c",)
    return ()


def _with_kinds(state: ListenerState) -> ListenerState:
    if state.refused is not None:  # kinds go by protocol: one that is not served takes none
        return replace(state, route_kinds=())
    kinds = state.spec.allowed_routes.kinds
    # Through TLS that passes, gRPC is a promise of the route and HTTP a matter of matches.
    served = (GRPCRoute.KIND,) if state.passthrough else ROUTE_KINDS
    foreign = [kind for kind in kinds if kind.group != GRPCRoute.GROUP or kind.kind not in served]
    asked = {kind.kind for kind in kinds if kind not in foreign} if kinds else set(served)
    state = replace(state, route_kinds=tuple(kind for kind in served if kind in asked))
    if not foreign:
        return state
    names = ", ".join(f"{kind.kind} ({kind.group or 'core'})" for kind in foreign)
    return replace(
        state,
        unresolved=Problem(
            "InvalidRouteKinds",
            f"{state.where}.allowedRoutes.kinds: {names} is not served; kinds served: "
            f"{', '.join(served)}",
        ),
    )


def _with_certificates(index: Index, state: ListenerState) -> ListenerState:
    refs = state.spec.tls.certificate_refs if state.spec.tls else ()
    if not refs:
        problem = Problem(
            "InvalidCertificateRef",
            f"certificate not found: {state.where}.tls.certificateRefs names none",
        )
        return replace(state, unresolved=problem)
    outcomes = [
        resolve_certificate(
            index, state.owner, ref, where=f"{state.where}.tls.certificateRefs[{position}]"
        )
        for position, ref in enumerate(refs)
    ]
    problems = [outcome.problem for outcome in outcomes if outcome.problem is not None]
    secrets = {it.secret.name: it.secret for it in outcomes if it.secret is not None}
    return replace(
        state,
        certificates=tuple(secrets.values()),
        unresolved=problems[0] if problems else state.unresolved,
    )


def _with_conflicts(states: list[ListenerState]) -> list[ListenerState]:
    """``states`` with their conflicts: inside an object, and with objects that come before it."""
    found: list[ListenerState] = []
    for _, group in groupby(states, key=lambda state: state.owner.key):
        held = [state for state in found if state.refused is None and state.conflict is None]
        own = list(group)
        for state in own:
            peers = [it for it in own if it is not state and it.refused is None]
            conflict = _conflict(state, peers) if state.refused is None else None
            found.append(replace(state, conflict=_conflict(state, held) or conflict))
    return found


def _conflict(state: ListenerState, others: Iterable[ListenerState]) -> Problem | None:
    others = [other for other in others if other.spec.port == state.spec.port]
    protocols = _names(peer for peer in others if peer.spec.protocol != state.spec.protocol)
    if protocols:
        return Problem(
            "ProtocolConflict",
            f"port {state.spec.port} has another protocol in listener {protocols}",
        )
    twins = _names(peer for peer in others if peer.spec.hostname == state.spec.hostname)
    if twins:
        return Problem(
            "HostnameConflict",
            f"port {state.spec.port} and hostname {state.spec.hostname or '*'} are also those of "
            f"listener {twins}",
        )
    return None


def _names(states: Iterable[ListenerState]) -> str:
    return ", ".join(state.section for state in states)


def _with_port(index: Index, state: ListenerState, holders: dict[int, ObjectKey]) -> ListenerState:
    if state.refused is not None or state.conflict is not None:
        return state
    if index.settings.dedicated_gateways:
        return state
    port = state.spec.port
    if port == index.settings.eastwest_port:
        taken = "calls from other clusters"
    elif holders.setdefault(port, state.gateway.key) != state.gateway.key:
        taken = f"{holders[port]}, which is older"
    else:
        return state
    problem = Problem("PortUnavailable", f"{state.where}.port: {port} is held by {taken}")
    return replace(state, refused=problem)
