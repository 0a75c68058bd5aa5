"""The console: a page that shows the federation live, with the API behind it."""

from federation.console.routes import ObjectsFrom
from federation.console.server import Console, ConsoleError
from federation.console.settings import (
    Access,
    ConsoleSettings,
    Limits,
    Oidc,
    TlsFiles,
)

__all__ = [
    "Access",
    "Console",
    "ConsoleError",
    "ConsoleSettings",
    "Limits",
    "ObjectsFrom",
    "Oidc",
    "TlsFiles",
]
