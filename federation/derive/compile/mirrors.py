"""Mirrors: where copies of calls go.

Decides: the share and the target of each mirror, and what is wrong with its reference.
Leaves to others: drawing, copying and bounding (the gateway).
Invariants: a mirror whose reference does not resolve is dropped and reported, as the Gateway API
says, and never touches the calls themselves; a share above 0 never becomes 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from federation.derive.compile.backends import Backend, resolve_backend
from federation.derive.compile.filters import MirrorFilter
from federation.derive.compile.index import Index
from federation.derive.compile.problem import Problem
from federation.derive.compile.traffic import share_of
from federation.derive.compile.upstreams import (
    UpstreamKind,
    UpstreamRef,
    destination,
    shares_of,
    upstream_ref,
)
from federation.model.objects import AnyRoute, BackendTrafficPolicy, RequestMirror
from federation.model.traffic import Mirror


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The mirrors of a list of filters, the upstreams that they need, and what does not resolve."""

    mirrors: tuple[Mirror, ...] = ()
    upstreams: tuple[UpstreamRef, ...] = ()
    problems: tuple[Problem, ...] = ()


NO_MIRRORS = Mirrors()


def compile_mirrors(
    index: Index,
    route: AnyRoute,
    filters: Iterable[MirrorFilter],
    policy: BackendTrafficPolicy | None,
) -> Mirrors:
    """Where copies of calls go. A share of 0 needs no mirror, but its reference is checked."""
    mirrors: list[Mirror] = []
    upstreams: list[UpstreamRef] = []
    problems: list[Problem] = []
    for entry in filters:
        backend = resolve_backend(
            index, route, entry.spec.backend_ref, where=f"{entry.where}.requestMirror.backendRef"
        )
        if isinstance(backend, Problem):
            problems.append(backend)
        elif share := share_of(_percent(entry.spec)):
            upstream = _target(index, backend, policy)
            upstreams.append(upstream)
            named = destination(backend.service, backend.port) if backend.imported else ""
            mirrors.append(Mirror(upstream.name, share, named))
    return Mirrors(tuple(mirrors), tuple(upstreams), tuple(problems))


def _percent(spec: RequestMirror) -> Fraction:
    if spec.fraction is not None:
        return Fraction(100 * spec.fraction.numerator, spec.fraction.denominator)
    return Fraction(100 if spec.percent is None else spec.percent)


def _target(index: Index, backend: Backend, policy: BackendTrafficPolicy | None) -> UpstreamRef:
    """Copies for an import all go to the cluster with the largest share, the own one first among
    equals; those behind it in the failover order follow when it cannot.
    """
    if not backend.imported:
        return upstream_ref(
            UpstreamKind.SERVICE,
            backend.service,
            backend.port,
            policy=policy,
            protocol=backend.protocol,
        )
    shares = shares_of(index, backend.service, backend.port)
    largest = min(
        shares,
        key=lambda share: (-share.weight_bp, share.cluster != index.cluster, share.cluster),
        default=None,
    )
    target = index.cluster if largest is None else largest.cluster
    return upstream_ref(
        UpstreamKind.IMPORT,
        backend.service,
        backend.port,
        target=target,
        policy=policy,
        protocol=backend.protocol,
    )
