"""The Rate Limit Quota Service: what is read from reports, what assignments say."""

from __future__ import annotations

import pytest
from envoy.service.rate_limit_quota.v3 import rlqs_pb2
from envoy.type.v3 import ratelimit_unit_pb2

from federation.model.quota import Assignment, Bucket, SharedLimit, Usage
from federation.model.snapshot import LimitUnit
from federation.wire import rlqs

Usages = rlqs_pb2.RateLimitQuotaUsageReports


def report(domain: str = rlqs.DOMAIN, **bucket: str) -> Usages:
    message = Usages(domain=domain)
    usage = message.bucket_quota_usages.add(num_requests_allowed=3, num_requests_denied=4)
    usage.bucket_id.bucket.update(bucket)
    usage.time_elapsed.FromMilliseconds(1_500)
    return message


def test_reports_are_read() -> None:
    assert rlqs.read_reports(report(limit="l")) == [Usage(Bucket("l"), 3, 4, 1_500)]
    assert rlqs.read_reports(report("", limit="l", key="ff")) == [
        Usage(Bucket("l", "ff"), 3, 4, 1_500)
    ]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (report("else", limit="l"), 'domain: must be "federation", got "else"'),
        (report(key="ff"), "bucket_quota_usages[0].bucket_id: must have limit and may have key"),
        (report(limit="l", more="x"), "bucket_quota_usages[0].bucket_id: must have limit"),
    ],
)
def test_other_reports_are_refused_by_path(message: Usages, text: str) -> None:
    with pytest.raises(rlqs.ReportError) as refused:
        rlqs.read_reports(message)
    assert str(refused.value).startswith(text)


def test_assignments_are_rates_without_an_end() -> None:
    limits = {"l": SharedLimit("l", 100, LimitUnit.HOUR, keyed=True)}
    told = [
        Assignment(Bucket("l"), 50),
        Assignment(Bucket("l", "ff"), None),
        Assignment(Bucket("gone"), 1),
    ]
    first, second = rlqs.response(told, limits).bucket_action
    assert dict(first.bucket_id.bucket) == {"limit": "l"}
    action = first.quota_assignment_action
    assert not action.HasField("assignment_time_to_live")
    rate = action.rate_limit_strategy.requests_per_time_unit
    assert (rate.requests_per_time_unit, rate.time_unit) == (50, ratelimit_unit_pb2.HOUR)
    assert dict(second.bucket_id.bucket) == {"limit": "l", "key": "ff"}
    assert second.HasField("abandon_action")
