"""The names that a provider gives its load balancers, resolved for other clusters.

Decides: when they are looked up: at a change, and every ``AGAIN_S`` after.
Leaves to others: which names (``derive.entrances``), looking up (a ``HostNames`` port).
Invariants: a name that cannot be resolved now keeps its addresses; one that is no longer asked for
is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from federation.agent.state import ClusterObjects
from federation.aio import Latest
from federation.derive.entrances import names_to_resolve
from federation.model.base import ServiceName
from federation.ports import HostNames, TemporaryError

log = logging.getLogger(__name__)

AGAIN_S = 30.0
"""Providers move a load balancer's addresses with the old ones in service for minutes."""

ResolvedNames = Mapping[str, tuple[str, ...]]
"""IP addresses by name, sorted."""


class NameResolver:
    """Keeps ``names`` at what the names of a Service's load balancer lead to."""

    def __init__(
        self, service: ServiceName, *, objects: Latest[ClusterObjects], hosts: HostNames
    ) -> None:
        self._service = service
        self._objects = objects
        self._hosts = hosts
        self._unresolved: set[str] = set()
        self.names: Latest[ResolvedNames] = Latest({})

    def __repr__(self) -> str:
        return f"NameResolver({self._service}, names={len(self.names.value or {})})"

    async def run(self) -> None:
        """Resolve for ever."""
        changed = asyncio.Event()
        self._objects.subscribe(changed)
        try:
            while True:
                asked = self._wanted()
                await self._resolve(asked)
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S if asked else None):
                        while self._wanted() == asked:
                            changed.clear()
                            await changed.wait()
        finally:
            self._objects.unsubscribe(changed)

    def _wanted(self) -> frozenset[str]:
        objects = self._objects.value
        if objects is None or not objects.live:
            return frozenset()
        return names_to_resolve(objects.shown, self._service)

    async def _resolve(self, asked: frozenset[str]) -> None:
        known = self.names.value or {}
        found: dict[str, tuple[str, ...]] = {}
        for name in sorted(asked):
            try:
                found[name] = tuple(sorted(set(await self._hosts.addresses(name))))
            except TemporaryError as error:
                if name not in self._unresolved:
                    log.warning("a load balancer's name is not resolved: %s", error)
                    self._unresolved.add(name)
            else:
                self._unresolved.discard(name)
            if not found.get(name) and name in known:
                found[name] = known[name]
        self.names.set({name: addresses for name, addresses in found.items() if addresses})
