"""Findings of ``fedctl check`` that a small lab cannot provoke: quorum, alarms, kinds, versions."""

from __future__ import annotations

import pytest

from federation.adapters.etcd import EtcdHealth, EtcdMember
from federation.cli.check.evidence import Evidence, SeenGateway, SeenKind
from federation.cli.check.finding import Area, Finding, Severity
from federation.cli.check.judge import judge, unexamined
from federation.cli.gateways import GatewayAt

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
