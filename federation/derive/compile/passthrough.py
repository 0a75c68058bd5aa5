"""Routes at listeners that pass TLS through: what of a route can be followed there.

Decides: which rule gets the connections, and which rules are dropped and why.
Leaves to others: attachment and hostnames (``attachment``), chains (``tables``), statuses.
Invariants: a gateway that does not terminate TLS sees the server name and nothing else. So all
connections go to the backends of one rule, the first that asks for nothing else: a match of methods
counts as "whatever this backend serves", a match of headers or a filter drops the rule, since going
without it would do what nobody asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic.alias_generators import to_camel

from federation.derive.compile.rules import CompiledRule
from federation.derive.compile.upstreams import UNAVAILABLE, UpstreamKind
from federation.model.objects import AnyRoute, AnyRule, BackendTrafficPolicy
from federation.model.snapshot import Forward, Weighted

POLICY_FIELDS_THERE = frozenset(
    {"target_ref", "load_balancer", "timeout", "failover", "health_check"}
)
"""Parts of a policy that mean something for connections, whose calls nobody sees."""

NOTE = "TLS passes through: the server name alone chooses, methods and headers cannot be seen"


@dataclass(frozen=True, slots=True)
class PassedOn:
    """What connections get: ``destinations`` of rule ``position`` (``None``: no rule can serve).

    ``dropped`` are the other rules with the reason.
    """

    position: int | None
    destinations: tuple[Weighted, ...]
    dropped: tuple[tuple[int, str], ...]

    @property
    def note(self) -> str:
        """What people are told where the route is accepted."""
        return f"{NOTE}; connections go to the backends of rule {self.position}"


def policy_note(policy: BackendTrafficPolicy) -> str:
    """What of ``policy`` is without effect where TLS passes through; empty: nothing is."""
    spec = policy.spec
    idle = [
        info.alias or to_camel(name)
        for name, info in type(spec).model_fields.items()
        if name not in POLICY_FIELDS_THERE and getattr(spec, name) is not None
    ]
    if spec.timeout is not None and spec.timeout.http is not None:
        idle.append("timeout.http")
    if not idle:
        return ""
    return f"without effect where TLS passes through: {', '.join(sorted(idle))}"


def passed_on(source: AnyRoute, rules: Sequence[CompiledRule]) -> PassedOn:
    """What becomes of ``source``, whose rules are compiled as ``rules``."""
    serving: CompiledRule | None = None
    dropped: list[tuple[int, str]] = []
    raw_rules: tuple[AnyRule, ...] = source.spec.rules
    for raw, rule in zip(raw_rules, rules, strict=True):
        reason = _obstacle(raw, rule)
        if not reason and serving is None:
            serving = rule
        else:
            behind = f"rule {serving.position} gets all connections" if serving else ""
            dropped.append((rule.position, reason or behind))
    if serving is None:
        return PassedOn(None, (), tuple(dropped))
    return PassedOn(serving.position, _destinations(serving), tuple(dropped))


def _obstacle(raw: AnyRule, rule: CompiledRule) -> str:
    if rule.faults:
        return rule.faults[0]
    if raw.filters or any(ref.filters for ref in raw.backend_refs):
        return "its filters cannot be applied"
    if raw.matches and all(match.headers for match in raw.matches):
        return "its header matches cannot be applied"
    if any(ref.kind is UpstreamKind.IMPORT for ref in rule.upstreams):
        return (
            "it names a ServiceImport, and TLS is not passed through to other clusters; "
            "use Services of this cluster"
        )
    return ""


def _destinations(rule: CompiledRule) -> tuple[Weighted, ...]:
    action = rule.routes[0][1].action if rule.routes else None
    if not isinstance(action, Forward):
        return (Weighted(UNAVAILABLE, 1),)
    return tuple(Weighted(entry.upstream, entry.weight) for entry in action.destinations)
