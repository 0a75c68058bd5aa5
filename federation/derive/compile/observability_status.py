"""Statuses of ObservabilityPolicies, and what their targets say about them.

Decides: the conditions of a policy, and those of a Gateway, a listener or a route that one holds.
Leaves to others: what became of a policy (``observability``), whether gateways took it
(``derive.programmed``).
Invariants: a policy for a Gateway of another controller gets no entry; references never change
acceptance.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.derive.compile.gateways import PENDING, PENDING_MESSAGE
from federation.derive.compile.index import Index
from federation.derive.compile.observability import Assigned, Told, policy_target
from federation.derive.compile.problem import Problem, condition, verdict
from federation.model.conditions import Condition
from federation.model.objects import (
    ApiObject,
    Gateway,
    ObjectKey,
    ObservabilityPolicy,
    ParentReference,
)
from federation.model.status import AncestorStatus, ListenerStatus, ObjectStatus

AFFECTED = f"{ObservabilityPolicy.GROUP}/{ObservabilityPolicy.KIND}Affected"
"""Condition of a target that a policy holds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one policy; ``problem`` is why it is not accepted."""

    problem: Problem | None = None
    unresolved: Problem | None = None
    conflict: Problem | None = None
    note: str = ""


def outcomes(
    policies: tuple[ObservabilityPolicy, ...], assigned: Assigned, told: Told
) -> dict[ObjectKey, tuple[ObservabilityPolicy, Outcome]]:
    """What became of each of ``policies`` that is ours to judge."""
    return {
        it.key: (
            it,
            Outcome(
                problem=assigned.problems.get(it.key),
                unresolved=told.unresolved.get(it.key),
                conflict=told.conflicts.get(it.key),
                note=told.notes.get(it.key, ""),
            ),
        )
        for it in policies
        if it.key not in assigned.foreign
    }


def observability_status(
    index: Index, policy: ObservabilityPolicy, outcome: Outcome
) -> ObjectStatus:
    """The status of a policy; its ancestor is the object that it targets."""
    conditions = [verdict(policy, "Accepted", outcome.problem, message=outcome.note)]
    if outcome.problem is None:
        conditions.append(verdict(policy, "ResolvedRefs", outcome.unresolved))
        conditions.append(condition(policy, "Programmed", False, PENDING, PENDING_MESSAGE))
    if outcome.problem is None and outcome.conflict is not None:
        found = outcome.conflict
        conditions.append(condition(policy, "Conflicted", True, found.reason, found.message))
    target = policy_target(policy)
    ancestor = AncestorStatus(
        ancestor_ref=ParentReference(
            group=target.group,
            kind=target.kind,
            namespace=target.namespace,
            name=target.name,
            section_name=policy.spec.target_ref.section_name,
        ),
        controller_name=index.settings.controller_name,
        conditions=tuple(conditions),
    )
    return ObjectStatus(observed_generation=policy.metadata.generation, ancestors=(ancestor,))


def affected(source: ApiObject, policy: ObjectKey | None) -> tuple[Condition, ...]:
    """That a policy says what is told about the calls of ``source``; gone with the policy."""
    if policy is None:
        return ()
    message = f"{policy} says what is told about the calls of this {source.KIND}"
    return (condition(source, AFFECTED, True, "PolicyAffected", message),)


def with_observed(gateway: Gateway, status: ObjectStatus, assigned: Assigned) -> ObjectStatus:
    """The status of ``gateway`` with the policies that hold it and its listeners."""
    whole = assigned.of(gateway.key)
    ports = {entry.name: entry.port for entry in gateway.spec.listeners}

    def of_listener(entry: ListenerStatus) -> ListenerStatus:
        policy = assigned.of(gateway.key, ports[entry.name])
        if policy is None:
            return entry
        conditions = (*entry.conditions, *affected(gateway, policy.key))
        return entry.model_copy(update={"conditions": conditions})

    return status.model_copy(
        update={
            "conditions": (
                *status.conditions,
                *affected(gateway, whole.key if whole is not None else None),
            ),
            "listeners": tuple(map(of_listener, status.listeners)),
        }
    )
