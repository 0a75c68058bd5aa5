"""The gateway's own identity: certificate, key and trust bundle as files, reloaded on change.

Decides: when a change is seen (modification times, looked at every second) and that files which do
not belong together yet are tried again at their next change.
Leaves to others: checking that key and certificate fit (the core refuses them; the old ones stay).
Invariants: key material is never logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.runtime import IDENTITY, TRUST_BUNDLE
from gateway.settings import IdentityFiles
from gateway.xds_translate import Piece, secret_piece

log = logging.getLogger("gateway.identity")

POLL_S = 1.0
"""How often the files are looked at: a rotation is planned hours ahead."""


class IdentityError(Exception):
    """The files cannot be read; the message says which and why."""


def load(files: IdentityFiles) -> list[Piece]:
    """The identity and trust bundle as secrets. Raises ``IdentityError``."""
    return [
        secret_piece(
            IDENTITY.name,
            certificate_pem=_read(files.certificate),
            private_key_pem=_read(files.private_key),
        ),
        secret_piece(TRUST_BUNDLE.name, ca_pem=_read(files.trust_bundle)),
    ]


async def watch(files: IdentityFiles, put: Callable[[list[Piece]], Awaitable[None]]) -> None:
    """Give the secrets to ``put`` now and after every change of the files, for ever.

    Now as well, since they may have changed since they were read at the start, or since a run of
    this loop that failed.
    """
    seen: object = None
    while True:
        now = _stamp(files)
        if now != seen:
            try:
                await put(load(files))
            except IdentityError as failure:
                log.warning("identity not reloaded", extra={"why": str(failure)})
            else:
                log.info("identity read", extra={"certificate": str(files.certificate)})
                seen = now
        await asyncio.sleep(POLL_S)


def _stamp(files: IdentityFiles) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(
        _stamp_of(path) for path in (files.certificate, files.private_key, files.trust_bundle)
    )


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as failure:
        raise IdentityError(f"cannot read {path}: {failure}") from failure
