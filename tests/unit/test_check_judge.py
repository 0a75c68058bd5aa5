"""What ``fedctl check`` says of evidence: every finding there is, its gravity and bounds."""

from __future__ import annotations

from typing import Any

import pytest

from federation.adapters.etcd import EtcdHealth, EtcdMember
from federation.cli.check.evidence import (
    ClockReading,
    Evidence,
    SeenCertificate,
    SeenCondition,
    SeenGateway,
    SeenKind,
    SeenObject,
)
from federation.cli.check.finding import Area, Finding, Severity
from federation.cli.check.judge import judge, unexamined
from federation.cli.check.judge_federation import STUCK_SLACK_MS
from federation.cli.gateways import GatewayAt
from federation.cli.lab.authority import TRUST_DOMAIN, gateway_identity
from federation.derive.explain_status import LeaderStatus
from federation.model.base import Region, ServiceName
from federation.model.drain import Drain, DrainState, DrainTargetKind, Refusal, RefusalCode
from federation.model.resolved import DrainPhase, ResolvedService, SourceResolution
from federation.model.view import FederationView

WELL = EtcdMember("a:2379", version="3.6.1", member=1, leader=1)
AWAY = EtcdMember("b:2379", why="no answer")
MIB = 1 << 20


def findings(area: Area, **seen: object) -> list[Finding]:
    evidence = Evidence(now_s=0.0, release="1.0.0", **seen)  # type: ignore[arg-type]
    return judge(evidence, [area])


@pytest.mark.parametrize(
    ("health", "words", "severity"),
    [
        (EtcdHealth((WELL, WELL, AWAY), 3), "one more lost member", Severity.WARNING),
        (EtcdHealth((WELL, AWAY), 2), "cannot be reached from here", Severity.WARNING),
        (EtcdHealth((EtcdMember("a:1"),), 3), "knows no leader", Severity.ERROR),
        (EtcdHealth((WELL,), 3, alarms=("NOSPACE",)), "the alarm NOSPACE", Severity.ERROR),
        (EtcdHealth((WELL,), 3, long_history=True), "not compacted", Severity.WARNING),
        (EtcdHealth((WELL,), 3, authentication=False), "may write every key", Severity.WARNING),
        (EtcdHealth((WELL,), 3, roles_missing=("west",)), "has no rights", Severity.ERROR),
        (
            EtcdHealth((EtcdMember("a:1", leader=1, size_bytes=900 * MIB, used_bytes=MIB),), 3),
            "more than half of the file is unused",
            Severity.WARNING,
        ),
    ],
)
def test_what_is_wrong_with_etcd(health: EtcdHealth, words: str, severity: Severity) -> None:
    (found,) = [it for it in findings(Area.ETCD, etcd=health) if words in it.what]
    assert found.severity is severity
    assert found.next


def test_a_whole_etcd_is_well() -> None:
    health = EtcdHealth((WELL, WELL, WELL), 3, authentication=True, long_history=False)
    assert findings(Area.ETCD, etcd=health) == []


def test_a_gateway_of_another_version_is_told() -> None:
    gateways = tuple(
        SeenGateway(GatewayAt("west", name, "a:1"), ready={"release": release})
        for name, release in (("old", "0.9.0"), ("new", "1.0.0"))
    )
    (found,) = findings(Area.VERSIONS, gateways=gateways)
    assert found.subject == "gateway west/old"
    assert "0.9.0 while most run 1.0.0" in found.what


def test_a_kind_that_is_not_served_is_told() -> None:
    kinds = (
        SeenKind("west", "Drain", ("f/v1",), (), ours=True),
        SeenKind("west", "GRPCRoute", ("g/v1",), ("g/v1",), ours=False),
    )
    (found,) = findings(Area.CRDS, kinds=kinds)
    assert "Drain is not served as f/v1" in found.what
    assert "fedctl crds" in found.next


def test_what_nobody_could_look_at_is_told() -> None:
    left = unexamined(Evidence(now_s=0.0, release="1.0.0", etcd_away="gone"), tuple(Area))
    assert {it.area for it in left} >= {Area.CLUSTERS, Area.GATEWAYS, Area.DNS, Area.CRDS}


DAY_S = 86_400.0
OURS = gateway_identity("west")


def certificate(where: str, **change: Any) -> SeenCertificate:
    whole = {"subject": "CN=g", "issuer": "CN=a", "not_before_s": -DAY_S, "not_after_s": 30 * DAY_S}
    return SeenCertificate(where, **{**whole, "uris": (OURS,), **change})


def gateway(**change: Any) -> SeenGateway:
    at = GatewayAt("west", "g", "a:1")
    return SeenGateway(at, **{"ready": {"state": "InSync"}, "identity": certificate("g"), **change})


@pytest.mark.parametrize(
    ("identity", "words", "severity"),
    [
        ({"not_after_s": -1.0}, "has expired", Severity.ERROR),
        ({"not_after_s": 3_600.0}, "expires soon", Severity.ERROR),
        ({"not_after_s": 3 * DAY_S}, "expires soon", Severity.WARNING),
        ({"not_before_s": 3_600.0}, "is not valid yet", Severity.ERROR),
        ({"unreadable": "no PEM"}, "cannot be read", Severity.ERROR),
        ({"uris": (gateway_identity("east"),)}, "is of another cluster", Severity.ERROR),
        ({"uris": ()}, "is of another cluster", Severity.ERROR),
        (
            {"uris": (OURS.replace(TRUST_DOMAIN, "example.com"),)},
            "is of another trust domain",
            Severity.ERROR,
        ),
    ],
)
@pytest.mark.parametrize("place", ["identity", "authority", "listener", "own file"])
def test_certificates(place: str, identity: dict[str, Any], words: str, severity: Severity) -> None:
    shown = certificate("there", **identity)
    of_identity = "uris" in identity
    seen: dict[str, Any] = {
        "identity": {"gateways": (gateway(identity=shown),)},
        "authority": {"gateways": (gateway(trusted=(shown,)),)},
        "listener": {"gateways": (gateway(others=(shown,)),)},
        "own file": {"certificates": (shown,)},
    }[place]
    found = findings(Area.CERTIFICATES, **seen)
    if of_identity and place != "identity":
        assert found == [], "only gateways have an id"
        return
    assert [(it.what, it.severity, it.subject) for it in found] == [(words, severity, "there")]
    assert found[0].next


def test_a_gateway_without_an_identity() -> None:
    (found,) = findings(Area.CERTIFICATES, gateways=(gateway(identity=None),))
    assert (found.what, found.severity) == ("has no identity", Severity.WARNING)
    assert "fedctl cluster add" in found.next


@pytest.mark.parametrize(
    ("ready", "words", "severity"),
    [
        ({}, "the admin endpoint does not answer", Severity.ERROR),
        ({"state": "Starting"}, "is Starting", Severity.ERROR),
        ({"state": "AgentAway", "age_s": 7.0}, "is AgentAway", Severity.WARNING),
        ({"state": "ServingFromSnapshot"}, "is ServingFromSnapshot", Severity.WARNING),
        ({"state": "InSync", "refused": {"listeners x": "bad"}}, "refused listeners x", None),
    ],
)
def test_gateways(ready: dict[str, Any], words: str, severity: Severity | None) -> None:
    (found,) = findings(Area.GATEWAYS, gateways=(gateway(ready=ready),))
    assert (found.what, found.severity) == (words, severity or Severity.ERROR)
    assert found.next
    if "age_s" in ready:
        assert "7 s ago" in found.why


@pytest.mark.parametrize(
    ("ahead_s", "unsure_s", "severity"),
    [
        (2.4, 0.5, None),
        (-2.4, 0.5, None),
        (2.6, 0.5, Severity.WARNING),
        (-30.0, 0.5, Severity.WARNING),
        (61.0, 0.5, Severity.ERROR),
    ],
)
def test_clocks(ahead_s: float, unsure_s: float, severity: Severity | None) -> None:
    found = findings(Area.CLOCKS, clocks=(ClockReading("etcd", ahead_s, unsure_s),))
    assert [it.severity for it in found] == ([severity] if severity else [])
    assert all("NTP" in it.next for it in found)


def test_a_federation_that_nobody_has_joined() -> None:
    (found,) = findings(Area.CLUSTERS, view=FederationView())
    assert (found.what, found.severity) == ("no cluster has joined", Severity.NOTE)


def drain_view(**change: Any) -> FederationView:
    drain = Drain(name="d", target_kind=DrainTargetKind.CLUSTER, target="west", over_ms=0)
    state = {"drain": "d", "spec": drain, "phase": DrainPhase.DRAINING, "remaining_bp": 0}
    states = {"d": DrainState(**{**state, "started_at_ms": 0, **change})} if change else {}
    return FederationView(drains={"d": drain}, drain_states=states)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "is not under way"),
        ({"started_at_ms": -STUCK_SLACK_MS - 31_000}, "is stuck"),
        ({"started_at_ms": -STUCK_SLACK_MS - 29_000}, ""),
        ({"started_at_ms": -(10**9), "phase": DrainPhase.DRAINED}, ""),
        ({"refusal": Refusal(code=RefusalCode.REFUSED, message="no")}, "is refused"),
    ],
)
def test_drains(change: dict[str, Any], words: str) -> None:
    leader = LeaderStatus(resolver="r", term=1)
    found = findings(Area.DRAINS, view=drain_view(**change), leader=leader)
    assert [it.what for it in found] == ([words] if words else [])
    assert all(it.next for it in found)


def test_a_drain_that_waits_for_a_leader_is_the_resolvers_finding() -> None:
    assert findings(Area.DRAINS, view=drain_view()) == []


def test_calls_that_lead_nowhere() -> None:
    users = ServiceName(namespace="app", name="users")
    source = SourceResolution(region=Region("west"), shares=())
    view = FederationView(resolved={users: ResolvedService(service=users, sources=(source,))})
    (found,) = findings(Area.ROUTES, view=view)
    assert (found.subject, found.what) == ("app/users", "calls from west lead nowhere")
    assert found.next == "fedctl explain app/users --from west"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"places": 1}, ""),
        ({}, "affects nothing"),
        ({"unreadable": "no spec"}, "is no valid object and is left out"),
        (
            {
                "places": 1,
                "generation": 3,
                "conditions": (SeenCondition("", "Accepted", "True", "Accepted", "", 2),),
            },
            "its status is of an older generation",
        ),
        (
            {
                "places": 1,
                "conditions": (SeenCondition("Gateway g", "Conflicted", "True", "Older", "x", 1),),
            },
            "Conflicted is True (Older) at Gateway g",
        ),
    ],
)
def test_policies(change: dict[str, Any], words: str) -> None:
    found = findings(
        Area.POLICIES, objects=(SeenObject("west", "SecurityPolicy", "app/p", **change),)
    )
    assert [it.what for it in found] == ([words] if words else [])
    assert all(it.next for it in found)
