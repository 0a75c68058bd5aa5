"""TLS contexts of listeners and of connections to peers, read from ``CommonTlsContext``.

Decides: that certificates and trust come as secrets by name, and identities of the other side are
URI names (SPIFFE ids) compared exactly or by prefix.
Leaves to others: where the secrets come from (the agent, or files of this gateway).
"""

from __future__ import annotations

from dataclasses import dataclass

from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from gateway.xds_translate.fields import UnsupportedFieldError, join, only

ALPN_H2 = ("h2",)


@dataclass(frozen=True, slots=True)
class TlsNames:
    """What a TLS context names: secrets to show, the secret to trust, identities let in."""

    certificates: tuple[str, ...]
    ca: str | None
    allowed_spiffe: tuple[str, ...]
    optional: bool = False
    """Whoever has no valid certificate is let in as well."""


def read_common(context: tls_pb2.CommonTlsContext, path: str) -> TlsNames:
    """Read the part that both sides of TLS share."""
    only(
        context,
        path,
        reads=(
            "tls_certificate_sds_secret_configs",
            "validation_context_sds_secret_config",
            "combined_validation_context",
            "alpn_protocols",
        ),
        ignores=("tls_params",),
    )
    alpn = tuple(context.alpn_protocols)
    if alpn and "h2" not in alpn:
        raise UnsupportedFieldError(
            join(path, "alpn_protocols"), f'must contain "h2", got {list(alpn)}'
        )
    ca: str | None = None
    allowed: tuple[str, ...] = ()
    optional = False
    if context.HasField("validation_context_sds_secret_config"):
        ca = context.validation_context_sds_secret_config.name
    elif context.HasField("combined_validation_context"):
        combined = context.combined_validation_context
        where = join(path, "combined_validation_context")
        only(
            combined,
            where,
            reads=("default_validation_context", "validation_context_sds_secret_config"),
        )
        ca = combined.validation_context_sds_secret_config.name
        default = combined.default_validation_context
        allowed = _allowed(default, join(where, "default_validation_context"))
        untrusted = common_pb2.CertificateValidationContext.ACCEPT_UNTRUSTED
        optional = default.trust_chain_verification == untrusted
    return TlsNames(
        certificates=tuple(c.name for c in context.tls_certificate_sds_secret_configs),
        ca=ca,
        allowed_spiffe=allowed,
        optional=optional,
    )


def _allowed(context: common_pb2.CertificateValidationContext, path: str) -> tuple[str, ...]:
    only(context, path, reads=("match_typed_subject_alt_names", "trust_chain_verification"))
    patterns = []
    for index, entry in enumerate(context.match_typed_subject_alt_names):
        where = f"{path}.match_typed_subject_alt_names[{index}]"
        if entry.san_type != common_pb2.SubjectAltNameMatcher.URI:
            raise UnsupportedFieldError(join(where, "san_type"), "must be URI")
        match entry.matcher.WhichOneof("match_pattern"):
            case "exact":
                patterns.append(entry.matcher.exact)
            case "prefix":
                patterns.append(entry.matcher.prefix + "*")
            case other:
                raise UnsupportedFieldError(
                    join(where, "matcher"), f"must be exact or prefix, got {other}"
                )
    return tuple(patterns)
