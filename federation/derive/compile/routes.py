"""Routes as a whole: rules, attachment and status.

Decides: the conditions of a route at each parent.
Leaves to others: rules (``rules``), parents (``attachment``), precedence (``tables``).
Invariants: a route with a fault in some rules serves the others and says ``PartiallyInvalid``; one
with a fault in all of them is not accepted; references never change acceptance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from federation.derive.compile.attachment import ParentOutcome, attach
from federation.derive.compile.index import Index
from federation.derive.compile.listeners import Listeners
from federation.derive.compile.passthrough import NOTE, PassedOn, passed_on
from federation.derive.compile.problem import Problem, condition, verdict
from federation.derive.compile.rules import CompiledRule, compile_rule
from federation.model.conditions import Condition
from federation.model.objects import AnyRoute, AnyRule, BackendTrafficPolicy, ObjectKey
from federation.model.status import ObjectStatus, ParentStatus

AFFECTED = f"{BackendTrafficPolicy.GROUP}/{BackendTrafficPolicy.KIND}Affected"
"""Condition of a route that a policy holds."""

PROBLEMS_SHOWN = 5
"""Problems spelled out in one condition; the rest is counted."""


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route with its rules, what its parents said, and the policy that holds it."""

    source: AnyRoute
    rules: tuple[CompiledRule, ...]
    outcomes: tuple[ParentOutcome, ...]
    passed_on: PassedOn
    policy: ObjectKey | None = None

    @property
    def answers(self) -> bool:
        """Whether any call can reach a rule of the route."""
        return any(outcome.attached for outcome in self.outcomes) and any(
            rule.routes for rule in self.rules
        )

    @property
    def rejection(self) -> Problem | None:
        """The fault that keeps the whole route from being accepted, if every rule has one."""
        faulty = [rule for rule in self.rules if rule.faults]
        if not faulty or len(faulty) < len(self.rules):
            return None
        return Problem("UnsupportedValue", _joined([f for rule in faulty for f in rule.faults]))


def compile_route(
    index: Index,
    listeners: Listeners,
    source: AnyRoute,
    policy: BackendTrafficPolicy | None,
) -> CompiledRoute:
    """The route under ``policy`` at the parents it asks for."""
    of_kind: tuple[AnyRule, ...] = source.spec.rules
    rules = tuple(
        compile_rule(index, source, rule, position=position, policy=policy)
        for position, rule in enumerate(of_kind)
    )
    return CompiledRoute(
        source=source,
        rules=rules,
        outcomes=attach(index, listeners, source),
        passed_on=passed_on(source, rules),
        policy=policy.key if policy is not None else None,
    )


def route_status(
    index: Index, route: CompiledRoute, further: tuple[Condition, ...] = ()
) -> ObjectStatus:
    """The status of the route: an entry for each parent that is ours.

    ``further`` conditions are the same at each.
    """
    resolved = _resolved_refs(route)
    return ObjectStatus(
        observed_generation=route.source.metadata.generation,
        parents=tuple(
            ParentStatus(
                parent_ref=outcome.ref,
                controller_name=index.settings.controller_name,
                conditions=(
                    _accepted(route, outcome),
                    resolved,
                    *_partially_invalid(route, outcome),
                    *_affected(route),
                    *further,
                ),
            )
            for outcome in route.outcomes
        ),
    )


def _accepted(route: CompiledRoute, outcome: ParentOutcome) -> Condition:
    names = ", ".join(entry.listener.spec.name for entry in outcome.attached)
    message = f"attached to listener {names}"
    problem = outcome.problem or route.rejection
    if any(entry.listener.passthrough for entry in outcome.attached):
        message += f"; {route.passed_on.note}"
        problem = problem or _nothing_passed(route, outcome)
    return verdict(route.source, "Accepted", problem, message=message)


def _nothing_passed(route: CompiledRoute, outcome: ParentOutcome) -> Problem | None:
    """No rule can be followed where TLS passes through, and there is no other listener."""
    others = any(not entry.listener.passthrough for entry in outcome.attached)
    if others or route.passed_on.position is not None:
        return None
    faults = [f"rule {position}: {reason}" for position, reason in route.passed_on.dropped]
    return Problem("UnsupportedValue", f"{NOTE}; {_joined(faults)}")


def _resolved_refs(route: CompiledRoute) -> Condition:
    problems = [problem for rule in route.rules for problem in rule.problems]
    if not problems:
        return condition(route.source, "ResolvedRefs", True, "ResolvedRefs")
    message = _joined([problem.message for problem in problems])
    return condition(route.source, "ResolvedRefs", False, problems[0].reason, message)


def _partially_invalid(route: CompiledRoute, outcome: ParentOutcome) -> tuple[Condition, ...]:
    if any(entry.listener.passthrough for entry in outcome.attached):
        dropped = route.passed_on.dropped
        if not dropped or _nothing_passed(route, outcome) is not None:
            return ()
        where = "where TLS passes through: "
    else:
        found = [(rule.position, fault) for rule in route.rules for fault in rule.faults]
        dropped, where = tuple(found), ""
        if not dropped or route.rejection is not None:
            return ()
    numbers = ", ".join(str(position) for position in dict.fromkeys(entry[0] for entry in dropped))
    faults = _joined([reason for _, reason in dropped])
    message = f"Dropped Rule {numbers}: {where}{faults}"
    return (condition(route.source, "PartiallyInvalid", True, "UnsupportedValue", message),)


def _affected(route: CompiledRoute) -> tuple[Condition, ...]:
    """That a policy changes what the route says by itself (GEP-713); gone with the policy."""
    if route.policy is None:
        return ()
    message = f"{route.policy} holds the calls of this route"
    return (condition(route.source, AFFECTED, True, "PolicyAffected", message),)


def _joined(messages: Sequence[str]) -> str:
    shown = "; ".join(messages[:PROBLEMS_SHOWN])
    hidden = len(messages) - PROBLEMS_SHOWN
    return f"{shown}; and {hidden} more" if hidden > 0 else shown
