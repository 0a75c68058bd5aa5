"""Whether a drain may start: what would be left of each service if its target served nothing.

Decides: the refusal (some service would have no healthy cluster left) and the numbers of a preview.
A tight rest is a warning with numbers, not a refusal: nobody but the operator knows the load.
A rest of which nothing is heard is no rest: nobody knows that it lives. Of drains that objects ask
for also: which cluster may drain what.
Leaves to others: the ramp (``derive.drain``), asking the operator (``cli``), trying a refused one
again (the leading resolver, at every step).
Invariants: ``forced`` turns a refusal into a warning and hides nothing; services that the target
does not serve now are not its business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from federation.derive.drain import targets
from federation.model.base import ClusterId, ServiceName, Value
from federation.model.drain import Drain, DrainTargetKind, Refusal, RefusalCode
from federation.model.facts import ExportFact
from federation.model.view import FederationView


class LeftCluster(Value):
    """A cluster that would go on serving; ``capacity`` is its ready capacity."""

    cluster: ClusterId
    ready: int
    capacity: int


class LostCluster(Value):
    """A cluster that exports the service but could not take its traffic, and why."""

    cluster: ClusterId
    reason: str


class ServiceImpact(Value):
    """What a drain does to one service: capacity given up, who is left, who cannot help."""

    service: ServiceName
    given_up: int
    left: tuple[LeftCluster, ...]
    unable: tuple[LostCluster, ...]

    def __str__(self) -> str:
        if self.left:
            rest = ", ".join(f"{entry.cluster} ({entry.ready} ready)" for entry in self.left)
            kept = sum(entry.capacity for entry in self.left)
            return (
                f"{self.service}: {kept} of {kept + self.given_up} units of ready capacity "
                f"are left, in {rest}"
            )
        if not self.unable:
            return f"{self.service} (no other cluster exports it)"
        why = ", ".join(f"{entry.cluster} {entry.reason}" for entry in self.unable)
        return f"{self.service} ({why})"


@dataclass(frozen=True, slots=True)
class Admitted:
    """The drain may start. ``warnings`` are sentences for the operator."""

    impacts: tuple[ServiceImpact, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The drain must not start unless forced; ``reason`` says what would be left."""

    reason: str
    impacts: tuple[ServiceImpact, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class DrainRight:
    """Leave for Drain objects of ``cluster`` to drain ``target``; ``*`` is any."""

    cluster: str
    target: str

    def permits(self, drain: Drain) -> bool:
        """Whether it speaks of ``drain``."""
        return self.cluster in ("*", drain.cluster) and self.target in ("*", drain.target)


def judge_request(
    drain: Drain, view: FederationView, rights: Collection[DrainRight] = ()
) -> Refusal | None:
    """Why a drain that an object asks for may not start; ``None``: it may.

    A cluster may drain itself and the region that it stands in; anything else takes a right.
    """
    kind = target_kind(view, drain.target)
    if kind is not drain.target_kind:
        return Refusal(code=RefusalCode.UNKNOWN_TARGET, message=_unknown(drain.target, view))
    member = view.members.get(drain.cluster) if drain.cluster is not None else None
    own = member is not None and drain.target == (
        member.region if kind is DrainTargetKind.REGION else member.cluster
    )
    if not own and not any(right.permits(drain) for right in rights):
        message = (
            f"objects of {drain.cluster} may drain {drain.cluster} and its region; for "
            f"{drain.target} start the resolvers with --may-drain {drain.cluster}={drain.target}, "
            f"or use `fedctl drain {drain.target}`"
        )
        return Refusal(code=RefusalCode.NOT_PERMITTED, message=message)
    verdict = admit(drain, view)
    if isinstance(verdict, Admitted):
        return None
    return Refusal(code=RefusalCode.REFUSED, message=verdict.reason)


def in_force(view: FederationView) -> tuple[Drain, ...]:
    """The drains that hold or are about to: an operator's, and of objects those that started."""
    found = []
    for name, drain in sorted(view.drains.items()):
        state = view.drain_states.get(name)
        if drain.cluster is None or (state is not None and not state.idle and not state.expired):
            found.append(drain)
    return tuple(found)


def target_kind(view: FederationView, name: str) -> DrainTargetKind | None:
    """What ``name`` names; a name that is both a region and a cluster means the region."""
    if any(member.region == name for member in view.members.values()):
        return DrainTargetKind.REGION
    if ClusterId(name) in view.members:
        return DrainTargetKind.CLUSTER
    return None


def admit(drain: Drain, view: FederationView) -> Admitted | Refused:
    """Judge ``drain`` against everything that is drained and healthy in ``view``."""
    if target_kind(view, drain.target) is None:
        return Refused(_unknown(drain.target, view))
    impacts = tuple(
        impact
        for service in sorted(view.exports, key=str)
        if (impact := _impact(drain, view, service)) is not None
    )
    warnings = [*_capacity_warnings(impacts), *_stale_warnings(view, impacts)]
    orphaned = [impact for impact in impacts if not impact.left]
    if not orphaned:
        return Admitted(impacts, tuple(warnings))
    sentence = f"draining {drain.target} would leave no healthy cluster for " + "; ".join(
        map(str, orphaned)
    )
    if drain.forced:
        return Admitted(impacts, (f"forced: {sentence}", *warnings))
    force = "--force" if drain.cluster is None else "force: true"
    return Refused(f"{sentence}. Use {force} to drain all the same", impacts)


def _unknown(target: str, view: FederationView) -> str:
    known = sorted({*view.members, *(member.region for member in view.members.values())})
    return f"no region or cluster is named {target!r}; known names: {', '.join(known) or 'none'}"


def _impact(drain: Drain, view: FederationView, service: ServiceName) -> ServiceImpact | None:
    exports = view.exports[service]
    given_up = [
        fact
        for cluster, fact in exports.items()
        if targets(drain, cluster, fact.region, service)
        and _unable_because(view, fact, except_for=drain.name) is None
    ]
    if not given_up:
        return None
    left: list[LeftCluster] = []
    unable: list[LostCluster] = []
    for cluster, fact in sorted(exports.items()):
        if targets(drain, cluster, fact.region, service):
            continue
        reason = _unable_because(view, fact, except_for=drain.name)
        if reason is None:
            left.append(LeftCluster(cluster=cluster, ready=fact.ready, capacity=fact.capacity))
        else:
            unable.append(LostCluster(cluster=cluster, reason=reason))
    if not any(entry.cluster in view.heartbeats for entry in left):
        silent = "is stale: nothing is heard of it"
        unable += [LostCluster(cluster=entry.cluster, reason=silent) for entry in left]
        left = []
    return ServiceImpact(
        service=service,
        given_up=sum(fact.capacity for fact in given_up),
        left=tuple(left),
        unable=tuple(unable),
    )


def _unable_because(view: FederationView, fact: ExportFact, *, except_for: str) -> str | None:
    if fact.ready == 0:
        return f"has 0 of {fact.total} endpoints ready"
    entrances = view.gateways.get(fact.cluster)
    if entrances is None or not entrances.gateways:
        return "has no gateway"
    others = (drain for drain in in_force(view) if drain.name != except_for)
    held = _first_drain(others, fact)
    return None if held is None else "is drained"


def _first_drain(drains: Iterable[Drain], fact: ExportFact) -> Drain | None:
    return next(
        (drain for drain in drains if targets(drain, fact.cluster, fact.region, fact.service)),
        None,
    )


def _capacity_warnings(impacts: tuple[ServiceImpact, ...]) -> list[str]:
    return [
        f"{impact}; the rest takes over more than it has"
        for impact in impacts
        if 0 < sum(entry.capacity for entry in impact.left) < impact.given_up
    ]


def _stale_warnings(view: FederationView, impacts: tuple[ServiceImpact, ...]) -> list[str]:
    relied_on = sorted({entry.cluster for impact in impacts for entry in impact.left})
    return [
        f"{cluster} is stale: what is known of its endpoints may be old"
        for cluster in relied_on
        if cluster not in view.heartbeats
    ]
