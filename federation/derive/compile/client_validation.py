"""Validation of client certificates (Gateway API: ``FrontendTLSValidation``).

Decides: which authorities hold for a listener, from the listener itself, its port or its Gateway,
and what is wrong with references to them.
Leaves to others: listeners (``listeners``), the handshake (the gateway).
Invariants: one port has one validation, since a client may use a connection for another listener's
hosts; without any valid authority a listener is not opened, never opened without validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from federation.derive.compile.index import Index
from federation.derive.compile.problem import Problem
from federation.model.objects import (
    ConfigMap,
    FrontendTlsValidation,
    FrontendValidationMode,
    Gateway,
    Listener,
    ObjectKey,
    ObjectReference,
    Secret,
)
from federation.model.snapshot import CaSecret

CA_KEY = "ca.crt"
"""Key of a ConfigMap (or Secret) that holds the authorities in PEM."""

_CACHE_SIZE = 256


@dataclass(frozen=True, slots=True)
class ClientValidation:
    """What clients of a listener must show; ``optional`` lets in everybody."""

    authorities: CaSecret
    optional: bool


@dataclass(frozen=True, slots=True)
class ValidationOutcome:
    """What a listener's validation came to; none of the three if it asks for none."""

    validation: ClientValidation | None = None
    unresolved: Problem | None = None
    refused: Problem | None = None


def validation_of(
    index: Index, gateway: Gateway, listener: Listener, *, where: str
) -> ValidationOutcome:
    """The validation of ``listener``, which stands at the field path ``where``."""
    found = _asked(gateway, listener, where)
    if found is None:
        return ValidationOutcome()
    source, path = found
    results = [
        _authorities(index, gateway, ref, f"{path}.caCertificateRefs[{position}]")
        for position, ref in enumerate(source.ca_certificate_refs)
    ]
    problems = [result for result in results if isinstance(result, Problem)]
    pem = b"\n".join(result for result in results if isinstance(result, bytes))
    unresolved = problems[0] if problems else None
    if not pem:
        message = f"{path}: no authority to check client certificates against"
        return ValidationOutcome(
            unresolved=unresolved, refused=Problem("NoValidCACertificate", message)
        )
    name = f"client-ca/{gateway.key.qualified_name}/{listener.port}"
    optional = source.mode is FrontendValidationMode.ALLOW_INSECURE_FALLBACK
    return ValidationOutcome(
        ClientValidation(CaSecret(name=name, ca_pem=pem), optional), unresolved
    )


def _asked(
    gateway: Gateway, listener: Listener, where: str
) -> tuple[FrontendTlsValidation, str] | None:
    """The validation that speaks for the listener, and where it stands: the nearest one."""
    if listener.tls is not None and listener.tls.frontend_validation is not None:
        return listener.tls.frontend_validation, f"{where}.tls.frontendValidation"
    frontend = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if frontend is None:
        return None
    for position, entry in enumerate(frontend.per_port):
        if entry.port == listener.port:
            path = f"spec.tls.frontend.perPort[{position}].tls.validation"
            return (entry.tls.validation, path) if entry.tls.validation is not None else None
    default = frontend.default.validation
    return (default, "spec.tls.frontend.default.validation") if default is not None else None


def _authorities(
    index: Index, gateway: Gateway, ref: ObjectReference, where: str
) -> bytes | Problem:
    """The PEM text that ``ref`` names, or what is wrong."""
    kinds = {(kind.GROUP, kind.KIND) for kind in (ConfigMap, Secret)}
    if (ref.group, ref.kind) not in kinds:
        message = f"{where}: kind {ref.kind} ({ref.group or 'core'}) is unknown, use a ConfigMap"
        return Problem("InvalidCACertificateKind", message)
    namespace = ref.namespace or gateway.metadata.namespace
    key = ObjectKey(ref.group, ref.kind, namespace, ref.name)
    if not index.permitted(gateway.key, key):
        message = f"{where}: no ReferenceGrant in namespace {namespace} lets this Gateway use {key}"
        return Problem("RefNotPermitted", message)
    found = index.objects.objects.get(key)
    pem = _text(found)
    if pem is None:
        missing = f"has no {CA_KEY}" if found is not None else "does not exist"
        return Problem("InvalidCACertificateRef", f"{where}: {key} {missing}")
    if not _is_bundle(pem):
        message = f"{where}: {key} has a {CA_KEY} that is no certificate in PEM"
        return Problem("InvalidCACertificateRef", message)
    return pem


def _text(found: object) -> bytes | None:
    if isinstance(found, ConfigMap):
        text = found.data.get(CA_KEY)
        return text.encode() if text else None
    if isinstance(found, Secret):
        return bytes(found.data.get(CA_KEY, b"")) or None
    return None


@lru_cache(maxsize=_CACHE_SIZE)
def _is_bundle(pem: bytes) -> bool:
    try:
        return bool(x509.load_pem_x509_certificates(pem))
    except (ValueError, UnsupportedAlgorithm):
        return False
