"""Events on an API server (events.k8s.io/v1), as ``kubectl describe`` shows them.

Decides: an event's name, which follows from what it says, so that the same one told again is a
series and not another object; where events about objects without namespace are kept.
Leaves to others: what is told, and how often (the agent).
Invariants: one Event for one thing said of an object, however often; one that the server refuses is
logged and never tried again; they end by the server's own time to live.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from typing import Any

from federation.adapters.kubernetes.connection import (
    AccessDenied,
    ApiServerRefused,
    ChangedMeanwhile,
    Connection,
    Json,
    ResourceAbsent,
)
from federation.model.events import ObjectEvent
from federation.ports import Clock

log = logging.getLogger(__name__)

API_VERSION = "events.k8s.io/v1"

NAMESPACE = "default"
"""Of events about objects that belong to no namespace, as everywhere in Kubernetes."""

CONTROLLER = "federation.dev/agent"
"""Who reports."""

_NAME_MAX = 220
"""Of the object's name inside the event's, which a hash follows."""


class KubernetesEventSink:
    """Implements ``ports.EventSink``; ``instance`` says which agent reports."""

    def __init__(self, connection: Connection, clock: Clock, *, instance: str) -> None:
        self._connection = connection
        self._clock = clock
        self._instance = instance

    def __repr__(self) -> str:
        return f"KubernetesEventSink({self._connection.server})"

    async def write(self, event: ObjectEvent) -> None:
        """Tell ``event``: as a new one, or as one more of a series."""
        body = self._document(event)
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        path = f"/apis/{API_VERSION}/namespaces/{namespace}/events"
        try:
            await self._connection.post(path, body)
        except ChangedMeanwhile:
            if not event.known:
                await self._tell_again(f"{path}/{name}")
        except (AccessDenied, ApiServerRefused, ResourceAbsent) as error:
            # A namespace that is going away takes no more events, and none is worth waiting for.
            log.info("an event was refused", extra={"reason": str(error)})

    async def _tell_again(self, path: str) -> None:
        try:
            stored = await self._connection.get(path)
            count = int((stored.get("series") or {}).get("count", 1))
            stored["series"] = {"count": count + 1, "lastObservedTime": self._now()}
            await self._connection.put(path, stored)
        except (AccessDenied, ChangedMeanwhile, ResourceAbsent, ApiServerRefused) as error:
            log.info("an event was not counted", extra={"reason": str(error)})

    def _document(self, event: ObjectEvent) -> Json:
        source = event.regarding
        metadata = source.metadata
        regarding: dict[str, Any] = {
            "apiVersion": source.api_version,
            "kind": source.kind,
            "name": metadata.name,
        }
        if metadata.namespace:
            regarding["namespace"] = metadata.namespace
        if metadata.uid:
            regarding["uid"] = metadata.uid
        said = "\n".join((source.kind, metadata.uid or "", event.reason, event.action, event.note))
        digest = hashlib.sha256(said.encode()).hexdigest()[:16]
        return {
            "apiVersion": API_VERSION,
            "kind": "Event",
            "metadata": {
                "name": f"{metadata.name[:_NAME_MAX].rstrip('.')}.{digest}",
                "namespace": metadata.namespace or NAMESPACE,
            },
            "eventTime": self._now(),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": event.action,
            "reason": event.reason,
            "type": "Warning" if event.warning else "Normal",
            "note": event.note,
            "regarding": regarding,
        }

    def _now(self) -> str:
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
