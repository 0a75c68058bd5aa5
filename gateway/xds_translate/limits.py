"""Rate limits of a route.

Decides: which of Envoy's local rate limits this gateway acts on: descriptors that each go with the
rate limit at the same place, by a name, by conditions on headers, and by headers whose values are
counted apart. Limits that all gateways share come with our own metadata.
Leaves to others: counting (the core), shares of shared limits (``gateway.quota``).
Invariants: what would count other calls here than in Envoy is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.type.v3 import token_bucket_pb2
from google.protobuf import any_pb2, json_format, struct_pb2

from gateway.xds_translate.fields import (
    UnsupportedFieldError,
    join,
    only,
    optional_ms,
    optional_value,
    unpack,
    whole,
)

FILTER = "envoy.filters.http.local_ratelimit"

_UNITS = {1_000: "second", 60_000: "minute", 3_600_000: "hour", 86_400_000: "day"}
_SHARED = "metadata.federation.gateway.rate_limits"
_SHARED_FIELDS = frozenset({"name", "requests", "unit", "first_share_per_million", "headers"})


def local_limits(config: any_pb2.Any, path: str) -> list[dict[str, Any]]:
    """The limits of a route's own configuration of the filter."""
    local = unpack(config, local_rate_limit_pb2.LocalRateLimit, path)
    only(
        local,
        path,
        reads=(
            "filter_enabled",
            "filter_enforced",
            "descriptors",
            "rate_limits",
            "max_dynamic_descriptors",
            "rate_limited_as_resource_exhausted",
        ),
        # Calls without a descriptor are not limited here; the bucket for them is Envoy's wish.
        ignores=("stat_prefix", "token_bucket", "always_consume_default_token_bucket"),
    )
    for name in ("filter_enabled", "filter_enforced"):
        if not _always(getattr(local, name)):
            raise UnsupportedFieldError(join(path, name), "must be 100 percent")
    if not local.rate_limited_as_resource_exhausted:
        where = join(path, "rate_limited_as_resource_exhausted")
        raise UnsupportedFieldError(where, "must be true: that is what clients are told here")
    if len(local.descriptors) != len(local.rate_limits):
        raise UnsupportedFieldError(
            join(path, "descriptors"), "each must go with the rate limit at its place"
        )
    keys = optional_value(local, "max_dynamic_descriptors")
    return [
        _limit(descriptor, rate_limit, f"{path}.descriptors[{index}]")
        | ({} if keys is None else {"keys_max": keys})
        for index, (descriptor, rate_limit) in enumerate(
            zip(local.descriptors, local.rate_limits, strict=True)
        )
    ]


def shared_limits(own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The limits that all gateways count together, out of our own metadata."""
    listed = own.get("rate_limits")
    if listed is None:
        return []
    if not isinstance(listed, struct_pb2.ListValue):
        raise UnsupportedFieldError(_SHARED, "must be a list")
    return [
        _shared(entry, f"{_SHARED}[{index}]")
        for index, entry in enumerate(json_format.MessageToDict(listed))
    ]


def _shared(entry: Any, path: str) -> dict[str, Any]:
    if not isinstance(entry, dict) or not entry.keys() <= _SHARED_FIELDS:
        raise UnsupportedFieldError(path, f"must have no fields but {sorted(_SHARED_FIELDS)}")
    counts = {
        name: whole(entry[name], join(path, name))
        for name in ("requests", "first_share_per_million")
        if name in entry
    }
    return {**entry, **counts, "global": True}


def _always(percent: base_pb2.RuntimeFractionalPercent) -> bool:
    return bool(percent.default_value.numerator == 100 and not percent.default_value.denominator)


def _limit(
    descriptor: ratelimit_pb2.LocalRateLimitDescriptor,
    rate_limit: route_components_pb2.RateLimit,
    path: str,
) -> dict[str, Any]:
    only(descriptor, path, reads=("entries", "token_bucket"))
    only(rate_limit, path, reads=("actions",))
    if len(descriptor.entries) != len(rate_limit.actions) or not descriptor.entries:
        raise UnsupportedFieldError(join(path, "entries"), "each must have its action")
    first = rate_limit.actions[0].generic_key
    _same(descriptor.entries[0], first.descriptor_key, first.descriptor_value, path)
    pairs = zip(descriptor.entries[1:], rate_limit.actions[1:], strict=True)
    return {
        "name": first.descriptor_value,
        **_rate(descriptor.token_bucket, join(path, "token_bucket")),
        "headers": [
            _header(entry, action, f"{path}.entries[{index}]")
            for index, (entry, action) in enumerate(pairs, start=1)
        ],
    }


def _same(entry: ratelimit_pb2.RateLimitDescriptor.Entry, key: str, value: str, path: str) -> None:
    if not key or (entry.key, entry.value) != (key, value):
        raise UnsupportedFieldError(path, f"must be what its action makes: {key!r} {value!r}")


def _rate(bucket: token_bucket_pb2.TokenBucket, path: str) -> dict[str, Any]:
    unit = _UNITS.get(optional_ms(bucket, "fill_interval") or 0)
    if unit is None:
        raise UnsupportedFieldError(join(path, "fill_interval"), f"must be one of {_UNITS} ms")
    if optional_value(bucket, "tokens_per_fill") != bucket.max_tokens:
        raise UnsupportedFieldError(join(path, "tokens_per_fill"), "must be max_tokens")
    return {"requests": bucket.max_tokens, "unit": unit}


def _header(
    entry: ratelimit_pb2.RateLimitDescriptor.Entry,
    action: route_components_pb2.RateLimit.Action,
    path: str,
) -> dict[str, Any]:
    kind = action.WhichOneof("action_specifier")
    if kind == "request_headers":
        sent = action.request_headers
        only(sent, path, reads=("header_name", "descriptor_key"))
        _same(entry, sent.descriptor_key, "", path)
        return {"name": sent.header_name.lower(), "distinct": True}
    if kind != "header_value_match":
        raise UnsupportedFieldError(path, f"must be of a header's value, got {kind}")
    match = action.header_value_match
    only(match, path, reads=("descriptor_key", "descriptor_value", "headers"))
    _same(entry, match.descriptor_key, match.descriptor_value, path)
    if len(match.headers) != 1:
        raise UnsupportedFieldError(path, "must be of one header")
    header = match.headers[0]
    only(header, path, reads=("name", "string_match"))
    only(header.string_match, path, reads=("exact", "safe_regex"))
    name = header.name.lower()
    if header.string_match.HasField("safe_regex"):
        return {"name": name, "regex": header.string_match.safe_regex.regex}
    return {"name": name, "exact": header.string_match.exact}
