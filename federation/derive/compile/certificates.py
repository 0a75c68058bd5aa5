"""Certificates of listeners: which Secrets can be used.

Decides: whether a certificateRef leads to a usable certificate, and what is wrong otherwise.
Leaves to others: trust in it (clients), expiry (observability).
Invariants: a certificate that a gateway could not load never reaches one, and takes none from it
that it could (``derive.kept_certificates``); the existence of a Secret
in another namespace shows only to those whom a ReferenceGrant permits; no message quotes content.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from federation.derive.compile.index import Index
from federation.derive.compile.problem import Problem
from federation.model.objects import Gateway, ListenerSet, ObjectKey, Secret, SecretObjectReference
from federation.model.snapshot import IDENTITY_SECRET, TRUST_SECRET, TlsSecret

_CACHE_SIZE = 1024
"""Checked certificates that are remembered; beyond it they are checked at each compilation."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a reference came to: a certificate, what is wrong, or both: then it is an old one."""

    secret: TlsSecret | None = None
    problem: Problem | None = None


def resolve_certificate(
    index: Index, owner: Gateway | ListenerSet, ref: SecretObjectReference, *, where: str
) -> Certificate:
    """The certificate that ``ref`` of ``owner`` names, or why it cannot be used."""
    if (ref.group, ref.kind) != ("", "Secret"):
        return _invalid(f"{where}: kind {ref.kind} is not supported, use a Secret")
    namespace = ref.namespace or owner.metadata.namespace
    key = ObjectKey("", "Secret", namespace, ref.name)
    if not index.permitted(owner.key, key):
        message = (
            f"{where}: no ReferenceGrant in namespace {namespace} lets this {owner.KIND} use {key}"
        )
        return Certificate(problem=Problem("RefNotPermitted", message))
    if key.qualified_name in (IDENTITY_SECRET, TRUST_SECRET):
        return _invalid(f"{where}: {key} bears the name of the gateways' own identity")
    secret = index.objects.get(Secret, namespace, ref.name)
    if secret is None:
        return _invalid(f"certificate not found: {key} does not exist ({where})")
    if fault := secret_fault(secret):
        return _invalid(f"{where}: {key} {fault}")
    found = TlsSecret(
        name=key.qualified_name,
        certificate_pem=bytes(secret.data["tls.crt"]),
        private_key_pem=bytes(secret.data["tls.key"]),
    )
    newest = index.kept_certificates.get(key)
    if newest is None:
        return Certificate(found)
    told = f"{where}: {key} {newest}; its last good certificate stays in use"
    return Certificate(found, _invalid(told).problem)


def _invalid(message: str) -> Certificate:
    return Certificate(problem=Problem("InvalidCertificateRef", message))


def secret_fault(secret: Secret) -> str:
    """What keeps a gateway from using ``secret`` as a certificate; empty if nothing does."""
    return certificate_fault(
        bytes(secret.data.get("tls.crt", b"")), bytes(secret.data.get("tls.key", b""))
    )


@lru_cache(maxsize=_CACHE_SIZE)
def certificate_fault(certificate_pem: bytes, private_key_pem: bytes) -> str:
    """What keeps a gateway from using the pair; empty if nothing does."""
    if not certificate_pem or not private_key_pem:
        return "has no tls.crt and tls.key"
    try:
        leaf = x509.load_pem_x509_certificates(certificate_pem)[0]
    except (ValueError, UnsupportedAlgorithm):
        return "has a tls.crt that is no certificate in PEM"
    try:
        key = load_pem_private_key(private_key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "has a tls.key that is no unencrypted private key in PEM"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        return "has a tls.key that does not belong to its tls.crt"
    return ""
