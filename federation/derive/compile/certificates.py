"""Certificates of listeners: which Secrets can be used.

Decides: whether a certificateRef leads to a usable certificate, and what is wrong otherwise.
Leaves to others: trust in it (clients), expiry (observability).
Invariants: a certificate that a gateway could not load never reaches one; the existence of a Secret
in another namespace shows only to those whom a ReferenceGrant permits; no message quotes content.
"""

from __future__ import annotations

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
from federation.model.objects import Gateway, ObjectKey, Secret, SecretObjectReference
from federation.model.snapshot import IDENTITY_SECRET, TRUST_SECRET, TlsSecret

_CACHE_SIZE = 1024
"""Checked certificates that are remembered; beyond it they are checked at each compilation."""


def resolve_certificate(
    index: Index, gateway: Gateway, ref: SecretObjectReference, *, where: str
) -> TlsSecret | Problem:
    """The certificate that ``ref`` of ``gateway`` names, or why it cannot be used."""
    if (ref.group, ref.kind) != ("", "Secret"):
        return _invalid(f"{where}: kind {ref.kind} is not supported, use a Secret")
    namespace = ref.namespace or gateway.metadata.namespace
    key = ObjectKey("", "Secret", namespace, ref.name)
    if not index.permitted(gateway.key, key):
        return Problem(
            "RefNotPermitted",
            f"{where}: no ReferenceGrant in namespace {namespace} lets this Gateway use {key}",
        )
    if key.qualified_name in (IDENTITY_SECRET, TRUST_SECRET):
        return _invalid(f"{where}: {key} bears the name of the gateways' own identity")
    secret = index.objects.get(Secret, namespace, ref.name)
    if secret is None:
        return _invalid(f"certificate not found: {key} does not exist ({where})")
    fault = certificate_fault(
        bytes(secret.data.get("tls.crt", b"")), bytes(secret.data.get("tls.key", b""))
    )
    if fault:
        return _invalid(f"{where}: {key} {fault}")
    return TlsSecret(
        name=key.qualified_name,
        certificate_pem=bytes(secret.data["tls.crt"]),
        private_key_pem=bytes(secret.data["tls.key"]),
    )


def _invalid(message: str) -> Problem:
    return Problem("InvalidCertificateRef", message)


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
