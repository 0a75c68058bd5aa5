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
from federation.derive.compile.listeners import Listeners, ListenerState
from federation.derive.compile.observability import Told
from federation.derive.compile.routes import CompiledRoute
from federation.model.http import Redirect
from federation.model.objects import ObjectKey
from federation.model.snapshot import (
    FilterChain,
    Listener,
    ListenerKind,
    Route,
    RouteTable,
    TlsTermination,
    VirtualHost,
)
from federation.model.telemetry import RouteTracing

Traced = Mapping[ObjectKey, RouteTracing]
"""Routes with sampling and tags of their own at a listener."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """A route at one listener with the hostnames it answers for there."""

    route: CompiledRoute
    hostnames: tuple[str, ...]


class Hosts:
    """The virtual hosts made last; those whose routes have not changed are not made again."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[object, VirtualHost]] = {}
        self._next: dict[tuple[str, str], tuple[object, VirtualHost]] = {}
        self.made = 0

    def __repr__(self) -> str:
        return f"Hosts({len(self._last)}, made={self.made})"

    def begin(self) -> None:
        """A compilation begins; hosts of the last one that it does not ask for are forgotten."""
        self._last, self._next, self.made = self._next, {}, 0

    def host(
        self,
        port: str,
        hostname: str,
        listener: ListenerState,
        claims: Sequence[_Claim],
        traced: Traced,
    ) -> VirtualHost:
        """The host ``hostname`` of ``port``, where ``listener`` answers with ``claims``."""
        own = {
            claim.route.source.key: tracing
            for claim in (claims if traced else ())
            if (tracing := traced.get(claim.route.source.key)) is not None
        }
        key, made_of = (port, hostname), (listener, own, *claims)
        known = self._last.get(key)
        if known is None or known[0] != made_of:
            self.made += 1
            known = made_of, _virtual_host(hostname, listener, claims, own)
        self._next[key] = known
        return known[1]


def build_listeners(
    listeners: Listeners, routes: Iterable[CompiledRoute], hosts: Hosts, told: Told
) -> tuple[tuple[Listener, ...], tuple[RouteTable, ...]]:
    """The open ports of all Gateways and their route tables, sorted by name."""
    hosts.begin()
    routes = tuple(routes)
    claims = _claims(routes)
    passed = _passed_on(routes)
    built = [
        _port(states, claims, passed, hosts, told)
        for _, states in sorted(_by_port(listeners, passed).items(), key=lambda item: item[0])
    ]
    return tuple(listener for listener, _ in built), tuple(table for _, table in built)


_ClaimsByListener = Mapping[tuple[str, str], Sequence[_Claim]]


def _claims(routes: Iterable[CompiledRoute]) -> _ClaimsByListener:
    """Routes by the listener they are attached to; one that several parentRefs name counts once."""
    found: defaultdict[tuple[str, str], dict[ObjectKey, _Claim]] = defaultdict(dict)
    for route in routes:
        key = route.source.key
        for outcome in route.outcomes:
            for entry in outcome.attached:
                if entry.listener.passthrough:
                    continue
                found[_identity(entry.listener)][key] = _Claim(route, entry.hostnames)
    return {identity: tuple(claims.values()) for identity, claims in found.items()}


def _passed_on(routes: Iterable[CompiledRoute]) -> _ClaimsByListener:
    """Routes by the listener that passes TLS through to them, the oldest first."""
    found: defaultdict[tuple[str, str], dict[str, _Claim]] = defaultdict(dict)
    passing = [route for route in routes if route.passed_on.position is not None]
    for route in sorted(passing, key=lambda route: route.source.age):
        for outcome in route.outcomes:
            for entry in outcome.attached:
                if entry.listener.passthrough:
                    claims = found[_identity(entry.listener)]
                    claims[route.source.key.qualified_name] = _Claim(route, entry.hostnames)
    return {identity: tuple(claims.values()) for identity, claims in found.items()}


def _identity(state: ListenerState) -> tuple[str, str]:
    return state.gateway.key.qualified_name, state.section


def _by_port(listeners: Listeners, passed: _ClaimsByListener) -> dict[str, list[ListenerState]]:
    found: defaultdict[str, list[ListenerState]] = defaultdict(list)
    for states in listeners.values():
        for state in states:
            if state.usable and (not state.passthrough or _identity(state) in passed):
                found[f"{state.gateway.key.qualified_name}/{state.spec.port}"].append(state)
    return {name: sorted(states, key=lambda state: state.section) for name, states in found.items()}


def _port(
    states: Sequence[ListenerState],
    claims: _ClaimsByListener,
    passed: _ClaimsByListener,
    made: Hosts,
    told: Told,
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
        sections=tuple(state.section for state in states),
        life=first.life,
        telemetry=told.listeners.get(name),
    )
    hosts = _virtual_hosts(name, terminating, claims, made, told.routes.get(name, {}))
    return listener, RouteTable(name=name, virtual_hosts=hosts)


def _chain(state: ListenerState) -> FilterChain:
    return FilterChain(
        name=state.section,
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
    return FilterChain(name=state.section)


def _virtual_hosts(
    port: str,
    states: Sequence[ListenerState],
    claims: _ClaimsByListener,
    made: Hosts,
    traced: Traced,
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
        made.host(
            port,
            hostname,
            hosts[hostname],
            _covering_claims(hostname, by_pattern[_identity(hosts[hostname])]),
            traced,
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


def _virtual_host(
    hostname: str, listener: ListenerState, claims: Sequence[_Claim], traced: Traced
) -> VirtualHost:
    ordered = sorted(
        (
            (
                _negative(_best(claim.hostnames, hostname)),
                match.specificity,
                claim.route.source.age,
                rule.position,
                match.position,
                route,
                traced.get(claim.route.source.key),
            )
            for claim in claims
            for rule in claim.route.rules
            for match, route in rule.routes
        ),
        key=lambda entry: entry[:5],
    )
    return VirtualHost(
        hostname=hostname,
        routes=tuple(_at(listener, route, tracing) for *_, route, tracing in ordered),
    )


def _at(listener: ListenerState, route: Route, tracing: RouteTracing | None) -> Route:
    """The route as it is at ``listener``: a redirect that names no port stays at the
    listener's."""
    action = route.action
    if tracing is not None:
        route = replace(route, tracing=tracing)
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
