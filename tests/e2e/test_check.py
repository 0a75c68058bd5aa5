"""``fedctl check`` on a real lab: each fault is made for real and found, with the next step."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.cli.lab.authority import Authority, write_private
from federation.model.facts import Heartbeat
from federation.ports import Put
from federation.wire.etcd import from_bytes, to_bytes
from federation.wire.etcd_keys import Keys
from tests.e2e.checking import check, found
from tests.e2e.conftest import EAST, WEST
from tests.testkit.lab import ORPHAN, Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_a_whole_lab_is_well(lab: Lab) -> None:
    code, report = check(lab)
    assert code == 0, report
    assert {finding["severity"] for finding in report["findings"]} <= {"note"}
    assert [each["area"] for each in report["unexamined"]] == ["crds"]
    text = lab.fedctl("check").out
    assert "well: " in text
    assert "reachability" in text


def test_a_dead_gateway_is_told_by_its_peers(lab: Lab) -> None:
    gateway = f"gateway-{EAST}-1"
    lab.fedctl("lab", "kill", gateway)
    lab.wait(found(lab, "gateways", gateway, "does not answer"), timeout_s=20, what="gateway gone")
    seen = found(lab, "reachability", WEST, f"does not reach {EAST}")
    lab.wait(seen, timeout_s=20, what="its peers do not reach it")


def test_a_silent_agent_makes_its_cluster_stale(lab: Lab) -> None:
    lab.fedctl("lab", "kill", f"agent-{EAST}")
    lab.wait(found(lab, "clusters", EAST, "is stale"), timeout_s=30, what="stale")
    lab.wait(found(lab, "gateways", EAST, "is AgentAway"), timeout_s=30, what="agent away")
    lab.wait(found(lab, "dns", EAST, "does not resolve"), timeout_s=30, what="no DNS")


def test_a_clock_that_is_ahead_shows_in_heartbeats(lab: Lab) -> None:
    etcd = lab.status()["etcd"]
    lab.fedctl("lab", "kill", f"agent-{EAST}")

    async def doctor() -> None:
        store, key = EtcdStore(EtcdSettings(endpoints=(etcd,))), Keys().heartbeat(EAST)
        other = await store.get(Keys().heartbeat(WEST))
        assert other is not None
        beat = from_bytes(Heartbeat, other.value)
        assert beat.sent_ms, "agents tell their clocks"
        ahead = beat.model_copy(update={"cluster": EAST, "sent_ms": beat.sent_ms + 3_600_000})
        await store.commit([Put(key, to_bytes(ahead))])
        await store.close()

    asyncio.run(doctor())
    assert found(lab, "clocks", EAST, "s ahead of ours")()


def test_policies_and_routes_without_effect(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "orphan.yaml"
    path.write_text(ORPHAN)
    lab.fedctl("apply", "-f", str(path))
    try:
        lab.wait(found(lab, "policies", "app/orphan", ""), timeout_s=20, what="the policy")
        seen = found(lab, "routes", "app/nowhere", "ResolvedRefs is False")
        lab.wait(seen, timeout_s=20, what="the route")
    finally:
        lab.fedctl("delete", "-f", str(path))


@pytest.fixture
def identity(lab: Lab) -> Iterator[Path]:
    """The certificate file of one gateway, as it was again afterwards."""
    folder = Path(lab.first_status["ca"]).parent
    paths = [folder / f"gateway-{EAST}-1.{kind}" for kind in ("pem", "key")]
    before = [path.read_bytes() for path in paths]
    yield paths[0]
    for path, content in zip(paths, before, strict=True):
        write_private(path, content)
    well = lambda: not check(lab, "--only", "certificates")[1]["findings"]  # noqa: E731
    lab.wait(well, timeout_s=20, what="the certificate is as it was")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("expired", "has expired"),
        ("soon", "expires soon"),
        ("other cluster", "is of another cluster"),
        ("other domain", "is of another trust domain"),
        ("other authority", "is not trusted by a peer"),
    ],
)
def test_certificates_that_are_wrong(lab: Lab, identity: Path, fault: str, words: str) -> None:
    lifetimes = {"expired": dt.timedelta(minutes=-1), "soon": dt.timedelta(hours=30)}
    lifetime = lifetimes.get(fault, dt.timedelta(days=30))
    authority = Authority("somebody else's")
    if fault == "other domain":
        elsewhere = f"spiffe://elsewhere.example/ns/federation/sa/gateway/cluster/{EAST}"
        pair = authority.issue("east", uris=(elsewhere,), lifetime=lifetime)
    else:
        cluster = WEST if fault == "other cluster" else EAST
        pair = authority.issue_gateway("east", cluster=cluster, lifetime=lifetime)
    write_private(identity.with_suffix(".key"), pair.key_pem)
    write_private(identity, pair.certificate_pem)
    lab.wait(found(lab, "certificates", f"gateway-{EAST}-1", words), timeout_s=20, what=fault)
    if fault == "other authority":
        seen = found(lab, "reachability", WEST, "its certificate is not trusted here")
        lab.wait(seen, timeout_s=20, what="peers refuse it")


def test_without_etcd_the_gateways_are_looked_at(lab: Lab) -> None:
    lab.fedctl("lab", "kill", "etcd")
    code, report = check(lab)
    assert code == 3
    (away,) = [finding for finding in report["findings"] if finding["area"] == "etcd"]
    assert "start-etcd" in away["why"]
    unexamined = {each["area"] for each in report["unexamined"]}
    assert {"clusters", "drains", "policies"} <= unexamined
    assert not {"gateways", "certificates", "reachability"} & unexamined
