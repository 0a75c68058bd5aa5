"""Settings of the agent: who it is, and how often it says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from federation.derive.compile import CompileSettings
from federation.model.base import ClusterId, Region
from federation.model.infrastructure import GatewayTemplate


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Everything the agent is told, checked once by its composition root."""

    cluster: ClusterId
    """The member cluster this agent speaks for: its name is claimed in the store."""

    region: Region
    """Failure domain of the cluster."""

    state_dir: Path
    """Where the agent's identity and its last good state stay over restarts. Holds secrets of the
    cluster: only its owner may read it."""

    instance: str | None = None
    """Identity under which the name is claimed, where the cluster itself has one that outlives the
    state directory; ``None`` keeps one there."""

    version: str = "unknown"
    """Shown in the heartbeat."""

    peer_dial: Mapping[str, str] = field(default_factory=dict)
    """Advertised east-west address -> the address to dial instead (NAT, relays)."""

    endpoint_dial: Mapping[str, str] = field(default_factory=dict)
    """Address of an endpoint of this cluster (``host:port``, as EndpointSlices have it) -> the one
    that its gateways dial instead, where a NAT stands between them and the Pods."""

    compile: CompileSettings = field(default_factory=CompileSettings)
    """What compiling is told."""

    gateway_template: GatewayTemplate | None = None
    """What each Gateway's own gateways are made from; ``None``: all share the cluster's."""

    heartbeat_ttl_s: float = 5.0
    """The lease under the heartbeat; its end shows as ``Stale`` and moves nothing. At least 2 s,
    since etcd grants nothing shorter."""

    heartbeat_every_s: float = 2.0
    """How often the heartbeat tells the newest revision seen; every reader takes each one in."""

    settle_s: float = 0.003
    """After a change, wait this long for others that belong to it (an apply of several objects)
    before compiling. Part of the propagation time of every change, so at most 0.01 s."""

    from_disk_after_s: float = 2.0
    """At start, wait this long for the store and the source before serving the last good state
    from disk. Serving it at once would take gateways back to an old state for a moment."""

    save_every_s: float = 1.0
    """The last good state is saved at most this often."""
