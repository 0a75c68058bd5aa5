"""What a console is started with.

Decides: names, units, defaults and bounds.
Leaves to others: the command line (``cli.console``), checking files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from federation.derive.compile import CompileSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what clients can make the console do.

    ``clients``: open event streams; one more is refused, as is one more than ``clients_each`` of
    one person (where people say who they are). ``queue``: events that wait for one client; one that
    is slower is told to reload. ``tick_s``: least time between two events of one stream.
    ``beat_s``: time without news after which a stream says that it lives. ``write_s``: how long a
    client may take no bytes. ``body_bytes``: of a request. ``kept_documents``: how far back a
    stream can be resumed. ``failures`` within ``failures_s`` of one address are answered, further
    ones are told to wait.
    """

    clients: int = 64
    clients_each: int = 16
    queue: int = 16
    tick_s: float = 0.5
    beat_s: float = 10.0
    body_bytes: int = 16 * 1024
    kept_documents: int = 64
    failures: int = 10
    failures_s: float = 60.0
    write_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Oidc:
    """Whose tokens are believed. ``keys`` is a file or a URL of a JWKS; ``None``: the issuer's own.

    ``groups_claim`` names the claim whose strings are the holder's groups, ``user_claim`` the one
    that people are shown as.
    """

    issuer: str
    audience: str
    keys: str | None = None
    groups_claim: str = "groups"
    user_claim: str = "email"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read and write. ``readers`` and ``writers`` are grants: ``*`` (everybody who signs
    in), ``user:NAME``, ``sub:SUBJECT``, ``group:NAME``, ``cn:NAME`` or a SPIFFE id; a
    trailing ``*`` of a SPIFFE id is any rest. Who may write may read.

    With neither ``oidc`` nor ``certificates`` everybody who reaches the console reads, and
    writes if ``open_write``: for loopback alone.
    """

    oidc: Oidc | None = None
    certificates: bool = False
    readers: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    open_write: bool = False

    @property
    def open(self) -> bool:
        """Whether nobody has to say who he is."""
        return self.oidc is None and not self.certificates


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the console's own TLS. ``client_ca`` signs clients' certificates."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """``hosts`` are the names under which the console may be asked for, besides its address.

    ``secure``: browsers reach it over TLS, its own or a proxy's. ``history_revisions`` bounds how
    far back the timeline looks when it starts, ``timeline_entries`` what is kept of it.
    """

    host: str
    port: int
    version: str
    hosts: tuple[str, ...] = ()
    secure: bool = False
    access: Access = Access()
    tls: TlsFiles | None = None
    limits: Limits = Limits()
    compile: CompileSettings = field(default_factory=CompileSettings)
    history_revisions: int = 20_000
    timeline_entries: int = 2_000
