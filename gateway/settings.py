"""Settings of one gateway, built once from the command line and passed down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """This gateway's certificate and key, and the clusterset's certificate authorities (PEM)."""

    certificate: Path
    private_key: Path
    trust_bundle: Path


@dataclass(frozen=True, slots=True)
class AgentTls:
    """Mutual TLS towards the agent's xDS port: the CA of its certificate, and our own files."""

    ca: Path
    certificate: Path
    private_key: Path


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """What the native core is started with."""

    cluster: str = ""
    """The member cluster that this gateway stands in, for what is told about calls."""

    region: str = ""
    """Its region, for the same; empty: unknown."""

    workers: int = 1
    """Threads that move traffic, 1 to 256. One a core of the machine is most."""

    max_connections: int = 20_000
    """Client connections over all workers; further ones are closed at once."""

    max_concurrent_streams: int = 256
    """Streams that a client may have open on one connection, 1 to 65,536."""

    stream_window: int = 256 * 1024
    """Bytes that one stream may have under way at most, 65,535 to 64 MiB. Streams begin with less
    and grow while the other side takes what comes."""

    max_calls: int = 100_000
    """Calls open at once over all workers, each of which has an even part; further ones are
    answered UNAVAILABLE at once."""

    slow_turn_ms: int = 250
    """A turn of a worker's loop that takes longer is slow, up to 60,000. After three in a row fewer
    new calls are taken, and none is tried again; 0: never."""

    handshake_timeout_ms: int = 10_000
    """A client's connection must have said what begins it by then, and a header block must have
    ended, 1 to 600,000."""

    downstream_idle_ms: int = 300_000
    """A client's connection without a call for so long is asked to leave, and closed a second
    later, up to 86,400,000; 0: never. Listeners may say otherwise."""

    upstream_idle_ms: int = 900_000
    """A connection to an endpoint that carried nothing for so long is closed, up to 86,400,000; 0:
    never."""

    buffers_max_bytes: int = 256 << 20
    """Bytes that each worker holds for peers at a time, 16 MiB to 1 TiB: see docs/abuse.md. Above
    it the client connection that holds most loses its largest streams."""

    metric_series_max: int = 10_000
    """Labelled series of metrics, 1,000 to 1,000,000; what goes beyond counts as ``other``. Four
    fifths are for calls, the rest for clusters."""

    panics_max: int = 32
    """After so many panics (each a bug that cost a connection) the gateway drains and ends with an
    error, to be started again; 0: never."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Everything one gateway needs to know at its start."""

    name: str
    """Unique among the gateways of the cluster."""

    cluster: str
    """The member cluster it stands in."""

    agent: str
    """``HOST:PORT`` of the agent's xDS port, or of the Service in front of the cluster's agents;
    or of each of them, with commas between."""

    state_dir: Path
    """Where the last good configuration is kept; of this gateway alone."""

    region: str = ""
    """The region of its cluster, for metrics and logs; empty: not told."""

    address: str = "0.0.0.0"  # noqa: S104 - a gateway takes traffic from everywhere
    """Address to bind listeners on."""

    port_offset: int = 0
    """Added to every listener's port, where privileged ports cannot be bound."""

    eastwest_address: str | None = None
    """``HOST:PORT`` at which gateways of other clusters reach this one; ``None``: they do not."""

    serves: str = "all"
    """Which of the cluster's listeners it opens: ``all``, ``gateway:NAMESPACE/NAME`` (those of that
    Gateway) or ``east-west`` (those of no Gateway)."""

    admin: str = "127.0.0.1:0"
    """``HOST:PORT`` of the admin endpoint; port 0 lets the system choose. Not for clients."""

    identity: IdentityFiles | None = None
    """``None``: no east-west traffic in either direction."""

    agent_tls: AgentTls | None = None
    """``None``: plain text to the agent, right on loopback only."""

    core: CoreSettings = CoreSettings()

    drain_grace_s: float = 10.0
    """How long open streams may go on after SIGTERM; below Kubernetes' 30 s until SIGKILL."""

    @property
    def agents(self) -> tuple[str, ...]:
        """Where agents are; they are tried in turn."""
        return tuple(part.strip() for part in self.agent.split(",") if part.strip())
