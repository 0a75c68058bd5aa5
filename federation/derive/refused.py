"""Statuses of routes that an API server takes and that cannot be read here.

Decides: what their parents say of them: not accepted, or, where the last good version is still in
force, that it is (``Fall Back``, as the Gateway API calls it).
Leaves to others: why they cannot be read (``wire.manifests``), everything about routes that can.
Invariants: only Gateways that are served here speak; statuses of other objects stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from federation.model.conditions import Condition, ConditionStatus
from federation.model.objects import ObjectKey, ObjectSnapshot, RejectedObject
from federation.model.objects.route import ParentReference
from federation.model.status import ObjectStatus, ParentStatus

UNSUPPORTED = "UnsupportedValue"


def with_refused(
    statuses: Mapping[ObjectKey, ObjectStatus], objects: ObjectSnapshot, *, controller: str
) -> dict[ObjectKey, ObjectStatus]:
    """``statuses`` and those of the routes among what ``objects`` could not read."""
    found = dict(statuses)
    for key, refused in objects.rejected.items():
        if isinstance(key, ObjectKey) and refused.parents:
            if (known := statuses.get(key)) is not None:
                found[key] = _fallen_back(known, refused)
            elif parents := tuple(_refusals(key, refused, statuses, controller)):
                found[key] = ObjectStatus(observed_generation=refused.generation, parents=parents)
    return found


def _fallen_back(known: ObjectStatus, refused: RejectedObject) -> ObjectStatus:
    stays = f"Fall Back: {refused.why}; what was good before stays in force"
    told = _condition("PartiallyInvalid", ConditionStatus.TRUE, refused, stays)
    parents = tuple(
        parent.model_copy(
            update={
                "conditions": (
                    *(entry for entry in parent.conditions if entry.type != told.type),
                    told,
                )
            }
        )
        for parent in known.parents
    )
    return known.model_copy(update={"parents": parents})


def _refusals(
    key: ObjectKey,
    refused: RejectedObject,
    statuses: Mapping[ObjectKey, ObjectStatus],
    controller: str,
) -> Iterator[ParentStatus]:
    told = _condition("Accepted", ConditionStatus.FALSE, refused, refused.why)
    for ref in refused.parents:
        if _gateway(key, ref) in statuses:
            yield ParentStatus(parent_ref=ref, controller_name=controller, conditions=(told,))


def _gateway(route: ObjectKey, ref: ParentReference) -> ObjectKey:
    return ObjectKey(ref.group, ref.kind, ref.namespace or route.namespace, ref.name)


def _condition(
    type_: str, status: ConditionStatus, refused: RejectedObject, message: str
) -> Condition:
    return Condition(
        type=type_,
        status=status,
        reason=UNSUPPORTED,
        message=message,
        observed_generation=refused.generation,
    )
