"""What an API server can do wrong, with an agent and a gateway on it and calls going on.

For each: nothing is taken away, no call is lost, `fedctl status` says it, and what changes
afterwards is followed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit import namespace
from tests.testkit.federation import until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.kubernetes_cluster import (
    BASE_MANIFESTS,
    KubernetesCluster,
    running_cluster,
    start_one,
)
from tests.testkit.kubernetes_relay import Relay, relay_before

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(240),
]

EXPORT = """
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: blue, namespace: app}
"""
CRDS = "customresourcedefinitions.apiextensions.k8s.io"


@pytest.fixture
def cluster(own_kubernetes: KubernetesServer, tmp_path: Path) -> Iterator[KubernetesCluster]:
    """A cluster that serves, and exports the Service ``blue``."""
    with running_cluster(own_kubernetes, tmp_path) as found:
        serve(found)
        yield found


@pytest.fixture
def relayed(
    own_kubernetes: KubernetesServer, tmp_path: Path
) -> Iterator[tuple[KubernetesCluster, Relay]]:
    """The same, where the agent reaches the API server through a relay."""
    with relay_before(own_kubernetes) as relay, running_cluster(own_kubernetes, tmp_path) as found:
        found.server = relay.url
        serve(found)
        yield found, relay


def serve(cluster: KubernetesCluster) -> None:
    start_one(cluster)
    cluster.kubectl("apply", "-f", "-", stdin=EXPORT)
    until(lambda: exported(cluster), lambda: told(cluster))


def exported(cluster: KubernetesCluster) -> bool:
    return "app/blue" in cluster.federation.fedctl("get", "exports").output or bool(
        re.search(r"west-a\s+us-west-1\s+\S+\s+\d+\s+1\s", cluster.status())
    )


def told(cluster: KubernetesCluster) -> str:
    return f"{cluster.status()}\n{cluster.agents['agent'].output()[-4000:]}"


@contextlib.contextmanager
def nothing_lost(cluster: KubernetesCluster) -> Iterator[None]:
    """Calls go on, and at the end the export is still there."""
    with cluster.load() as calls:
        yield
    assert calls.answered > 50
    assert calls.failed == []
    assert exported(cluster), told(cluster)


def says(cluster: KubernetesCluster, text: str) -> None:
    """Wait until ``fedctl status`` shows ``text``."""
    until(lambda: text in cluster.status(), lambda: told(cluster), within_s=60)


def silent(cluster: KubernetesCluster) -> None:
    """Wait until ``fedctl status`` shows no trouble with the API server."""
    until(lambda: "kubernetes: " not in cluster.status(), lambda: told(cluster), within_s=60)


def follows(cluster: KubernetesCluster, pod: str = "green") -> None:
    """A change is followed."""
    cluster.route_to(pod)
    until(lambda: cluster.call() == pod, lambda: told(cluster), within_s=60)


def test_a_server_that_is_killed(cluster: KubernetesCluster) -> None:
    with nothing_lost(cluster):
        cluster.kubernetes.kill_api()
        says(cluster, "kubernetes: the API server does not answer")
        cluster.kubernetes.start_api()
        silent(cluster)
        follows(cluster)


def test_a_server_that_is_slow(relayed: tuple[KubernetesCluster, Relay]) -> None:
    cluster, relay = relayed
    with nothing_lost(cluster):
        relay.delay_s = 2.0
        follows(cluster)
        relay.delay_s = 8.0
        says(cluster, "the API server does not answer: GET /version: no answer in 5 s")
        relay.delay_s = 0.0
        silent(cluster)
        follows(cluster, "blue")


def test_a_network_that_swallows_everything(relayed: tuple[KubernetesCluster, Relay]) -> None:
    cluster, relay = relayed
    with nothing_lost(cluster):
        relay.swallow = True
        cluster.route_to("green")
        says(cluster, "kubernetes: the API server does not answer")
        assert cluster.call() == "blue"
        relay.swallow = False
        until(lambda: cluster.call() == "green", lambda: told(cluster), within_s=60)
        silent(cluster)


def test_watches_that_are_silently_dead(relayed: tuple[KubernetesCluster, Relay]) -> None:
    """New connections work, and those of the watches bring nothing any more."""
    cluster, relay = relayed
    with nothing_lost(cluster):
        relay.swallow_watches = True
        cluster.route_to("green")
        # By a list, made since the watch said nothing.
        until(lambda: cluster.call() == "green", lambda: told(cluster), within_s=60)
        assert "silent for 20 s" in cluster.agents["agent"].output()
        relay.swallow_watches = False
        silent(cluster)


def test_a_server_that_was_restored_from_an_old_backup(cluster: KubernetesCluster) -> None:
    kubernetes = cluster.kubernetes
    cluster.kubectl("delete", "serviceexport", "blue", "-n", "app")
    cluster.kubectl("delete", "grpcroute", "echo", "-n", "app")
    cluster.kubectl("delete", "endpointslice", "blue-1", "-n", "app")
    until(lambda: not exported(cluster), lambda: told(cluster))
    until(lambda: cluster.call() == "", lambda: told(cluster))
    backup = kubernetes.back_up()
    cluster.apply_all()
    cluster.kubectl("apply", "-f", "-", stdin=EXPORT)
    until(lambda: cluster.call() == "blue", lambda: told(cluster), within_s=60)
    until(lambda: exported(cluster), lambda: told(cluster), within_s=60)
    with nothing_lost(cluster):
        kubernetes.restore(backup)
        says(cluster, "the API server went back from version")
        assert "echo" not in cluster.kubectl("get", "grpcroutes", "-A")
        # What is written again is believed, one by one.
        cluster.apply_all()
        follows(cluster)
        cluster.route_to("blue")
        until(lambda: cluster.call() == "blue", lambda: told(cluster))
    assert "went back" in cluster.status(), "the export is still doubted"
    accepted = cluster.federation.fedctl("accept-shrink", "west-a")
    assert accepted.exit_code == 0, accepted.output
    silent(cluster)
    until(lambda: not exported(cluster), lambda: told(cluster))


def test_an_agent_that_starts_while_the_server_is_away(cluster: KubernetesCluster) -> None:
    """It serves what it knows; one that knows nothing, not even who it is, waits."""
    with nothing_lost(cluster):
        first = cluster.agents["agent"].command
        cluster.kubeconfig = cluster.token()
        cluster.kubernetes.kill_api()
        first.kill()
        first.wait()
        again = cluster.start_agent("agent")
        again.says("serving the last good state")
        says(cluster, "kubernetes: the API server does not answer")
        cluster.kubernetes.start_api()
        silent(cluster)
        follows(cluster)
        again.command.kill()
        again.command.wait()
        cluster.kubernetes.kill_api()
        fresh = cluster.start_agent("agent", "--state-dir", str(cluster.directory / "elsewhere"))
        fresh.says("the cluster's identity is not known now")
        cluster.kubernetes.start_api()
        fresh.says("heartbeat is present")
        follows(cluster, "blue")


def test_credentials_that_are_revoked(cluster: KubernetesCluster) -> None:
    kubectl = cluster.kubectl
    with nothing_lost(cluster):
        kubectl("delete", "clusterrolebinding", "federation-agent")
        says(cluster, ": 403: ")
        cluster.prepare()
        silent(cluster)
        follows(cluster)
        kubectl("delete", "serviceaccount", "federation-agent", "-n", "federation-system")
        says(cluster, ": 401: ")
        kubectl("apply", "-f", str(BASE_MANIFESTS / "agent" / "rbac.yaml"))
        # A token is of one account, and the new one's is read from the file where it is renewed.
        cluster.token()
        silent(cluster)
        follows(cluster, "blue")


def test_a_clock_that_is_wrong(relayed: tuple[KubernetesCluster, Relay]) -> None:
    """The server's clock is years ahead, then years behind: nothing is ordered by it."""
    cluster, relay = relayed
    with nothing_lost(cluster):
        relay.date = "Tue, 01 Jan 2036 00:00:00 GMT"
        relay.rewrite = lambda line: re.sub(
            rb'"creationTimestamp":"\d{4}', b'"creationTimestamp":"2036', line
        )
        says(cluster, "ahead of ours; nothing is ordered by clocks")
        follows(cluster)
        relay.date = "Sat, 01 Jan 2000 00:00:00 GMT"
        relay.rewrite = lambda line: re.sub(
            rb'"creationTimestamp":"\d{4}', b'"creationTimestamp":"2000', line
        )
        says(cluster, "behind ours; nothing is ordered by clocks")
        follows(cluster, "blue")
        relay.date = ""
        silent(cluster)


def test_a_kind_that_is_served_no_more_and_comes_back(cluster: KubernetesCluster) -> None:
    """Served under another version first, then under none: its objects stay in force."""
    name = "grpcroutes.gateway.networking.k8s.io"

    def serve_version(*, served: bool) -> None:
        patch = [{"op": "replace", "path": "/spec/versions/0/served", "value": served}]
        cluster.patch(CRDS, "", name, patch)

    with nothing_lost(cluster):
        serve_version(served=False)
        says(cluster, f"kubernetes: {name}: the kind is served no more; its 1 objects stay")
        assert cluster.call() == "blue"
        serve_version(served=True)
        silent(cluster)
        follows(cluster)
