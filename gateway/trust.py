"""Which certificates this gateway has in force, for people and for ``fedctl check``.

Decides: what is told of a certificate: the public parts alone, read from what is in force.
Leaves to others: judging them (``fedctl check``), using them (the core).
Invariants: a private key is never looked at here; a certificate that cannot be read is told as such
and hides no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from gateway.xds_translate import Kind, Piece, PieceId

CERTIFICATES_MAX = 32
"""Certificates told of one secret: chains and bundles are shorter."""


def certificates(in_force: Mapping[PieceId, Piece]) -> list[dict[str, Any]]:
    """The certificates of all secrets in force, by the secrets' names.

    ``certificate`` is a chain, leaf first; ``authorities`` are those that are trusted.
    """
    return [
        {
            "secret": piece.id.name,
            "certificate": _told(piece.body.get("certificate_pem")),
            "authorities": _told(piece.body.get("ca_pem")),
        }
        for piece in sorted(_secrets(in_force), key=lambda piece: piece.id)
    ]


def _secrets(in_force: Mapping[PieceId, Piece]) -> Iterable[Piece]:
    return (piece for piece_id, piece in in_force.items() if piece_id.kind is Kind.SECRETS)


def _told(pem: str | None) -> list[dict[str, Any]]:
    if not pem:
        return []
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        return [{"unreadable": str(error)}]
    return [_certificate(each) for each in found[:CERTIFICATES_MAX]]


def _certificate(found: x509.Certificate) -> dict[str, Any]:
    return {
        "subject": found.subject.rfc4514_string(),
        "issuer": found.issuer.rfc4514_string(),
        "serial": f"{found.serial_number:x}",
        "sha256": found.fingerprint(hashes.SHA256()).hex(),
        "not_before": found.not_valid_before_utc.isoformat(),
        "not_after": found.not_valid_after_utc.isoformat(),
        **_names(found),
        "pem": found.public_bytes(serialization.Encoding.PEM).decode(),
    }


def _names(found: x509.Certificate) -> dict[str, list[str]]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return {"dns": [], "uris": []}
    return {
        "dns": names.get_values_for_type(x509.DNSName),
        "uris": names.get_values_for_type(x509.UniformResourceIdentifier),
    }
