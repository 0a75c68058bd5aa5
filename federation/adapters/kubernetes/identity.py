"""Who a cluster is: the uid of its namespace ``kube-system``, which lives as long as the cluster.

Decides: what stands for a cluster's identity (the usual convention; Kubernetes itself has none).
Leaves to others: what the identity is for (``agent.claim``).
Invariants: an API server that is away is no failure: the identity is then not known now.
"""

from __future__ import annotations

import logging

from federation.adapters.kubernetes.connection import Connection
from federation.ports import PortError

log = logging.getLogger(__name__)


async def cluster_uid(connection: Connection) -> str | None:
    """The cluster's identity, or ``None`` when the API server does not tell."""
    try:
        found = await connection.get("/api/v1/namespaces/kube-system")
    except PortError as error:
        log.warning("the cluster's identity is not known now", extra={"reason": str(error)})
        return None
    return str(found["metadata"]["uid"])
