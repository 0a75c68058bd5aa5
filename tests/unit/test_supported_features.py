"""What a GatewayClass says is served: as Kubernetes spells it, and as the last report shows it."""

from __future__ import annotations

from pathlib import Path

import yaml

from federation.derive.compile.features import supported_features
from federation.model.conditions import Condition, ConditionStatus
from federation.model.status import ObjectStatus
from federation.wire.statuses import status_document, stored_status
from tests.conformance.gateway_api import page

ALL = supported_features(dedicated=True)
PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
CORE = {"Gateway", "GRPCRoute", "HTTPRoute", "ReferenceGrant"}
OF_NO_PROFILE = {"GRPCRouteNamedRouteRule"}
"""The suite tests it, and counts it nowhere."""


def test_they_are_sorted_and_fit_into_a_status() -> None:
    """Gateway API, ``GatewayClassStatus.supportedFeatures``: ascending order, at most 64."""
    assert list(ALL) == sorted(set(ALL))
    assert len(ALL) <= 64
    assert set(supported_features(dedicated=False)) < set(ALL)


def test_they_are_written_and_read_back() -> None:
    accepted = Condition(
        type="Accepted",
        status=ConditionStatus.TRUE,
        reason="Accepted",
        message="",
        observed_generation=1,
    )
    status = ObjectStatus(conditions=(accepted,), supported_features=("Gateway", "GRPCRoute"))
    document = status_document(status)
    assert document["supportedFeatures"] == [{"name": "Gateway"}, {"name": "GRPCRoute"}]
    assert stored_status(document, controller="any") == status


def test_the_last_report_has_all_of_them_passing() -> None:
    profiles = {
        entry["name"]: entry for entry in yaml.safe_load(page.REPORT.read_text())["profiles"]
    }
    assert profiles.keys() == {"GATEWAY-GRPC", "GATEWAY-HTTP"}
    shown = CORE | OF_NO_PROFILE
    for profile in profiles.values():
        assert profile["core"]["result"] == profile["extended"]["result"] == "success"
        assert "skippedTests" not in profile["core"] | profile["extended"]
        shown |= set(profile["extended"]["supportedFeatures"])
    assert shown == set(ALL)


def test_the_page_says_what_the_report_does() -> None:
    assert page.section() in PAGE.read_text()
