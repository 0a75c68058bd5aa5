"""Secrets: ``envoy.extensions.transport_sockets.tls.v3.Secret`` with inline material."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from gateway.xds_translate.fields import UnsupportedFieldError, only
from gateway.xds_translate.piece import Kind, Piece, PieceId


def translate_secret(secret: secret_pb2.Secret) -> Piece:
    """A certificate with its key, or the certificates to trust."""
    only(secret, "", reads=("name", "tls_certificate", "validation_context"))
    certificate = private_key = trusted = None
    if secret.HasField("tls_certificate"):
        body = secret.tls_certificate
        only(body, "tls_certificate", reads=("certificate_chain", "private_key"))
        certificate = _text(body.certificate_chain, "tls_certificate.certificate_chain")
        private_key = _text(body.private_key, "tls_certificate.private_key")
    elif secret.HasField("validation_context"):
        only(secret.validation_context, "validation_context", reads=("trusted_ca",))
        trusted = _text(secret.validation_context.trusted_ca, "validation_context.trusted_ca")
    else:
        raise UnsupportedFieldError("type", "must be tls_certificate or validation_context")
    return secret_piece(
        secret.name, certificate_pem=certificate, private_key_pem=private_key, ca_pem=trusted
    )


def secret_piece(
    name: str,
    *,
    certificate_pem: str | None = None,
    private_key_pem: str | None = None,
    ca_pem: str | None = None,
) -> Piece:
    """A secret as the core reads it."""
    return Piece(
        PieceId(Kind.SECRETS, name),
        {
            "name": name,
            "certificate_pem": certificate_pem,
            "private_key_pem": private_key_pem,
            "ca_pem": ca_pem,
        },
    )


def _text(source: base_pb2.DataSource, path: str) -> str:
    only(source, path, reads=("inline_bytes", "inline_string"))
    try:
        text = source.inline_string or source.inline_bytes.decode("ascii")
    except UnicodeDecodeError:
        raise UnsupportedFieldError(path, "is not PEM text") from None
    if not text:
        raise UnsupportedFieldError(path, "is empty")
    return str(text)
