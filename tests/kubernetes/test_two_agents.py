"""Two agents of one cluster: one writes, both serve, and either takes over from the other."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit import namespace
from tests.testkit.federation import until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.kubernetes_cluster import KubernetesCluster, running_cluster

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(180),
]

LEASE_S = 6.0
"""The lease's duration (``LeaseSettings``)."""

EXPORT = """
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: blue, namespace: app}
"""


class Pair:
    """The cluster, and which of its agents leads."""

    def __init__(self, cluster: KubernetesCluster) -> None:
        self.cluster = cluster

    def holder(self) -> str:
        """The agent that the Lease names; empty: none."""
        lease = self.cluster.kubernetes.object("lease", "federation-system", "federation-agent")
        return str(lease.get("spec", {}).get("holderIdentity", "")).partition("_")[0]

    def exported(self) -> bool:
        """Whether the export stands in etcd."""
        return "app/blue" in self.cluster.status()

    def told(self) -> str:
        """What the agents wrote, for failures."""
        return "\n".join(
            f"== {name}\n{agent.output()[-3000:]}" for name, agent in self.cluster.agents.items()
        )

    def programmed(self, count: str) -> bool:
        """Whether so many of the gateways have the Gateway's configuration."""
        return self.cluster.programmed() == f"True, Programmed: {count} gateways"


@pytest.fixture
def pair(own_kubernetes: KubernetesServer, tmp_path: Path) -> Iterator[Pair]:
    """``a`` leads; ``gw-1`` is connected to it, ``gw-2`` to the standby ``b``."""
    with running_cluster(own_kubernetes, tmp_path, lease=True) as cluster:
        found = Pair(cluster)
        cluster.start_agent("a").says("this agent leads")
        cluster.start_agent("b")
        cluster.start_gateway("gw-1", "a", "b")
        cluster.start_gateway("gw-2", "b", "a")
        until(lambda: cluster.call("gw-1") == "blue", found.told)
        until(lambda: cluster.call("gw-2") == "blue", found.told)
        yield found


def test_gateways_of_both_agents_count(pair: Pair) -> None:
    until(lambda: pair.programmed("2/2"), lambda: (pair.cluster.programmed(), pair.told()))
    assert pair.holder() == "a"
    # All of it with the rights of clusters/base/agent/rbac.yaml.
    assert ": 403" not in pair.told()


def test_a_leader_that_dies_is_followed_within_the_lease(pair: Pair) -> None:
    cluster = pair.cluster
    until(lambda: pair.programmed("2/2"), pair.told)
    with cluster.load() as calls:
        cluster.agents["a"].command.send_signal(signal.SIGKILL)
        died = time.monotonic()
        # The standby goes on serving what changes, before it leads.
        cluster.route_to("green")
        until(lambda: cluster.call("gw-2") == "green", pair.told)
        until(lambda: cluster.call("gw-1") == "green", pair.told)
        assert pair.holder() == "a"
        cluster.kubectl("apply", "-f", "-", stdin=EXPORT)
        until(pair.exported, pair.told)
        took_s = time.monotonic() - died
        until(lambda: pair.programmed("2/2"), lambda: (cluster.programmed(), pair.told()))
    assert pair.holder() == "b"
    assert took_s < LEASE_S + 6, took_s
    assert calls.answered > 100
    assert calls.failed == []


def test_a_leader_that_is_told_to_stop_hands_over_at_once(pair: Pair) -> None:
    cluster = pair.cluster
    until(lambda: pair.programmed("2/2"), pair.told)
    with cluster.load() as calls:
        cluster.agents["a"].command.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        cluster.agents["b"].says("this agent leads")
        took_s = time.monotonic() - asked
        assert cluster.agents["a"].ended() == 0
        cluster.kubectl("apply", "-f", "-", stdin=EXPORT)
        until(pair.exported, pair.told)
        until(lambda: pair.programmed("2/2"), pair.told)
    assert took_s < 4, took_s
    assert calls.failed == []
    # It comes back as the one that stands by.
    cluster.start_agent("a")
    until(lambda: cluster.call("gw-1") == "blue", pair.told)
    assert pair.holder() == "b"


def test_a_leader_that_slept_writes_nothing_afterwards(pair: Pair) -> None:
    cluster = pair.cluster
    until(lambda: pair.programmed("2/2"), pair.told)
    sleeper = cluster.agents["a"].command
    sleeper.send_signal(signal.SIGSTOP)
    try:
        cluster.agents["b"].says("this agent leads")
        cluster.kubectl("apply", "-f", "-", stdin=EXPORT)
        until(pair.exported, pair.told)
    finally:
        sleeper.send_signal(signal.SIGCONT)
    cluster.agents["a"].says("this agent stands by")
    assert pair.holder() == "b"
    assert pair.exported()
    members = cluster.federation.fedctl("status", "-o", "json")
    assert members.exit_code == 0, members.output
    cluster.route_to("green")
    until(lambda: cluster.call("gw-1") == "green", pair.told)
    until(lambda: cluster.call("gw-2") == "green", pair.told)


def test_an_api_server_that_is_long_away_changes_no_lead(pair: Pair) -> None:
    cluster = pair.cluster
    until(lambda: pair.programmed("2/2"), pair.told)
    terms = pair.told().count("this agent leads")
    with cluster.load() as calls:
        cluster.kubernetes.kill_api()
        gone = time.monotonic()
        until(lambda: "kubernetes: " in cluster.status(), cluster.status)
        until(lambda: time.monotonic() - gone > LEASE_S + 3, lambda: "the lease's time")
        # The cluster is alive all the while, and says what it does without.
        assert "Stale" not in cluster.status()
        cluster.kubernetes.start_api()
        until(lambda: "kubernetes: " not in cluster.status(), cluster.status)
    assert calls.failed == []
    lease = cluster.kubernetes.object("lease", "federation-system", "federation-agent")
    until(lambda: pair.holder() in ("a", "b"), lambda: json.dumps(lease))
    # At most one hand-over, and one leader: what is exported is written once.
    assert pair.told().count("this agent leads") <= terms + 1
    cluster.kubectl("apply", "-f", "-", stdin=EXPORT)
    until(pair.exported, pair.told)
    until(lambda: pair.programmed("2/2"), lambda: (cluster.programmed(), pair.told()))
