"""Settings of the discovery server: where it listens and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Mutual TLS of the xDS port: own certificate and key, and whom to let in."""

    certificate: Path
    private_key: Path

    client_ca: Path
    """Certificate authorities that a client's certificate must chain to."""

    allowed_spiffe: frozenset[str] = frozenset()
    """SPIFFE ids let in; empty: everyone whom ``client_ca`` has signed. The resources hold the keys
    of certificates, so a CA that signs more than this cluster's gateways needs the list."""


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """What the server needs to know besides the snapshots."""

    cluster: str
    """Only nodes of this cluster are served."""

    address: str = "127.0.0.1:0"
    """``HOST:PORT`` to listen on; port 0 lets the system choose. Loopback unless told otherwise:
    without ``tls`` all who reach the port can read the configuration, certificates included."""

    tls: TlsFiles | None = None
    """``None``: plain text."""

    streams_max: int = 512
    """Open streams at once; a cluster has a few gateways, or a few for each Gateway, and each
    reconnect may overlap its old stream. One more is refused with RESOURCE_EXHAUSTED."""

    response_bytes_max: int = 2 * 1024 * 1024
    """Size at which a response is cut and continued after its ACK: half of gRPC's default limit."""

    request_bytes_max: int = 16 * 1024 * 1024
    """Largest request taken: a reconnecting client names all it holds, up to 100,000 names."""

    keepalive_interval_s: float = 5.0
    """A silent client is pinged this often: a gateway that vanished without a FIN is noticed."""

    keepalive_timeout_s: float = 5.0
    """An unanswered ping ends the connection after this time."""
