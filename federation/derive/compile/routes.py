"""GRPCRoutes as a whole: rules, attachment and status.

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
from federation.derive.compile.listeners import ListenersByGateway
from federation.derive.compile.problem import Problem, condition, verdict
from federation.derive.compile.rules import CompiledRule, compile_rule
from federation.model.conditions import Condition
from federation.model.objects import BackendTrafficPolicy, GRPCRoute
from federation.model.status import ObjectStatus, ParentStatus

PROBLEMS_SHOWN = 5
"""Problems spelled out in one condition; the rest is counted."""


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route with its rules and what its parents said."""

    source: GRPCRoute
    rules: tuple[CompiledRule, ...]
    outcomes: tuple[ParentOutcome, ...]

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
    listeners: ListenersByGateway,
    source: GRPCRoute,
    policy: BackendTrafficPolicy | None,
) -> CompiledRoute:
    """The route under ``policy`` at the parents it asks for."""
    return CompiledRoute(
        source=source,
        rules=tuple(
            compile_rule(index, source, rule, position=position, policy=policy)
            for position, rule in enumerate(source.spec.rules)
        ),
        outcomes=attach(index, listeners, source),
    )


def route_status(index: Index, route: CompiledRoute) -> ObjectStatus:
    """The status of the route: an entry for each parent that is ours."""
    resolved = _resolved_refs(route)
    partial = _partially_invalid(route)
    return ObjectStatus(
        observed_generation=route.source.metadata.generation,
        parents=tuple(
            ParentStatus(
                parent_ref=outcome.ref,
                controller_name=index.settings.controller_name,
                conditions=(_accepted(route, outcome), resolved, *partial),
            )
            for outcome in route.outcomes
        ),
    )


def _accepted(route: CompiledRoute, outcome: ParentOutcome) -> Condition:
    names = ", ".join(entry.listener.spec.name for entry in outcome.attached)
    return verdict(
        route.source,
        "Accepted",
        outcome.problem or route.rejection,
        message=f"attached to listener {names}",
    )


def _resolved_refs(route: CompiledRoute) -> Condition:
    problems = [problem for rule in route.rules for problem in rule.problems]
    if not problems:
        return condition(route.source, "ResolvedRefs", True, "ResolvedRefs")
    message = _joined([problem.message for problem in problems])
    return condition(route.source, "ResolvedRefs", False, problems[0].reason, message)


def _partially_invalid(route: CompiledRoute) -> tuple[Condition, ...]:
    faulty = [rule for rule in route.rules if rule.faults]
    if not faulty or route.rejection is not None:
        return ()
    numbers = ", ".join(str(rule.position) for rule in faulty)
    faults = _joined([fault for rule in faulty for fault in rule.faults])
    message = f"Dropped Rule {numbers}: {faults}"
    return (condition(route.source, "PartiallyInvalid", True, "UnsupportedValue", message),)


def _joined(messages: Sequence[str]) -> str:
    shown = "; ".join(messages[:PROBLEMS_SHOWN])
    hidden = len(messages) - PROBLEMS_SHOWN
    return f"{shown}; and {hidden} more" if hidden > 0 else shown
