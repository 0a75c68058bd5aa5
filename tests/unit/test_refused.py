"""Routes that an API server takes and that cannot be read here: what their status says."""

from __future__ import annotations

from federation.derive.refused import with_refused
from federation.model.conditions import Condition, ConditionStatus
from federation.model.objects import ObjectKey, ObjectSnapshot, ParentReference, RejectedObject
from federation.model.objects.gateway import GATEWAY_GROUP
from federation.model.status import ObjectStatus, ParentStatus

EDGE = ObjectKey(GATEWAY_GROUP, "Gateway", "infra", "edge")
ROUTE = ObjectKey(GATEWAY_GROUP, "GRPCRoute", "app", "split")
OURS = "federation.dev/gateway-controller"
PARENT = ParentReference(namespace="infra", name="edge")
FOREIGN = ParentReference(namespace="infra", name="other")
WHY = "spec.rules[0].backendRefs: weight sum is zero"
REFUSED = RejectedObject(
    "https://here", f"https://here: {WHY}", 7, "uid", parents=(PARENT, FOREIGN), why=WHY
)
SERVED = {EDGE: ObjectStatus(observed_generation=1)}


def test_only_gateways_that_are_served_speak() -> None:
    objects = ObjectSnapshot(rejected={ROUTE: REFUSED})
    found = with_refused(SERVED, objects, controller=OURS)
    assert found[EDGE] is SERVED[EDGE]
    (parent,) = found[ROUTE].parents
    assert (parent.parent_ref, parent.controller_name) == (PARENT, OURS)
    (told,) = parent.conditions
    assert (told.type, told.status, told.reason) == ("Accepted", "False", "UnsupportedValue")
    assert (told.message, told.observed_generation) == (WHY, 7)
    assert with_refused({}, objects, controller=OURS) == {}


def test_what_was_good_before_is_said_to_stay() -> None:
    accepted = Condition(
        type="Accepted",
        status=ConditionStatus.TRUE,
        reason="Accepted",
        message="",
        observed_generation=6,
    )
    before = ParentStatus(parent_ref=PARENT, controller_name=OURS, conditions=(accepted,))
    known = {**SERVED, ROUTE: ObjectStatus(observed_generation=6, parents=(before,))}
    objects = ObjectSnapshot(rejected={ROUTE: REFUSED})
    once = with_refused(known, objects, controller=OURS)
    (parent,) = once[ROUTE].parents
    assert parent.conditions[0] == accepted
    told = parent.conditions[1]
    assert (told.type, told.status, told.reason) == ("PartiallyInvalid", "True", "UnsupportedValue")
    assert told.message == f"Fall Back: {WHY}; what was good before stays in force"
    assert told.observed_generation == 7
    assert with_refused(once, objects, controller=OURS) == once


def test_what_has_no_key_or_no_parents_has_no_status() -> None:
    objects = ObjectSnapshot(
        rejected={"here:3": REFUSED, ROUTE: RejectedObject("https://here", WHY)}
    )
    assert with_refused(SERVED, objects, controller=OURS) == SERVED
