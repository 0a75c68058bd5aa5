"""What a benchmark asks of a proxy: where the backend is, who speaks TLS, how many workers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from federation.cli.lab.authority import Authority, gateway_identity, write_private

AUTHORITY = "bench.example.com"
SERVICE = "com.example.api.UserService"
METHOD = f"/{SERVICE}/GetUser"
GRPC_BODY = b"\x00\x00\x00\x00\x08" + b"\x0a\x06user-1"
IDENTITY = gateway_identity("bench")
STREAMS_MAX = 1_000
"""Streams a connection, for peers whose own default would refuse what is measured."""


class Security(Enum):
    """Who speaks TLS; the value stands in tables."""

    PLAIN = "plain HTTP/2 (h2c)"
    TLS = "TLS from the client, plain behind"
    MUTUAL = "mutual TLS on both sides"

    @property
    def scheme(self) -> str:
        return "http" if self is Security.PLAIN else "https"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """One certificate (ECDSA P-256) that everybody shows, its key, and who signed it."""

    certificate: Path
    key: Path
    ca: Path
    pair: Path
    """Certificate and key in one file."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The same for all proxies of a comparison."""

    directory: Path
    backend_port: int
    tls: TlsFiles
    security: Security = Security.PLAIN
    workers: int = 1


def make_tls(directory: Path) -> TlsFiles:
    """The files, in ``directory``."""
    authority = Authority("bench")
    pair = authority.issue(AUTHORITY, dns=(AUTHORITY,), uris=(IDENTITY,))
    files = TlsFiles(*(directory / name for name in ("tls.crt", "tls.key", "ca.crt", "tls.pem")))
    files.certificate.write_bytes(pair.certificate_pem)
    write_private(files.key, pair.key_pem)
    write_private(files.pair, pair.certificate_pem + pair.key_pem)
    files.ca.write_bytes(authority.certificate_pem)
    return files
