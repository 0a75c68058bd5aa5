"""What a GatewayClass says is served: as Kubernetes spells it."""

from __future__ import annotations

from federation.derive.compile.features import supported_features
from federation.model.conditions import Condition, ConditionStatus
from federation.model.status import ObjectStatus
from federation.wire.statuses import status_document, stored_status

ALL = supported_features(dedicated=True)


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
