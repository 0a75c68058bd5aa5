"""When the certificates of secrets in force end."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.metrics import expiries
from gateway.xds_translate import Kind, Piece, PieceId

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def certificate(days: int) -> str:
    """One that signs itself and ends so many days after ``NOW``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{days} days")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def ends_in_days(**secrets: dict[str, str]) -> dict[str, float]:
    pieces = [
        Piece(PieceId(Kind.SECRETS, name), {"name": name} | body, frozenset())
        for name, body in secrets.items()
    ]
    found = expiries({piece.id: piece for piece in pieces})
    return {name: (end - NOW.timestamp()) / 86_400 for name, end in found.items()}


def test_of_a_chain_the_first_to_end_and_of_authorities_the_last() -> None:
    assert ends_in_days(
        web={"certificate_pem": certificate(90) + certificate(30), "private_key_pem": "x"},
        trust={"ca_pem": certificate(5) + certificate(700)},
        both={"certificate_pem": certificate(40), "ca_pem": certificate(10)},
    ) == {"web": 30, "trust": 700, "both": 10}


def test_what_cannot_be_read_has_no_end() -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert ends_in_days(web={"certificate_pem": broken}, empty={}, text={"ca_pem": "no PEM"}) == {}


def test_only_secrets_have_one() -> None:
    piece = Piece(PieceId(Kind.CLUSTERS, "c"), {"certificate_pem": certificate(1)}, frozenset())
    assert expiries({piece.id: piece}) == {}
