"""What a gateway writes into a refusal, and what the agent reads out of it."""

from __future__ import annotations

import pytest

from federation.discovery.catalog import ResourceType
from federation.discovery.subscription import Subscription
from gateway.xds_session import ERROR_CHARS_MAX, error_text


def read_back(names: list[str], text: str) -> dict[str, str]:
    """The refusals that the agent understands for a response with ``names``."""
    subscription = Subscription(ResourceType.CLUSTERS)
    subscription.sent("1", dict.fromkeys(names, "v1"), (), introduces=False)
    subscription.answer("1", text)
    return {name: refusal.message for name, refusal in subscription.refusals.items()}


def test_each_refused_resource_keeps_its_message() -> None:
    refused = {"a": "lb_policy: must be LEAST_REQUEST", "b": "type: must be EDS"}
    assert read_back(["a", "b", "c"], error_text(refused)) == refused


@pytest.mark.parametrize("count", [2, 60, 400])
def test_no_refused_resource_is_taken_for_accepted_in_a_long_refusal(count: int) -> None:
    refused = {f"import/app/users-{n}/9090/us-east-1": "field: " + "x" * 5000 for n in range(count)}
    text = error_text(refused)
    assert len(text) <= ERROR_CHARS_MAX
    assert read_back(sorted(refused), text).keys() == refused.keys()
