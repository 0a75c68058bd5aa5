"""From "accepted" to "programmed": what the gateways said about the configuration.

Decides: the ``Programmed`` conditions of Gateways, listeners and policies.
Leaves to others: what is valid (``derive.compile``), what was said (``discovery``).
Invariants: True only when every connected gateway that serves the object has taken what it became;
a refusal counts against the objects that it concerns and no others; an object that was programmed
at the same generation stays so while a newer publication, made for other objects, is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from federation.derive.infrastructure import NO_RESOURCES
from federation.derive.serving import listener_secrets, passed_upstreams, routed_upstreams
from federation.model.acks import AckView, RefusedResource
from federation.model.conditions import Condition, ConditionStatus
from federation.model.infrastructure import Place
from federation.model.objects import (
    BackendTrafficPolicy,
    Gateway,
    ListenerSet,
    ObjectKey,
    ObservabilityPolicy,
)
from federation.model.serving import EAST_WEST, serves_gateway
from federation.model.snapshot import Listener, ListenerKind, Snapshot
from federation.model.status import (
    AncestorStatus,
    GatewayStatusAddress,
    ListenerStatus,
    ObjectStatus,
    address_type,
)

PROGRAMMED = "Programmed"
_PENDING = "Pending"

ADDRESSES_MAX = 16
"""Addresses in a Gateway's status; the Gateway API takes no more."""

Resource = tuple[str, str]
"""Kind and name of a resource, as in ``RefusedResource``."""

Concern = Callable[[Resource], bool]
"""Whether a resource belongs to an object."""


_NO_STATUS = ObjectStatus()


def with_programmed(
    statuses: Mapping[ObjectKey, ObjectStatus],
    acks: AckView,
    *,
    snapshot: Snapshot,
    previous: Mapping[ObjectKey, ObjectStatus] | None = None,
    places: Mapping[ObjectKey, Place] | None = None,
) -> dict[ObjectKey, ObjectStatus]:
    """``statuses`` of the published ``snapshot`` with what the gateways said of it.

    ``previous`` are the statuses last written, if any; ``places`` are where Gateways are reached
    for which the gateways themselves do not say it.
    """
    answers = _Answers(acks, snapshot, places or {})
    before = previous or {}
    return {
        key: _with_answers(key, status, answers, before.get(key, _NO_STATUS))
        for key, status in statuses.items()
    }


@dataclass(frozen=True, slots=True)
class _Answers:
    acks: AckView
    snapshot: Snapshot
    places: Mapping[ObjectKey, Place]

    def judge(self, pending: Condition, concern: Concern, before: Condition | None) -> Condition:
        """The condition that was ``pending``, now that gateways have answered."""
        if pending.reason != _PENDING:
            return pending
        total = len(self.acks.nodes)
        refusals = [
            (node.node, refused)
            for node in self.acks.nodes
            for refused in node.refused
            if concern((refused.kind, refused.name))
        ]
        refusing = len({node for node, _ in refusals})
        current = sum(node.generation >= self.acks.generation for node in self.acks.nodes)
        if not total:
            return _changed(
                pending, status=False, reason="NoResources", message="no gateway is connected"
            )
        if refusals:
            message = f"{total - refusing}/{total} gateways; {_refusal(*refusals[0])}"
            return _changed(pending, status=False, reason="Invalid", message=message)
        if current == total:
            message = f"{total}/{total} gateways"
            return _changed(pending, status=True, reason=PROGRAMMED, message=message)
        if before is not None and _still_holds(before, pending):
            return before
        return _changed(
            pending,
            status=False,
            reason=_PENDING,
            message=f"{current}/{total} gateways have taken it",
        )

    def concern_of(self, listeners: Sequence[Listener]) -> Concern:
        """The resources that ``listeners`` are made of; found when somebody has refused one."""
        found: set[Resource] = set()

        def concern(resource: Resource) -> bool:
            if not found:
                found.update(self._resources_of(listeners))
            return resource in found

        return concern

    def _resources_of(self, listeners: Sequence[Listener]) -> set[Resource]:
        resources: set[Resource] = set()
        for listener in listeners:
            resources |= {("listeners", listener.name), ("routes", listener.route_table)}
        resources |= {("secrets", name) for name in listener_secrets(listeners)}
        tables = {listener.route_table for listener in listeners}
        upstreams = {*passed_upstreams(listeners)}
        for table in self.snapshot.route_tables:
            if table.name in tables:
                upstreams.update(routed_upstreams(table))
        for name in upstreams:
            resources |= {("clusters", name), ("endpoints", name)}
        return resources

    def among(self, serves: Callable[[str], bool]) -> _Answers:
        """The answers of those nodes alone of which ``serves`` is true."""
        nodes = tuple(node for node in self.acks.nodes if serves(node.serves))
        return replace(self, acks=replace(self.acks, nodes=nodes))


def _refusal(node: str, refused: RefusedResource) -> str:
    return f"{node} refused {refused.kind} {refused.name}: {refused.message}"


def _still_holds(before: Condition, pending: Condition) -> bool:
    return (
        before.status is ConditionStatus.TRUE
        and before.observed_generation == pending.observed_generation
    )


def _changed(pending: Condition, *, status: bool, reason: str, message: str) -> Condition:
    return pending.model_copy(
        update={
            "status": ConditionStatus.TRUE if status else ConditionStatus.FALSE,
            "reason": reason,
            "message": message,
        }
    )


def _with_answers(
    key: ObjectKey, status: ObjectStatus, answers: _Answers, before: ObjectStatus
) -> ObjectStatus:
    if (key.group, key.kind) == (Gateway.GROUP, Gateway.KIND):
        return _gateway(key, status, answers, before)
    if (key.group, key.kind) == (BackendTrafficPolicy.GROUP, BackendTrafficPolicy.KIND):
        return _policy(key, status, answers, before)
    if (key.group, key.kind) == (ObservabilityPolicy.GROUP, ObservabilityPolicy.KIND):
        return _of_ancestors(status, answers, before, _told(answers.snapshot))
    if (key.group, key.kind) == (ListenerSet.GROUP, ListenerSet.KIND):
        return _listener_set(key, status, answers, before)
    return status


def _listener_set(
    key: ObjectKey, status: ObjectStatus, answers: _Answers, before: ObjectStatus
) -> ObjectStatus:
    prefix = f"{key.qualified_name}/"
    mine = [
        listener
        for listener in answers.snapshot.listeners
        if any(section.startswith(prefix) for section in listener.sections)
    ]
    if not mine:
        return status
    gateway = mine[0].gateway
    answers = answers.among(lambda serves: serves_gateway(serves, gateway))
    conditions = _judged(status.conditions, answers, answers.concern_of(mine), before.conditions)
    earlier = {entry.name: entry for entry in before.listeners}
    listeners = tuple(
        _listener(entry, mine, answers, earlier.get(entry.name), prefix=prefix)
        for entry in status.listeners
    )
    return status.model_copy(update={"conditions": conditions, "listeners": listeners})


def _gateway(
    key: ObjectKey, status: ObjectStatus, answers: _Answers, before: ObjectStatus
) -> ObjectStatus:
    answers = answers.among(lambda serves: serves_gateway(serves, key.qualified_name))
    mine = [
        listener
        for listener in answers.snapshot.listeners
        if listener.gateway == key.qualified_name
    ]
    place = answers.places.get(key)
    conditions = _judged(status.conditions, answers, answers.concern_of(mine), before.conditions)
    if place is not None:
        conditions = tuple(_placed(entry, place) for entry in conditions)
    earlier = {entry.name: entry for entry in before.listeners}
    listeners = tuple(
        _listener(entry, mine, answers, earlier.get(entry.name)) for entry in status.listeners
    )
    return status.model_copy(
        update={
            "conditions": conditions,
            "listeners": listeners,
            "addresses": _shown(answers.acks, place) if mine else (),
        }
    )


def _placed(entry: Condition, place: Place) -> Condition:
    """``Programmed`` of a Gateway whose gateways are ready: not without its address."""
    if entry.type != PROGRAMMED or not place.reason:
        return entry
    ready = entry.status is ConditionStatus.TRUE
    if not ready and place.reason != NO_RESOURCES:
        return entry
    message = place.message if ready else f"{entry.message}; {place.message}"
    return _changed(entry, status=False, reason=place.reason, message=message)


def _shown(acks: AckView, place: Place | None) -> tuple[GatewayStatusAddress, ...]:
    return _addresses(acks) if place is None else place.addresses[:ADDRESSES_MAX]


def _addresses(acks: AckView) -> tuple[GatewayStatusAddress, ...]:
    """Where the connected gateways listen, as far as they are bound to single addresses."""
    found = sorted({node.address for node in acks.nodes if node.address is not None})
    return tuple(
        GatewayStatusAddress(type=address_type(address), value=address)
        for address in found[:ADDRESSES_MAX]
    )


def _listener(
    entry: ListenerStatus,
    mine: Sequence[Listener],
    answers: _Answers,
    before: ListenerStatus | None,
    *,
    prefix: str = "",
) -> ListenerStatus:
    """``prefix`` and the entry's name are that of the section."""
    section = f"{prefix}{entry.name}"
    concern = answers.concern_of([listener for listener in mine if section in listener.sections])
    conditions = _judged(
        entry.conditions, answers, concern, before.conditions if before is not None else ()
    )
    return entry.model_copy(update={"conditions": conditions})


def _policy(
    key: ObjectKey, status: ObjectStatus, answers: _Answers, before: ObjectStatus
) -> ObjectStatus:
    def concern(resource: Resource) -> bool:
        kind, name = resource
        return kind == "routes" or name.endswith(f"@{key.qualified_name}")

    return _of_ancestors(status, answers, before, concern)


def _told(snapshot: Snapshot) -> Concern:
    """Resources that say what is told about clients' calls. The entrance for other clusters is not
    among them: a gateway without an identity does without it."""
    named = {
        entry.name
        for entry in snapshot.listeners
        if entry.telemetry and entry.kind is not ListenerKind.EAST_WEST
    }
    return lambda resource: (
        resource[0] == "routes" or (resource[0] == "listeners" and resource[1] in named)
    )


def _of_ancestors(
    status: ObjectStatus, answers: _Answers, before: ObjectStatus, concern: Concern
) -> ObjectStatus:
    # Where routes lead is no business of those who let other clusters in.
    answers = answers.among(EAST_WEST.__ne__)

    def judged(position: int, ancestor: AncestorStatus) -> AncestorStatus:
        earlier = before.ancestors[position : position + 1]
        conditions = _judged(
            ancestor.conditions, answers, concern, earlier[0].conditions if earlier else ()
        )
        return ancestor.model_copy(update={"conditions": conditions})

    ancestors = tuple(judged(*pair) for pair in enumerate(status.ancestors))
    return status.model_copy(update={"ancestors": ancestors})


def _judged(
    conditions: Sequence[Condition],
    answers: _Answers,
    concern: Concern,
    before: Sequence[Condition],
) -> tuple[Condition, ...]:
    earlier = next((entry for entry in before if entry.type == PROGRAMMED), None)
    return tuple(
        answers.judge(entry, concern, earlier) if entry.type == PROGRAMMED else entry
        for entry in conditions
    )
