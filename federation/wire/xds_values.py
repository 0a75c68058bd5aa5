"""Small Envoy values that several resources are made of.

Decides: how durations, metadata, ADS sources and peers' identities are spelled.
Leaves to others: which resource carries them.
Invariants: nothing here depends on the node or on the order of calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2
from google.protobuf.message import Message

from federation.model.snapshot import IDENTITY_SECRET, TRUST_SECRET, PeerTls

METADATA = "federation.gateway"
"""Namespace of our own metadata on routes, listeners and endpoints."""


def duration(ms: int) -> duration_pb2.Duration:
    """``ms`` milliseconds."""
    return duration_pb2.Duration(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def uint32(value: int | None) -> wrappers_pb2.UInt32Value | None:
    """An optional number; ``None`` stays unset."""
    return None if value is None else wrappers_pb2.UInt32Value(value=value)


def packed(message: Message) -> any_pb2.Any:
    """``message`` as ``Any``, in bytes that do not vary."""
    body = any_pb2.Any()
    body.Pack(message, deterministic=True)
    return body


def metadata(values: Mapping[str, Any], *, namespace: str = METADATA) -> base_pb2.Metadata:
    """``values`` under ``namespace``."""
    message = base_pb2.Metadata()
    message.filter_metadata[namespace].update(dict(values))
    return message


def ads() -> config_source_pb2.ConfigSource:
    """The source of everything dynamic: the one ADS stream."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )


def peer_tls_context(peer: PeerTls) -> tls_pb2.CommonTlsContext:
    """Both sides' part of mutual TLS: own identity, trust bundle, and which identities pass."""
    allowed = common_pb2.CertificateValidationContext(
        match_typed_subject_alt_names=[
            common_pb2.SubjectAltNameMatcher(
                san_type=common_pb2.SubjectAltNameMatcher.URI, matcher=_identity(pattern)
            )
            for pattern in peer.allowed_spiffe
        ]
    )
    return tls_pb2.CommonTlsContext(
        alpn_protocols=["h2"],
        tls_certificate_sds_secret_configs=[secret_pb2.SdsSecretConfig(name=IDENTITY_SECRET)],
        combined_validation_context=tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=allowed,
            validation_context_sds_secret_config=secret_pb2.SdsSecretConfig(name=TRUST_SECRET),
        ),
    )


def _identity(pattern: str) -> string_pb2.StringMatcher:
    if pattern.endswith("*"):
        return string_pb2.StringMatcher(prefix=pattern[:-1])
    return string_pb2.StringMatcher(exact=pattern)
