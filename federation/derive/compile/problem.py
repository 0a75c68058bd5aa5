"""Verdicts on objects: a problem has a reason for machines and a sentence for people.

Decides: how verdicts become conditions.
Leaves to others: when they hold (the siblings of this file).
Invariants: a condition always carries the generation of the object it was derived from.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.model.conditions import Condition, ConditionStatus
from federation.model.objects import ApiObject


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something wrong: ``reason`` in the specifications' words, ``message`` what, where and why."""

    reason: str
    message: str


def condition(
    source: ApiObject,
    condition_type: str,
    status: bool | None,
    reason: str,
    message: str = "",
) -> Condition:
    """A condition on ``source``; ``None`` is the status Unknown."""
    statuses = {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE}
    return Condition(
        type=condition_type,
        status=ConditionStatus.UNKNOWN if status is None else statuses[status],
        reason=reason,
        message=message,
        observed_generation=source.metadata.generation,
    )


def verdict(
    source: ApiObject,
    condition_type: str,
    problem: Problem | None,
    *,
    good: str | None = None,
    message: str = "",
) -> Condition:
    """``condition_type`` True (reason ``good``, else the type itself) unless there is a problem."""
    if problem is not None:
        return condition(source, condition_type, False, problem.reason, problem.message)
    return condition(source, condition_type, True, good or condition_type, message)
