"""The objects of a cluster for who looks now and then: the console, a command.

Decides: that a connection stands only while snapshots are asked for, and that a server which does
not answer, or does not know us, is an error at once and not after many tries.
Leaves to others: reading (``source``), credentials (``connection``).
Invariants: nothing is written to the API server.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from federation.adapters.kubernetes.connection import ConnectionSettings, connected
from federation.adapters.kubernetes.source import KubernetesSource
from federation.model.objects import ObjectSnapshot


class KubernetesReader:
    """Implements ``ports.ObjectSource`` by a connection of its own for each reading."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._source: KubernetesSource | None = None

    def __repr__(self) -> str:
        return f"KubernetesReader({self._settings.context})"

    async def snapshots(self) -> AsyncGenerator[ObjectSnapshot, None]:
        """As ``KubernetesSource``.

        Raises ``KubeconfigError`` without credentials, ``ApiServerAway`` and ``AccessDenied`` where
        the server does not answer or does not know us; later it is tried again for ever.
        """
        async with connected(self._settings) as connection:
            await connection.get("/version")
            self._source = KubernetesSource(connection)
            async with aclosing(self._source.snapshots()) as snapshots:
                async for snapshot in snapshots:
                    yield snapshot

    def accept_loss(self) -> None:
        """Believe the server where it was doubted."""
        if self._source is not None:
            self._source.accept_loss()

    def degraded(self) -> tuple[str, ...]:
        """What cannot be read, in few lines: a kind that we have no right to, for example."""
        return self._source.degraded() if self._source is not None else ()
