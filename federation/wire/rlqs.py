"""Envoy's Rate Limit Quota Service (``envoy.service.rate_limit_quota.v3``), both directions.

Decides: how buckets are spelled: ``limit`` is the limit's name, ``key`` sixteen hexadecimal digits
for the values of its headers (absent: the limit itself). A share is a number of requests for each
of the limit's units, without an end: a gateway that hears nothing more goes on with it.
Leaves to others: streams (``quota``), shares (``derive.quota``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envoy.service.rate_limit_quota.v3 import rlqs_pb2
from envoy.type.v3 import ratelimit_unit_pb2

from federation.model.quota import Assignment, Bucket, SharedLimit, Usage
from federation.model.snapshot import LimitUnit, RateLimit, Snapshot

SERVICE = "envoy.service.rate_limit_quota.v3.RateLimitQuotaService"
METHOD = "StreamRateLimitQuotas"
DOMAIN = "federation"
"""The domain of our limits; reports of another are a mistake."""

LIMIT, KEY = "limit", "key"

_UNITS = {
    LimitUnit.SECOND: ratelimit_unit_pb2.SECOND,
    LimitUnit.MINUTE: ratelimit_unit_pb2.MINUTE,
    LimitUnit.HOUR: ratelimit_unit_pb2.HOUR,
    LimitUnit.DAY: ratelimit_unit_pb2.DAY,
}


class ReportError(ValueError):
    """A report that cannot be read; the message names the field."""


def shared_limits(snapshot: Snapshot) -> tuple[SharedLimit, ...]:
    """The limits of ``snapshot`` that gateways share, each once, by name."""
    found: dict[str, RateLimit] = {
        limit.name: limit
        for table in snapshot.route_tables
        for host in table.virtual_hosts
        for route in host.routes
        for limit in route.rate_limits
        if limit.shared
    }
    return tuple(
        SharedLimit(name, limit.requests, limit.unit, keyed=bool(limit.distinct))
        for name, limit in sorted(found.items())
    )


def read_reports(message: rlqs_pb2.RateLimitQuotaUsageReports) -> list[Usage]:
    """What a gateway reports. Raises ``ReportError``."""
    if message.domain not in ("", DOMAIN):
        raise ReportError(f'domain: must be "{DOMAIN}", got "{message.domain}"')
    usages = []
    for index, usage in enumerate(message.bucket_quota_usages):
        identity = dict(usage.bucket_id.bucket)
        if LIMIT not in identity or not identity.keys() <= {LIMIT, KEY}:
            where = f"bucket_quota_usages[{index}].bucket_id"
            raise ReportError(f"{where}: must have {LIMIT} and may have {KEY}, got {identity}")
        elapsed = usage.time_elapsed
        usages.append(
            Usage(
                bucket=Bucket(identity[LIMIT], identity.get(KEY, "")),
                passed=usage.num_requests_allowed,
                refused=usage.num_requests_denied,
                elapsed_ms=elapsed.seconds * 1_000 + elapsed.nanos // 1_000_000,
            )
        )
    return usages


def response(
    assignments: Iterable[Assignment], limits: Mapping[str, SharedLimit]
) -> rlqs_pb2.RateLimitQuotaResponse:
    """What a gateway is told. A bucket of a limit that is gone is left to its configuration."""
    message = rlqs_pb2.RateLimitQuotaResponse()
    for assignment in assignments:
        limit = limits.get(assignment.bucket.limit)
        if limit is None:
            continue
        action = message.bucket_action.add()
        action.bucket_id.bucket[LIMIT] = assignment.bucket.limit
        if assignment.bucket.key:
            action.bucket_id.bucket[KEY] = assignment.bucket.key
        if assignment.share is None:
            action.abandon_action.SetInParent()
            continue
        strategy = action.quota_assignment_action.rate_limit_strategy.requests_per_time_unit
        strategy.requests_per_time_unit = assignment.share
        strategy.time_unit = _UNITS[limit.unit]
    return message
