"""Route tables: which routes answer for a host, in order of precedence.

Decides: virtual hosts of a listener port and the order of routes in each (docs/semantics.md).
Leaves to others: attachment (``attachment``), single matches (``matches``).
Invariants: a host belongs to the most specific listener of the port and sees that listener's routes
only; every listener's own host has an entry, so that a less specific listener never answers for it;
the order depends on the objects' content and age, never on the order they came in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from federation.derive.compile.hostnames import ANY, covering, covers, specificity
from federation.derive.compile.http_filters import PORTS
from federation.derive.compile.listeners import ListenersByGateway, ListenerState
from federation.derive.compile.routes import CompiledRoute
from federation.model.http import Redirect
from federation.model.snapshot import (
    FilterChain,
    Listener,
    ListenerKind,
    Route,
    RouteTable,
    TlsTermination,
    VirtualHost,
)


@dataclass(frozen=True, slots=True)
class _Claim:
    """A route at one listener with the hostnames it answers for there."""

    route: CompiledRoute
    hostnames: tuple[str, ...]


def build_listeners(
    listeners: ListenersByGateway, routes: Iterable[CompiledRoute]
) -> tuple[tuple[Listener, ...], tuple[RouteTable, ...]]:
    """The open ports of all Gateways and their route tables, sorted by name."""
    routes = tuple(routes)
    claims = _claims(routes)
    passed = _passed_on(routes)
    built = [
        _port(states, claims, passed)
        for _, states in sorted(_by_port(listeners, passed).items(), key=lambda item: item[0])
    ]
    return tuple(listener for listener, _ in built), tuple(table for _, table in built)


_ClaimsByListener = Mapping[tuple[str, str], Sequence[_Claim]]


def _claims(routes: Iterable[CompiledRoute]) -> _ClaimsByListener:
    """Routes by the listener they are attached to; one that several parentRefs name counts once."""
    found: defaultdict[tuple[str, str], dict[str, _Claim]] = defaultdict(dict)
    for route in routes:
        for outcome in route.outcomes:
            for entry in outcome.attached:
                if entry.listener.passthrough:
                    continue
                claims = found[_identity(entry.listener)]
                claims[route.source.key.qualified_name] = _Claim(route, entry.hostnames)
    return {identity: tuple(claims.values()) for identity, claims in found.items()}


def _passed_on(routes: Iterable[CompiledRoute]) -> _ClaimsByListener:
    """Routes by the listener that passes TLS through to them, the oldest first."""
    found: defaultdict[tuple[str, str], dict[str, _Claim]] = defaultdict(dict)
    for route in sorted(routes, key=lambda route: route.source.age):
        for outcome in route.outcomes:
            for entry in outcome.attached:
                if entry.listener.passthrough and route.passed_on.position is not None:
                    claims = found[_identity(entry.listener)]
                    claims[route.source.key.qualified_name] = _Claim(route, entry.hostnames)
    return {identity: tuple(claims.values()) for identity, claims in found.items()}


def _identity(state: ListenerState) -> tuple[str, str]:
    return state.gateway.key.qualified_name, state.spec.name


def _by_port(
    listeners: ListenersByGateway, passed: _ClaimsByListener
) -> dict[str, list[ListenerState]]:
    found: defaultdict[str, list[ListenerState]] = defaultdict(list)
    for key, states in listeners.items():
        for state in states:
            if state.usable and (not state.passthrough or _identity(state) in passed):
                found[f"{key.qualified_name}/{state.spec.port}"].append(state)
    return {
        name: sorted(states, key=lambda state: state.spec.name) for name, states in found.items()
    }


def _port(
    states: Sequence[ListenerState], claims: _ClaimsByListener, passed: _ClaimsByListener
) -> tuple[Listener, RouteTable]:
    first = states[0]
    terminating = [state for state in states if not state.passthrough]
    chains = [_chain(state) for state in terminating] if first.encrypted else [_plain(first)]
    name = f"{first.gateway.key.qualified_name}/{first.spec.port}"
    listener = Listener(
        name=name,
        kind=ListenerKind.INGRESS,
        port=first.spec.port,
        chains=(*chains, *_passed_chains(states, passed)),
        route_table=name,
        gateway=first.gateway.key.qualified_name,
        sections=tuple(state.spec.name for state in states),
        life=first.life,
    )
    return listener, RouteTable(name=name, virtual_hosts=_virtual_hosts(terminating, claims))


def _chain(state: ListenerState) -> FilterChain:
    return FilterChain(
        name=state.spec.name,
        hostnames=(state.spec.hostname,) if state.spec.hostname else (),
        tls=TlsTermination(
            certificates=tuple(secret.name for secret in state.certificates),
            client_ca=state.client.authorities.name if state.client else "",
            client_optional=state.client is not None and state.client.optional,
        ),
    )


def _passed_chains(
    states: Sequence[ListenerState], passed: _ClaimsByListener
) -> Iterator[FilterChain]:
    """A chain for each route to which TLS is passed through; a name belongs to the oldest."""
    taken: set[str] = set()
    for state in states:
        for claim in passed.get(_identity(state), ()):
            names = [name for name in claim.hostnames if name not in taken]
            taken.update(names)
            # A chain has either names or everything.
            exact = tuple(name for name in names if name != ANY)
            for hostnames in (*([exact] if exact else ()), *([()] if ANY in names else ())):
                yield FilterChain(
                    name=f"{claim.route.source.key.qualified_name}/rule-"
                    f"{claim.route.passed_on.position}",
                    hostnames=hostnames,
                    passthrough=claim.route.passed_on.destinations,
                )


def _plain(state: ListenerState) -> FilterChain:
    # Without TLS nothing tells the listeners of a port apart before the request itself does.
    return FilterChain(name=state.spec.name)


def _virtual_hosts(
    states: Sequence[ListenerState], claims: _ClaimsByListener
) -> tuple[VirtualHost, ...]:
    owned: dict[str, ListenerState] = {state.spec.hostname or ANY: state for state in states}
    hosts: dict[str, ListenerState] = dict(owned)
    for state in states:
        for claim in claims.get(_identity(state), ()):
            for hostname in claim.hostnames:
                if _owner(hostname, owned) is state:
                    hosts[hostname] = state
    by_pattern = {
        identity: _by_pattern(claims.get(identity, ()))
        for identity in {_identity(state) for state in states}
    }
    return tuple(
        _virtual_host(
            hostname,
            hosts[hostname],
            _covering_claims(hostname, by_pattern[_identity(hosts[hostname])]),
        )
        for hostname in sorted(hosts)
    )


def _by_pattern(claims: Sequence[_Claim]) -> Mapping[str, Sequence[tuple[int, _Claim]]]:
    """Claims by each of their hostnames, with their positions."""
    found: dict[str, list[tuple[int, _Claim]]] = {}
    for position, claim in enumerate(claims):
        for pattern in claim.hostnames:
            found.setdefault(pattern, []).append((position, claim))
    return found


def _covering_claims(
    hostname: str, by_pattern: Mapping[str, Sequence[tuple[int, _Claim]]]
) -> list[_Claim]:
    """The claims that cover ``hostname``, in their order; not every claim is looked at."""
    found = {
        position: claim
        for pattern in covering(hostname)
        for position, claim in by_pattern.get(pattern, ())
    }
    return [found[position] for position in sorted(found)]


def _owner(hostname: str, owned: Mapping[str, ListenerState]) -> ListenerState | None:
    found = [pattern for pattern in covering(hostname) if pattern in owned]
    return owned[max(found, key=specificity)] if found else None


def _virtual_host(hostname: str, listener: ListenerState, claims: Sequence[_Claim]) -> VirtualHost:
    ordered = sorted(
        (
            (
                _negative(_best(claim.hostnames, hostname)),
                match.specificity,
                claim.route.source.age,
                rule.position,
                match.position,
                route,
            )
            for claim in claims
            for rule in claim.route.rules
            for match, route in rule.routes
        ),
        key=lambda entry: entry[:5],
    )
    return VirtualHost(
        hostname=hostname, routes=tuple(_at(listener, entry[5]) for entry in ordered)
    )


def _at(listener: ListenerState, route: Route) -> Route:
    """The route as it is at ``listener``: a redirect that names no port stays at the
    listener's."""
    action = route.action
    if not isinstance(action, Redirect):
        return route
    scheme = action.scheme or ("https" if listener.encrypted else "http")
    if action.follows_listener:
        port = None if listener.spec.port == PORTS[scheme] else listener.spec.port
        return replace(route, action=replace(action, port=port, follows_listener=False))
    if action.port == PORTS[scheme]:
        # Said by the scheme: no `Location` names it.
        return replace(route, action=replace(action, port=None, scheme=scheme))
    return route


def _best(patterns: Sequence[str], hostname: str) -> tuple[int, int]:
    return max(specificity(pattern) for pattern in patterns if covers(pattern, hostname))


def _negative(pair: tuple[int, int]) -> tuple[int, int]:
    return (-pair[0], -pair[1])
