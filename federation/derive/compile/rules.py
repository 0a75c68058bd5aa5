"""Rules of routes: their matches, and where their calls go.

Decides: the action of a rule, what of it is refused and why, and which upstreams it needs.
Leaves to others: attachment, precedence and statuses (``attachment``, ``tables``, ``routes``).
Invariants: the share of invalid references is answered UNAVAILABLE (500 on an HTTPRoute) and never
given to the others; a rule with a filter that cannot be followed answers so too instead of going
without it; every refusal names the rule and the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from federation.derive.compile.backends import Backend, resolve_backend
from federation.derive.compile.balancing import balancing_of
from federation.derive.compile.filters import FilterOutcome, compile_filters
from federation.derive.compile.http_matches import compile_http_match
from federation.derive.compile.http_times import http_retry, http_timeouts
from federation.derive.compile.index import Index
from federation.derive.compile.limits import rate_limits_of
from federation.derive.compile.matches import CompiledMatch, compile_match
from federation.derive.compile.mirrors import NO_MIRRORS, Mirrors, compile_mirrors
from federation.derive.compile.policies import retry_of, timeouts_of
from federation.derive.compile.problem import Problem
from federation.derive.compile.traffic import fault_of, session_of
from federation.derive.compile.upstreams import (
    INVALID,
    UNAVAILABLE,
    UpstreamKind,
    UpstreamRef,
    destination,
    shares_of,
    upstream_ref,
)
from federation.derive.compile.weights import multiply
from federation.model.http import Redirect
from federation.model.objects import (
    AnyBackendRef,
    AnyRoute,
    AnyRule,
    BackendTrafficPolicy,
    GRPCRouteMatch,
    HTTPFilterType,
    HTTPRoute,
    HTTPRouteMatch,
    HTTPRouteRule,
)
from federation.model.snapshot import (
    DESTINATION_HEADER,
    Forward,
    HeaderChanges,
    MatchKind,
    Refuse,
    Route,
    Timeouts,
    Weighted,
)

MESSAGE_LENGTH_MAX = 1024
"""Characters of a refusal's message; it travels in a header of every answer."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule: ``routes`` are its matches with their actions, in the rule's order.

    ``faults`` are values that are not served, ``problems`` references that do not resolve.
    """

    position: int
    routes: tuple[tuple[CompiledMatch, Route], ...]
    upstreams: frozenset[UpstreamRef]
    faults: tuple[str, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """What one backendRef contributes: destinations with their shares.

    ``problem`` is a reference that does not resolve, ``refused`` why its share is not served.
    """

    weight: int
    destinations: tuple[tuple[Weighted, int], ...]
    upstreams: tuple[UpstreamRef, ...] = ()
    problem: Problem | None = None
    refused: str = ""
    faults: tuple[str, ...] = ()
    mirrors: Mirrors = NO_MIRRORS


def compile_rule(
    index: Index,
    route: AnyRoute,
    rule: AnyRule,
    *,
    position: int,
    policy: BackendTrafficPolicy | None,
) -> CompiledRule:
    """The rule at ``position`` of ``route`` under ``policy``."""
    where = f"spec.rules[{position}]"
    label = f"{route.key} rule {rule.name or position}"
    filters = compile_filters(rule.filters, where=f"{where}.filters")
    refs: tuple[AnyBackendRef, ...] = rule.backend_refs
    parts = [
        _part(index, route, ref, policy, where=f"{where}.backendRefs[{place}]")
        for place, ref in enumerate(refs)
    ]
    mirrors = compile_mirrors(index, route, filters.mirrors, policy)
    problems = tuple(part.problem for part in parts if part.problem is not None)
    faults = (*filters.faults, *(fault for part in parts for fault in part.faults))
    kind = _HTTP if isinstance(rule, HTTPRouteRule) else _GRPC
    template = Route(
        name=f"{route.key.qualified_name}/rule-{position}",
        rule=label,
        match=kind.every.match,
        action=_action(kind, label, filters.redirect, parts, faults),
        request_headers=filters.request,
        response_headers=filters.response,
        timeouts=http_timeouts(rule, timeouts_of(policy)),
        retry=http_retry(rule, retry_of(policy)),
        fault=fault_of(policy),
        mirrors=mirrors.mirrors,
        session=session_of(
            rule.session_persistence,
            rule=f"{route.key.qualified_name}/{rule.name or position}",
        ),
        rate_limits=rate_limits_of(policy, index.settings),
        rewrite=filters.rewrite,
        cors=filters.cors,
        hash_on=balancing_of(policy).hash_on,
    )
    routes, match_faults = _routes(kind, _plain(template, parts), rule, where)
    return CompiledRule(
        position=position,
        routes=routes,
        upstreams=frozenset(
            ref
            for refs in (
                mirrors.upstreams,
                *(part.upstreams for part in parts),
                *(part.mirrors.upstreams for part in parts),
            )
            for ref in refs
        ),
        faults=(*faults, *match_faults),
        problems=(
            *problems,
            *mirrors.problems,
            *(problem for part in parts for problem in part.mirrors.problems),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    """What differs between the kinds of routes: ``every`` takes all requests, ``invalid`` is where
    the share of invalid references goes, ``invalid_status`` what it is answered.
    """

    every: CompiledMatch
    invalid: str
    invalid_status: int


_AnyMatch = GRPCRouteMatch | HTTPRouteMatch


def _match(source: _AnyMatch, *, position: int, where: str) -> CompiledMatch | str:
    if isinstance(source, HTTPRouteMatch):
        return compile_http_match(source, position=position, where=where)
    return compile_match(source, position=position, where=where)


def _empty(source: _AnyMatch) -> CompiledMatch:
    compiled = _match(source, position=0, where="")
    assert isinstance(compiled, CompiledMatch)
    return compiled


_GRPC = _Kind(_empty(GRPCRouteMatch()), UNAVAILABLE, 503)
_HTTP = _Kind(_empty(HTTPRouteMatch()), INVALID, 500)
_NOWHERE = frozenset({UNAVAILABLE, INVALID})


def _routes(
    kind: _Kind, template: Route, rule: AnyRule, where: str
) -> tuple[tuple[tuple[CompiledMatch, Route], ...], tuple[str, ...]]:
    if not rule.matches:
        return ((kind.every, template),), ()
    routes: list[tuple[CompiledMatch, Route]] = []
    faults: list[str] = []
    matches: tuple[_AnyMatch, ...] = rule.matches
    for place, source in enumerate(matches):
        at = f"{where}.matches[{place}]"
        compiled = _match(source, position=place, where=at)
        if isinstance(compiled, CompiledMatch) and (fault := _prefix_fault(template, compiled)):
            compiled = f"{at}.{fault}"
        if isinstance(compiled, str):
            faults.append(compiled)
            continue
        suffix = f"-match-{place}" if len(rule.matches) > 1 else ""
        name = f"{template.name}{suffix}"
        routes.append((compiled, replace(template, name=name, match=compiled.match)))
    return tuple(routes), tuple(faults)


def _prefix_fault(template: Route, compiled: CompiledMatch) -> str:
    """What keeps a prefix from being replaced: that none was matched."""
    target = template.action if isinstance(template.action, Redirect) else template.rewrite
    replaces = target is not None and target.path is not None and target.path.prefix
    if replaces and compiled.match.path.kind not in (MatchKind.PREFIX, MatchKind.SEGMENTS):
        return (
            "path.type: must be PathPrefix, since a filter replaces the prefix (ReplacePrefixMatch)"
        )
    return ""


def _action(
    kind: _Kind,
    label: str,
    redirect: Redirect | None,
    parts: Sequence[_Part],
    faults: Sequence[str],
) -> Forward | Refuse | Redirect:
    if faults:
        return _refuse(label, faults, kind.invalid_status)
    if redirect is not None:
        return redirect
    if not parts:
        return _refuse(label, ["the rule has no backendRefs"], kind.invalid_status)
    weights = multiply([(part.weight, [share for _, share in part.destinations]) for part in parts])
    destinations = tuple(
        replace(weighted, weight=weight, mirrors=part.mirrors.mirrors)
        for part, numbers in zip(parts, weights, strict=True)
        for (weighted, _), weight in zip(part.destinations, numbers, strict=True)
        if weight or weighted.upstream not in _NOWHERE
    )
    if any(entry.weight and entry.upstream not in _NOWHERE for entry in destinations):
        return Forward(destinations=destinations)
    # A place that cannot take calls now is not the same as one that does not exist.
    absent = any(entry.weight and entry.upstream == UNAVAILABLE for entry in destinations)
    reasons = _refusals(parts) or ["the weights of all backends are zero"]
    return _refuse(label, reasons, 503 if absent else kind.invalid_status)


def _refuse(label: str, reasons: Sequence[str], status: int) -> Refuse:
    return Refuse(message=f"{label}: {'; '.join(reasons)}"[:MESSAGE_LENGTH_MAX], status=status)


def _refusals(parts: Sequence[_Part]) -> list[str]:
    return [part.refused for part in parts if part.refused and part.weight]


def _plain(template: Route, parts: Sequence[_Part]) -> Route:
    """``template`` without what its action has no use for, with the reason of partial refusal."""
    if isinstance(template.action, Refuse):
        return Route(
            name=template.name,
            rule=template.rule,
            match=template.match,
            action=template.action,
            # Who asked from another page may read the refusal, too.
            cors=template.cors,
        )
    if isinstance(template.action, Redirect):
        return replace(template, timeouts=Timeouts(), retry=None, mirrors=(), session=None)
    return replace(template, reason="; ".join(_refusals(parts))[:MESSAGE_LENGTH_MAX])


def _part(
    index: Index,
    route: AnyRoute,
    ref: AnyBackendRef,
    policy: BackendTrafficPolicy | None,
    *,
    where: str,
) -> _Part:
    filters = _backend_filters(ref, f"{where}.filters")
    kind = _HTTP if isinstance(route, HTTPRoute) else _GRPC
    mirrors = compile_mirrors(index, route, filters.mirrors, policy)
    backend = resolve_backend(index, route, ref, where=where)
    if isinstance(backend, Problem):
        return _Part(
            ref.weight,
            _nowhere(kind.invalid),
            problem=backend,
            refused=backend.message,
            faults=filters.faults,
            mirrors=replace(mirrors, mirrors=(), upstreams=()),
        )
    if not backend.imported:
        upstream = upstream_ref(
            UpstreamKind.SERVICE,
            backend.service,
            backend.port,
            policy=policy,
            protocol=backend.protocol,
        )
        return _Part(
            ref.weight,
            ((_weighted(upstream, filters, HeaderChanges()), 1),),
            upstreams=(upstream,),
            faults=filters.faults,
            mirrors=mirrors,
        )
    part = _import_part(index, backend, ref, policy, filters, where)
    return replace(part, mirrors=mirrors)


def _import_part(
    index: Index,
    backend: Backend,
    ref: AnyBackendRef,
    policy: BackendTrafficPolicy | None,
    filters: FilterOutcome,
    where: str,
) -> _Part:
    shares = shares_of(index, backend.service, backend.port)
    upstreams = tuple(
        upstream_ref(
            UpstreamKind.IMPORT,
            backend.service,
            backend.port,
            target=share.cluster,
            policy=policy,
            protocol=backend.protocol,
        )
        for share in shares
    )
    named = HeaderChanges(set=((DESTINATION_HEADER, destination(backend.service, backend.port)),))
    destinations = tuple(
        (_weighted(upstream, filters, named), share.weight_bp)
        for upstream, share in zip(upstreams, shares, strict=True)
    )
    if any(share.weight_bp for share in shares):
        return _Part(ref.weight, destinations, upstreams=upstreams, faults=filters.faults)
    # Upstreams without weight stay, so that calls on their way can finish.
    message = f"{where}: no cluster takes calls to {backend.service} from {index.region} now"
    return _Part(
        ref.weight,
        (*destinations, *_nowhere(UNAVAILABLE)),
        upstreams=upstreams,
        refused=message,
        faults=filters.faults,
    )


def _backend_filters(ref: AnyBackendRef, where: str) -> FilterOutcome:
    """The filters of one backend; what only a whole rule can do is a fault there."""
    filters = compile_filters(ref.filters, where=where)
    ruled = [
        name
        for name, value in (
            (HTTPFilterType.REQUEST_REDIRECT, filters.redirect),
            (HTTPFilterType.URL_REWRITE, filters.rewrite),
            (HTTPFilterType.CORS, filters.cors),
        )
        if value is not None
    ]
    faults = tuple(f"{where}: {name} is for whole rules, not for one backend" for name in ruled)
    return replace(filters, faults=(*filters.faults, *faults))


def _nowhere(upstream: str) -> tuple[tuple[Weighted, int], ...]:
    return ((Weighted(upstream=upstream, weight=0), 1),)


def _weighted(upstream: UpstreamRef, filters: FilterOutcome, named: HeaderChanges) -> Weighted:
    request = filters.request
    if named:
        # Nobody but the gateway says where a call goes next.
        mine = tuple(pair for pair in request.set if pair[0] != DESTINATION_HEADER)
        request = replace(
            request,
            set=(*mine, *named.set),
            add=tuple(pair for pair in request.add if pair[0] != DESTINATION_HEADER),
        )
    return Weighted(
        upstream=upstream.name,
        weight=0,
        request_headers=request,
        response_headers=filters.response,
    )
