"""The part of a snapshot that a gateway needs which does not serve everything.

Decides: what listeners reach: their route tables, the upstreams of those, endpoints, secrets.
Leaves to others: which listeners are served (``model.serving``), their form (``wire.xds``).
Invariants: a part is a snapshot, self-consistent like the whole; a secret that no served listener
needs is not in it, so that a gateway holds no key but its own Gateway's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from federation.model.serving import EVERYTHING, serves_listener
from federation.model.snapshot import Forward, Listener, RouteTable, Snapshot, TlsTermination


def served_part(snapshot: Snapshot, serves: str) -> Snapshot:
    """What of ``snapshot`` those need who say ``serves``; the snapshot itself if it is all."""
    if serves == EVERYTHING:
        return snapshot
    listeners = tuple(entry for entry in snapshot.listeners if serves_listener(serves, entry))
    tables = {entry.route_table for entry in listeners}
    routes = tuple(entry for entry in snapshot.route_tables if entry.name in tables)
    upstreams = {*passed_upstreams(listeners), *collectors(listeners)}
    for table in routes:
        upstreams.update(routed_upstreams(table))
    secrets = {*listener_secrets(listeners)}
    return replace(
        snapshot,
        listeners=listeners,
        route_tables=routes,
        upstreams=tuple(entry for entry in snapshot.upstreams if entry.name in upstreams),
        endpoint_sets=tuple(e for e in snapshot.endpoint_sets if e.upstream in upstreams),
        secrets=tuple(entry for entry in snapshot.secrets if entry.name in secrets),
    )


def routed_upstreams(table: RouteTable) -> Iterator[str]:
    """Names of the upstreams that routes of ``table`` send calls or copies of them to."""
    for host in table.virtual_hosts:
        for route in host.routes:
            yield from (mirror.upstream for mirror in route.mirrors)
            if isinstance(route.action, Forward):
                for destination in route.action.destinations:
                    yield destination.upstream
                    yield from (mirror.upstream for mirror in destination.mirrors)


def passed_upstreams(listeners: Iterable[Listener]) -> Iterator[str]:
    """Names of the upstreams to which ``listeners`` pass TLS through."""
    for listener in listeners:
        for chain in listener.chains:
            yield from (destination.upstream for destination in chain.passthrough)


def collectors(listeners: Iterable[Listener]) -> Iterator[str]:
    """Names of the upstreams that are told about calls of ``listeners``."""
    for listener in listeners:
        if listener.telemetry is not None:
            yield from sorted(listener.telemetry.collectors)


def listener_secrets(listeners: Iterable[Listener]) -> Iterator[str]:
    """Names of the secrets that ``listeners`` terminate TLS with."""
    for listener in listeners:
        for chain in listener.chains:
            if isinstance(chain.tls, TlsTermination):
                yield from chain.tls.certificates
                if chain.tls.client_ca:
                    yield chain.tls.client_ca
