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

    workers: int = 1
    """Threads that move traffic, 1 to 256. One a core of the machine is most."""

    max_connections: int = 20_000
    """Client connections over all workers; further ones are closed at once."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Everything one gateway needs to know at its start."""

    name: str
    """Unique among the gateways of the cluster."""

    cluster: str
    """The member cluster it stands in."""

    agent: str
    """``HOST:PORT`` of the agent's xDS port."""

    state_dir: Path
    """Where the last good configuration is kept; of this gateway alone."""

    address: str = "0.0.0.0"  # noqa: S104 - a gateway takes traffic from everywhere
    """Address to bind listeners on."""

    port_offset: int = 0
    """Added to every listener's port, where privileged ports cannot be bound."""

    eastwest_address: str | None = None
    """``HOST:PORT`` at which gateways of other clusters reach this one; ``None``: they do not."""

    admin: str = "127.0.0.1:0"
    """``HOST:PORT`` of the admin endpoint; port 0 lets the system choose. Not for clients."""

    identity: IdentityFiles | None = None
    """``None``: no east-west traffic in either direction."""

    agent_tls: AgentTls | None = None
    """``None``: plain text to the agent, right on loopback only."""

    core: CoreSettings = CoreSettings()

    drain_grace_s: float = 10.0
    """How long open streams may go on after SIGTERM; below Kubernetes' 30 s until SIGKILL."""
