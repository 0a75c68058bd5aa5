"""A certificate authority and everything it signs: the lab's, and those of ``fedctl cluster``.

Decides: names and key types of certificates, and how long the lab's hold.
Leaves to others: who loads them, where an authority is kept (the lab: nowhere but in its directory;
``fedctl cluster``: in the folder that it is given). Operators may use a PKI of their own instead.
Invariants: private keys are written readable by their owner alone; no repr shows a key.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "clusterset.local"
LIFETIME = dt.timedelta(days=30)
CLOCK_SLACK = dt.timedelta(minutes=5)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def gateway_identity(cluster: str) -> str:
    """The SPIFFE id that a gateway of ``cluster`` shows to its peers."""
    return f"spiffe://{TRUST_DOMAIN}/ns/federation/sa/gateway/cluster/{cluster}"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain and its private key, both PEM."""

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "KeyPair(redacted)"


class AuthorityError(Exception):
    """What was given is no authority: which file, and why."""


class Authority:
    """A certificate authority in memory."""

    def __init__(self, name: str, *, lifetime: dt.timedelta = LIFETIME) -> None:
        self._key: PrivateKey = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            _builder(subject, subject, self._key.public_key(), lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @classmethod
    def load(cls, certificate: Path, private_key: Path) -> Authority:
        """The authority kept in two PEM files. Raises ``AuthorityError``."""
        try:
            held = x509.load_pem_x509_certificate(certificate.read_bytes())
        except (OSError, ValueError) as error:
            raise AuthorityError(f"reading a certificate from {certificate}: {error}") from error
        try:
            key = serialization.load_pem_private_key(private_key.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise AuthorityError(f"reading a private key from {private_key}: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise AuthorityError(f"{private_key}: the key is neither an EC nor an RSA key")
        if key.public_key() != held.public_key():
            raise AuthorityError(f"{private_key} is not the key of {certificate}")
        if not _signs(held):
            raise AuthorityError(f"{certificate} is no authority's certificate (CA:TRUE)")
        found = cls.__new__(cls)
        found._certificate, found._key = held, key  # noqa: SLF001 - our own class
        return found

    def __repr__(self) -> str:
        return f"Authority({self._certificate.subject.rfc4514_string()})"

    @property
    def certificate_pem(self) -> bytes:
        """The authority's own certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """Its private key, to be kept where nobody else reads it."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def issue(
        self,
        common_name: str,
        *,
        dns: tuple[str, ...] = (),
        uris: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
        lifetime: dt.timedelta = LIFETIME,
    ) -> KeyPair:
        """A certificate for both ends of TLS with the given subject alternative names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
        names.extend(x509.IPAddress(ipaddress.ip_address(text)) for text in addresses)
        names.extend(x509.UniformResourceIdentifier(uri) for uri in uris)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(subject, self._certificate.subject, key.public_key(), lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return KeyPair(
            certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
            key_pem=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def issue_gateway(
        self, name: str, *, cluster: str, lifetime: dt.timedelta = LIFETIME
    ) -> KeyPair:
        """The identity of a gateway: its SPIFFE id, and the one DNS name that peers ask for."""
        return self.issue(
            name,
            dns=(f"east-west.{TRUST_DOMAIN}",),
            uris=(gateway_identity(cluster),),
            lifetime=lifetime,
        )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    lifetime: dt.timedelta,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _signs(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def write_private(path: Path, content: bytes) -> None:
    """Write ``content`` so that its owner alone can read it, from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
