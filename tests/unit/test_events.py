"""Which changes are events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from federation.derive.events import Seen, derive_events
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.conditions import Condition, ConditionStatus
from federation.model.events import NOTE_MAX, ObjectEvent
from federation.model.facts import ExportFact, Quarantine, ServicePort
from federation.model.objects import ApiObject, ParentReference
from federation.model.resolved import ClusterShare, Reason, ReasonCode, SourceResolution
from federation.model.status import DrainProgress, ObjectStatus, ParentStatus
from tests.testkit.routing import aged, parse, snapshot_of

WEST = ClusterId("us-west-1")
USERS = ServiceName(namespace="app", name="users")
OBJECTS = aged(
    parse(
        """
apiVersion: v1
kind: Namespace
metadata: {name: app}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: route, namespace: app}
spec: {parentRefs: [{name: edge}]}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ServiceImport
metadata: {name: users-import, namespace: app}
spec: {ports: [{port: 9090}]}
---
apiVersion: federation.dev/v1alpha1
kind: Drain
metadata: {name: away}
spec: {target: us-west-1, over: 10s}
"""
    )
)
NAMESPACE, ROUTE, IMPORT, DRAIN = OBJECTS


def condition(kind: str, holds: bool, reason: str, message: str = "") -> Condition:
    return Condition(
        type=kind,
        status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
        reason=reason,
        message=message,
        observed_generation=1,
    )


def at_parent(*conditions: Condition) -> ObjectStatus:
    ref = ParentReference(name="edge")
    return ObjectStatus(
        parents=(ParentStatus(parent_ref=ref, controller_name="ours", conditions=conditions),)
    )


def seen(statuses: Mapping[ApiObject, ObjectStatus] | None = None) -> Seen:
    found = {source.key: status for source, status in (statuses or {}).items()}
    return Seen(objects=snapshot_of(OBJECTS), statuses=found)


def told(before: Seen | None, now: Seen) -> list[str]:
    return [
        f"{event.regarding.kind} {'Warning' if event.warning else 'Normal'} {event.reason} "
        f"{event.action}: {event.note}"
        for event in events(before, now)
    ]


def events(before: Seen | None, now: Seen) -> tuple[ObjectEvent, ...]:
    return derive_events(before, now, cluster=WEST)


FINE = at_parent(condition("Accepted", True, "Accepted"), condition("ResolvedRefs", True, "R"))
BROKEN = at_parent(
    condition("Accepted", True, "Accepted"),
    condition("ResolvedRefs", False, "BackendNotFound", "users does not exist"),
)


def test_a_refusal_is_told_and_its_end() -> None:
    assert told(seen({ROUTE: FINE}), seen({ROUTE: BROKEN})) == [
        "GRPCRoute Warning BackendNotFound ResolveReferences: Gateway edge: users does not exist"
    ]
    assert told(seen({ROUTE: BROKEN}), seen({ROUTE: FINE})) == [
        "GRPCRoute Normal R ResolveReferences: Gateway edge: ResolvedRefs is True again"
    ]


def test_what_is_as_before_is_no_event() -> None:
    assert told(seen({ROUTE: BROKEN}), seen({ROUTE: BROKEN})) == []
    assert told(seen({ROUTE: FINE}), seen({ROUTE: FINE})) == []


def test_a_first_look_tells_what_is_wrong_as_known() -> None:
    found = events(None, seen({ROUTE: BROKEN}))
    assert [(event.reason, event.known) for event in found] == [("BackendNotFound", True)]
    assert not events(None, seen({ROUTE: FINE}))
    assert not events(seen(), seen({ROUTE: BROKEN}))[0].known


def test_gateways_that_have_not_answered_are_no_event_and_refusals_are() -> None:
    pending = at_parent(condition("Programmed", False, "Pending", "0/1 gateways"))
    refused = at_parent(condition("Programmed", False, "Invalid", "gw-1 refused listeners x: why"))
    assert told(seen({ROUTE: pending}), seen({ROUTE: pending})) == []
    assert told(seen({ROUTE: pending}), seen({ROUTE: refused})) == [
        "GRPCRoute Warning Invalid ConfigureGateways: Gateway edge: gw-1 refused listeners x: why"
    ]


def test_a_drain_begins_and_ends_once() -> None:
    def at(phase: str) -> Seen:
        return seen({DRAIN: ObjectStatus(drain=DrainProgress(phase=phase))})

    assert told(at("Pending"), at("Ramping")) == [
        "Drain Normal DrainStarted Drain: us-west-1 gives up its traffic over 10s"
    ]
    assert told(at("Ramping"), at("Draining")) == []
    assert [line.split()[2] for line in told(at("Pending"), at("Drained"))] == [
        "DrainStarted",
        "Drained",
    ]
    assert [line.split()[2] for line in told(at("Drained"), at("Returning"))] == ["DrainExpired"]
    assert told(at("Returning"), at("Expired")) == []


def shares(west: int, east: int, *, why: ReasonCode = ReasonCode.NO_READY_ENDPOINTS) -> Seen:
    found = tuple(
        ClusterShare(
            cluster=ClusterId(name),
            region=Region(name),
            weight_asked_bp=5_000,
            weight_bp=weight,
            failover=(),
            reasons=(Reason(code=why, message="0 of 3"),) if weight == 0 else (),
        )
        for name, weight in (("east", east), ("west", west))
    )
    source = SourceResolution(region=Region("west"), shares=found)
    return replace(exported(1), sources={USERS: source})


def exported(ready: int) -> Seen:
    fact = ExportFact(
        cluster=ClusterId("east"),
        region=Region("east"),
        service=USERS,
        ports=(ServicePort(port=9090),),
        ready=ready,
        total=3,
        capacity=ready,
    )
    return replace(seen(), exports={USERS: {fact.cluster: fact}})


def test_an_import_whose_last_endpoint_goes_is_told() -> None:
    assert told(exported(3), exported(1)) == []
    assert told(exported(1), exported(0)) == [
        (
            "ServiceImport Warning NoReadyBackends CheckBackends: none of the endpoints of "
            "app/users in east is ready"
        )
    ]
    assert told(exported(0), exported(0)) == []
    assert told(exported(0), exported(2)) == [
        ("ServiceImport Normal BackendsReady CheckBackends: endpoints of app/users are ready again")
    ]
    assert told(None, exported(0)) == []


def test_a_cluster_that_gives_up_its_part_is_told_at_the_import() -> None:
    assert told(shares(5_000, 5_000), shares(10_000, 0)) == [
        (
            "ServiceImport Warning FailedOver MoveTraffic: east takes none of its 50 % of "
            "app/users now; NoReadyEndpoints: 0 of 3"
        )
    ]
    assert told(shares(10_000, 0), shares(5_000, 5_000)) == [
        "ServiceImport Normal Returned MoveTraffic: east has its 50 % of app/users back"
    ]
    assert told(shares(10_000, 0), shares(9_000, 1_000)) == []
    drained = told(shares(5_000, 5_000), shares(10_000, 0, why=ReasonCode.DRAINED))
    assert drained[0].startswith("ServiceImport Normal FailedOver")


def test_a_shrink_in_doubt_is_told_at_the_namespace() -> None:
    doubt = Quarantine(missing=(USERS,), reason="1 of 1 is missing", since="now")
    doubtful = replace(seen(), quarantine=doubt)
    assert told(seen(), doubtful) == [
        (
            "Namespace Warning ShrinkQuarantined Publish: users: 1 of 1 is missing "
            "(fedctl accept-shrink us-west-1)"
        )
    ]
    assert told(doubtful, doubtful) == []
    assert [line.split()[2] for line in told(doubtful, seen())] == ["QuarantineLifted"]


def test_notes_fit_the_server() -> None:
    long = at_parent(condition("Accepted", False, "Invalid", "ä" * NOTE_MAX))
    (found,) = events(seen(), seen({ROUTE: long}))
    assert len(found.note.encode()) <= NOTE_MAX
