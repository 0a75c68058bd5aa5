"""The names that an agent answers for: its newest routing as a DNS table.

Decides: which addresses names lead to: those of imports where they have their own, else those of
this cluster's gateways.
Leaves to others: names (``dns.table``), answering (``dns.server``).
Invariants: a table is built once for each routing, when the first query asks for it; before the
agent knows anything there is none.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from federation.agent import Routing
from federation.aio import Latest
from federation.cli.context import CommandError
from federation.dns import DnsMetrics, DnsServer, DnsSettings, DnsTable, build_table


class RoutedNames:
    """Implements ``dns.TableSource`` on what the agent serves."""

    def __init__(self, routing: Latest[Routing]) -> None:
        self._routing = routing
        self._built: tuple[Routing, DnsTable] | None = None

    def __repr__(self) -> str:
        return f"RoutedNames({self._routing!r})"

    @property
    def table(self) -> DnsTable | None:
        """The table of the newest routing."""
        routing = self._routing.value
        if routing is None:
            return None
        if self._built is None or self._built[0] is not routing:
            self._built = (routing, _table(routing))
        return self._built[1]


def _table(routing: Routing) -> DnsTable:
    inputs = routing.inputs
    if inputs.settings.gateway_service is not None:
        table = build_table(inputs.view, inputs.objects, addresses=None)
        return dataclasses.replace(table, serial=max(1, routing.generation % 2**32))
    own = inputs.view.gateways.get(inputs.cluster)
    hosts = [peer.address.rpartition(":")[0].strip("[]") for peer in own.gateways] if own else []
    addresses = [host for host in hosts if _is_address(host)]
    table = build_table(inputs.view, inputs.objects, addresses=addresses)
    return dataclasses.replace(table, serial=max(1, routing.generation % 2**32))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@asynccontextmanager
async def answer_names(
    routing: Latest[Routing], address: str | None, registry: CollectorRegistry
) -> AsyncGenerator[DnsServer | None, None]:
    """Answer DNS at ``address`` (``None``: not at all) until left; ``registry`` counts."""
    if address is None:
        yield None
        return
    host, _, port = address.rpartition(":")
    settings = DnsSettings(host=host.strip("[]"), port=int(port))
    server = DnsServer(settings, RoutedNames(routing), DnsMetrics(registry))
    try:
        await server.start()
    except OSError as error:
        raise CommandError(
            f"cannot answer DNS on {address}: {error.strerror}; "
            "is the port taken by another process?"
        ) from error
    try:
        yield server
    finally:
        await server.stop()
