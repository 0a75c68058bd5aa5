"""Rate limits of a policy as the gateways count them.

Decides: names of limits, and what of a policy's rules no gateway could follow.
Leaves to others: which policy holds a route (``policies``), how a limit that is for all gateways is
divided among them (``derive.quota``).
Invariants: a limit counts the calls of the policy's whole route, whatever rule or listener they
came by; its name stays the same while its place in the policy does.
"""

from __future__ import annotations

from federation.derive.compile.inputs import CompileSettings
from federation.derive.compile.regex import regex_fault
from federation.model.objects import (
    BackendTrafficPolicy,
    HeaderSelector,
    HeaderSelectorType,
    RateLimitRule,
)
from federation.model.snapshot import WHOLE_SHARE_PPM, HeaderMatch, LimitUnit, MatchKind, RateLimit


def rate_limits_of(
    policy: BackendTrafficPolicy | None, settings: CompileSettings
) -> tuple[RateLimit, ...]:
    """The limits of the policy's route, in the order of its rules."""
    spec = policy.spec.rate_limit if policy is not None else None
    if policy is None or spec is None:
        return ()
    first = settings.first_share_ppm if spec.shared else WHOLE_SHARE_PPM
    return tuple(
        RateLimit(
            name=f"{policy.key.qualified_name}/rule-{position}",
            requests=rule.limit.requests_per_unit,
            unit=LimitUnit(rule.limit.unit.lower()),
            headers=_conditions(rule),
            distinct=_distinct(rule),
            shared=spec.shared,
            first_share_ppm=first,
        )
        for position, rule in enumerate(spec.rules)
    )


def rate_limit_fault(policy: BackendTrafficPolicy) -> str:
    """What no gateway could follow, with its field path; empty if there is nothing."""
    spec = policy.spec.rate_limit
    if spec is None:
        return ""
    for at, rule in enumerate(spec.rules):
        for selected, selector in enumerate(rule.client_selectors):
            for place, header in enumerate(selector.headers):
                if header.type is not HeaderSelectorType.REGULAR_EXPRESSION:
                    continue
                if fault := regex_fault(header.value or ""):
                    where = f"rules[{at}].clientSelectors[{selected}].headers[{place}].value"
                    kind = spec.type.value.lower()
                    return f"spec.rateLimit.{kind}.{where}: {header.value!r} {fault}"
    return ""


def _conditions(rule: RateLimitRule) -> tuple[HeaderMatch, ...]:
    return tuple(
        HeaderMatch(name=header.name.lower(), kind=_kind(header), value=header.value)
        for header in rule.headers
        if header.value is not None
    )


def _kind(header: HeaderSelector) -> MatchKind:
    regex = header.type is HeaderSelectorType.REGULAR_EXPRESSION
    return MatchKind.REGEX if regex else MatchKind.EXACT


def _distinct(rule: RateLimitRule) -> tuple[str, ...]:
    names = [h.name.lower() for h in rule.headers if h.type is HeaderSelectorType.DISTINCT]
    return tuple(dict.fromkeys(names))
