"""Ports that we add to a Service of somebody else's, by server-side apply.

Decides: nothing but the request.
Leaves to others: which ports (``derive.shared_gateways``).
Invariants: only ports that we applied are changed or taken away; a Service that has gone, or was
replaced meanwhile, is not made.
"""

from __future__ import annotations

from collections.abc import Sequence

from federation.adapters.kubernetes.connection import Connection, Json
from federation.adapters.kubernetes.statuses import MANAGER
from federation.model.base import ServiceName
from federation.model.infrastructure import ServedPort


class KubernetesServicePorts:
    """Implements ``ports.ServicePorts``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"KubernetesServicePorts({self._connection.server})"

    async def write(
        self, service: ServiceName, ports: Sequence[ServedPort], *, uid: str | None
    ) -> None:
        """Bring the ports that are ours to ``ports``. Raises ``PortError``."""
        entries = [
            {"name": it.name, "port": it.port, "targetPort": it.target_port, "protocol": "TCP"}
            for it in ports
        ]
        metadata: Json = {"name": service.name, "namespace": service.namespace}
        if uid is not None:
            metadata["uid"] = uid
        body: Json = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
        if entries:
            body["spec"] = {"ports": entries}
        path = f"/api/v1/namespaces/{service.namespace}/services/{service.name}"
        await self._connection.apply(path, body, manager=MANAGER)
