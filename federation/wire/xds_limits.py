"""Rate limits on routes.

Decides: how limits are spelled. One that each gateway counts for itself is a descriptor of Envoy's
local rate limit filter, as that route's own configuration, with the one action that makes the
descriptor beside it. One that all gateways share has no field that a stock Envoy could follow
without a service of its own; it stands in the route's metadata.
Leaves to others: which limits a route has (``derive.compile``), who divides shared ones.
Invariants: the filter stands in every listener of clients, so that a limit changes no listener; the
descriptor at a place goes with the rate limit at the same place; a call that no descriptor counts
passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.type.v3 import percent_pb2, token_bucket_pb2
from google.protobuf import wrappers_pb2

from federation.model.snapshot import HeaderMatch, MatchKind, RateLimit
from federation.wire.xds_values import duration, uint32

FILTER = "envoy.filters.http.local_ratelimit"

KEYS_MAX = 16_384
"""Values of distinct headers that one limit counts apart at a time; Envoy forgets the one unused
longest, our gateway counts further ones together."""

LIMIT_KEY = "limit"
"""Descriptor key of a limit's name."""

_STAT_PREFIX = "federation"
_OPEN = 4_294_967_295


def filter_config() -> local_rate_limit_pb2.LocalRateLimit:
    """The filter in a listener: it limits nothing where a route says nothing."""
    return local_rate_limit_pb2.LocalRateLimit(stat_prefix=_STAT_PREFIX)


def route_config(limits: Iterable[RateLimit]) -> local_rate_limit_pb2.LocalRateLimit | None:
    """What the filter does on a route with ``limits``; ``None``: nothing."""
    local = [limit for limit in limits if not limit.shared]
    if not local:
        return None
    all_of_it = base_pb2.RuntimeFractionalPercent(
        default_value=percent_pb2.FractionalPercent(numerator=100)
    )
    return local_rate_limit_pb2.LocalRateLimit(
        stat_prefix=_STAT_PREFIX,
        filter_enabled=all_of_it,
        filter_enforced=all_of_it,
        # Envoy wants a bucket for calls without descriptor; this one never runs dry.
        token_bucket=_bucket(_OPEN, 1_000),
        always_consume_default_token_bucket=wrappers_pb2.BoolValue(value=False),
        descriptors=[_descriptor(limit) for limit in local],
        rate_limits=[_rate_limit(limit) for limit in local],
        max_dynamic_descriptors=uint32(KEYS_MAX),
        rate_limited_as_resource_exhausted=True,
    )


def shared_limits(limits: Iterable[RateLimit]) -> list[Mapping[str, Any]]:
    """The limits that all gateways count together, as metadata."""
    return [_shared(limit) for limit in limits if limit.shared]


def _descriptor(limit: RateLimit) -> ratelimit_pb2.LocalRateLimitDescriptor:
    entry = ratelimit_pb2.RateLimitDescriptor.Entry
    entries = [entry(key=LIMIT_KEY, value=limit.name)]
    entries += [entry(key=header.name, value="true") for header in limit.headers]
    entries += [entry(key=name) for name in limit.distinct]  # no value: any, each by itself
    bucket = _bucket(limit.requests, limit.unit.seconds * 1_000)
    return ratelimit_pb2.LocalRateLimitDescriptor(entries=entries, token_bucket=bucket)


def _rate_limit(limit: RateLimit) -> route_components_pb2.RateLimit:
    message = route_components_pb2.RateLimit()
    name = message.actions.add().generic_key
    name.descriptor_key, name.descriptor_value = LIMIT_KEY, limit.name
    for header in limit.headers:
        message.actions.add().header_value_match.CopyFrom(_header(header))
    for distinct in limit.distinct:
        sent = message.actions.add().request_headers
        sent.header_name = sent.descriptor_key = distinct
    return message


def _header(header: HeaderMatch) -> route_components_pb2.RateLimit.Action.HeaderValueMatch:
    matcher = route_components_pb2.HeaderMatcher(name=header.name)
    if header.kind is MatchKind.REGEX:
        matcher.string_match.safe_regex.regex = header.value
    else:
        matcher.string_match.exact = header.value
    return route_components_pb2.RateLimit.Action.HeaderValueMatch(
        descriptor_key=header.name, descriptor_value="true", headers=[matcher]
    )


def _bucket(requests: int, unit_ms: int) -> token_bucket_pb2.TokenBucket:
    return token_bucket_pb2.TokenBucket(
        max_tokens=requests, tokens_per_fill=uint32(requests), fill_interval=duration(unit_ms)
    )


def _shared(limit: RateLimit) -> Mapping[str, Any]:
    return {
        "name": limit.name,
        "requests": limit.requests,
        "unit": limit.unit.value,
        "first_share_per_million": limit.first_share_ppm,
        "headers": [
            *({"name": header.name, header.kind.value: header.value} for header in limit.headers),
            *({"name": name, "distinct": True} for name in limit.distinct),
        ],
    }
