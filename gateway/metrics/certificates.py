"""When the certificates in force end.

Decides: which end counts. Of what this gateway presents, the first of the chain to end; of
authorities, the last one, since an old one beside its successor harms nobody.
Leaves to others: whether that is soon.
Invariants: private keys are not looked at; a secret that cannot be read has no sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from cryptography import x509

from gateway.xds_translate import Kind, Piece, PieceId

_KEPT_MAX: Final = 1024
"""PEM texts whose end is remembered: a scrape reads no certificate twice."""


def expiries(in_force: Mapping[PieceId, Piece]) -> dict[str, float]:
    """The end of each secret in Unix seconds, by the secret's name."""
    ends = {}
    for piece_id, piece in in_force.items():
        if piece_id.kind is not Kind.SECRETS:
            continue
        presented = _ends(piece.body.get("certificate_pem") or "")
        trusted = _ends(piece.body.get("ca_pem") or "")
        known = [*presented[:1], *trusted[-1:]]
        if known:
            ends[piece_id.name] = min(known)
    return ends


@lru_cache(maxsize=_KEPT_MAX)
def _ends(pem: str) -> tuple[float, ...]:
    """The ends of all certificates in a text, the first to end first."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode()) if pem else []
    except ValueError:
        return ()
    return tuple(sorted(it.not_valid_after_utc.timestamp() for it in found))
