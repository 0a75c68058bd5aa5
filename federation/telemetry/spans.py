"""Names of the control plane's spans and of their attributes.

Decides: the words. Attributes that OpenTelemetry has no convention for begin with ``federation.``.
Leaves to others: what has them (``agent.tracing``, ``resolver.service``).
"""

from __future__ import annotations

from typing import Final

OBJECT_CHANGE: Final = "object change"
FEDERATION_CHANGE: Final = "federation change"
COMPILE: Final = "compile"
PUBLISH: Final = "publish"
ACKNOWLEDGE: Final = "acknowledge"
DECISION: Final = "decision"
WRITE: Final = "write derived state"

CLUSTER: Final = "federation.cluster"
OBJECTS: Final = "federation.objects"
OBJECT_COUNT: Final = "federation.objects.count"
GENERATIONS: Final = "federation.objects.generations"
REVISION: Final = "federation.revision"
SNAPSHOT: Final = "federation.snapshot.generation"
PIECES: Final = "federation.compiled"
NODE: Final = "federation.node"
NODE_KIND: Final = "federation.node.kind"
REFUSED: Final = "federation.refused"
TERM: Final = "federation.term"
WRITES: Final = "federation.writes"
SERVICES: Final = "federation.services"

SPANS: Final[dict[str, str]] = {
    OBJECT_CHANGE: "Objects of the cluster changed, until every gateway has answered what follows.",
    FEDERATION_CHANGE: "The same for what other clusters or the resolver wrote.",
    COMPILE: "Making the snapshot anew, as far as it depends on the change.",
    PUBLISH: "Handing the snapshot to the xDS server.",
    ACKNOWLEDGE: "From there to a gateway's last answer; an error if it refused something.",
    DECISION: "A step of the leading resolver that changes something.",
    WRITE: "Its commits to etcd.",
}
"""What each span stands for."""

ATTRIBUTES: Final[dict[str, str]] = {
    CLUSTER: "The agent's cluster.",
    OBJECTS: "The changed objects, 16 at most.",
    OBJECT_COUNT: "How many there are.",
    GENERATIONS: "Their generations, in the same order; 0 for what is gone.",
    REVISION: "Revision of etcd that was known.",
    SNAPSHOT: "Generation of the snapshot, of an answer the newest one that was answered.",
    PIECES: "Pieces made anew, as `kind=count`.",
    NODE: "The gateway's name.",
    NODE_KIND: "`gateway` or `envoy`.",
    REFUSED: "What the gateway refused, 16 resources at most.",
    TERM: "The resolver's term.",
    WRITES: "Keys that change.",
    SERVICES: "Services of the clusterset.",
}
"""What each attribute says."""
