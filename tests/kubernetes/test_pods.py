"""Pods as processes: what tests rest on when they want Deployments that run.

Each Pod has addresses and files of its own; readiness, restarts and the end of a Pod are as on a
cluster, so that EndpointSlices say what they would say there.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.testkit import namespace
from tests.testkit.federation import Process, until
from tests.testkit.kubernetes import KubernetesServer, running_kubernetes
from tests.testkit.pods import running_pods

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(120),
]

SERVER = Path(__file__).parent / "data" / "pod_server.py"
HEALTH = """
import grpc
from concurrent import futures
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
server = grpc.server(futures.ThreadPoolExecutor(2))
checks = health.HealthServicer()
checks.set("ready", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(checks, server)
server.add_insecure_port("0.0.0.0:9090")
server.start()
server.wait_for_termination()
"""
IMAGES = {
    "example.test/server": {"entrypoint": [sys.executable, str(SERVER)], "env": {"FROM": "image"}},
    "example.test/shell": {"entrypoint": ["/bin/sh", "-c"]},
    "example.test/health": {"entrypoint": [sys.executable, "-c"], "command": [HEALTH]},
}
PORT = 8080
OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: app}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: app}
stringData: {password: first}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: words, namespace: app}
data: {greeting: hello, name: world}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: app}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers:
      - name: prepare
        image: example.test/shell
        args: ["echo prepared > /shared/prepared"]
        volumeMounts: [{name: shared, mountPath: /shared}]
      containers:
      - name: server
        image: example.test/server:v1
        args: ["for-$(POD_NAME)"]
        ports: [{name: http, containerPort: 8080}]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
        - {name: GREETING, valueFrom: {configMapKeyRef: {name: words, key: greeting}}}
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        lifecycle: {preStop: {httpGet: {path: /drain, port: http}}}
        volumeMounts:
        - {name: shared, mountPath: /shared}
        - {name: keys, mountPath: /etc/keys, readOnly: true}
        - {name: all, mountPath: /etc/all}
      volumes:
      - {name: shared, emptyDir: {}}
      - {name: keys, secret: {secretName: keys}}
      - name: all
        projected:
          sources:
          - {configMap: {name: words, items: [{key: name, path: words/name}]}}
          - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
"""


PROBED = """
apiVersion: v1
kind: Pod
metadata: {name: probed, namespace: app}
spec:
  containers:
  - name: commands
    image: example.test/server
    readinessProbe: {exec: {command: [test, -e, /srv/ready]}, periodSeconds: 1}
    livenessProbe:
      exec: {command: [test, "!", -e, /srv/broken]}
      periodSeconds: 1
      failureThreshold: 1
  - name: connections
    image: example.test/shell
    args: ["exec sleep 1000"]
    securityContext: {readOnlyRootFilesystem: true}
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    readinessProbe: {exec: {command: [sh, -c, "! touch /srv/mine"]}, periodSeconds: 1}
  - name: health
    image: example.test/health
    readinessProbe: {grpc: {port: 9090, service: ready}, periodSeconds: 1}
"""


@dataclass
class Cluster:
    """A cluster whose Pods run."""

    kubernetes: KubernetesServer
    runner: Process

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """One command of kubectl, which must succeed."""
        program = Path(sys.executable).with_name("kubectl")
        command = [str(program), "--kubeconfig", str(self.kubernetes.kubeconfig), *arguments]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def items(self, kind: str, *selector: str) -> list[dict[str, Any]]:
        """Objects of a kind in namespace app."""
        shown = self.kubectl("get", kind, "-n", "app", "-o", "json", *selector)
        return list(json.loads(shown)["items"])

    def pods(self) -> dict[str, str]:
        """Names of the Pods of the Deployment that are ready, by their addresses."""
        return {
            pod["status"]["podIP"]: pod["metadata"]["name"]
            for pod in self.items("pods", "-l", "app=web")
            if _condition(pod, "Ready") == "True"
        }

    def endpoints(self) -> dict[str, dict[str, bool]]:
        """Conditions of the Service's endpoints by address."""
        return {
            endpoint["addresses"][0]: endpoint["conditions"]
            for found in self.items("endpointslices", "-l", "kubernetes.io/service-name=web")
            for endpoint in found["endpoints"] or ()
        }

    def ready(self) -> bool:
        """Whether the EndpointSlices show the Deployment's two Pods as ready."""
        shown = [at for at, conditions in self.endpoints().items() if conditions["ready"]]
        return len(shown) == 2 and set(shown) == set(self.pods())

    def told(self) -> str:
        """What is there, for a failed wait."""
        return self.kubectl("get", "pods,endpointslices", "-A", "-o", "wide") + self.runner.output()


@pytest.fixture(scope="module")
def cluster(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The Deployment runs and is ready."""
    state = tmp_path_factory.mktemp("pods")
    nodes = ("--node", "node-a=zone-a", "--node", "node-b=zone-b")
    with (
        running_kubernetes(controllers=True, service_network="10.96.0.0/17") as server,
        running_pods(server, IMAGES, state, *nodes) as runner,
    ):
        found = Cluster(server, runner)
        found.kubectl("apply", "-f", "-", stdin=OBJECTS)
        until(found.ready, found.told)
        yield found


def test_a_deployment_is_ready_in_both_zones(cluster: Cluster) -> None:
    cluster.kubectl("rollout", "status", "deployment/web", "-n", "app", "--timeout=20s")
    (found,) = cluster.items("endpointslices", "-l", "kubernetes.io/service-name=web")
    assert {endpoint["zone"] for endpoint in found["endpoints"]} == {"zone-a", "zone-b"}


def test_pods_listen_on_one_port_and_see_what_they_are_given(cluster: Cluster) -> None:
    for address, name in cluster.pods().items():
        seen = json.loads(_get(f"http://{address}:{PORT}/"))
        env = seen["env"]
        assert seen["host"] == env["POD_NAME"] == name
        assert env["POD_IP"] == address
        assert (env["FROM"], env["GREETING"]) == ("image", "hello")
        assert _file(address, "/shared/prepared") == "prepared\n"
        assert _file(address, "/etc/all/words/name") == "world"
        assert 'app="web"' in _file(address, "/etc/all/labels")
        assert _file(address, "/proc/1/cmdline").rstrip("\0").endswith(f"\0for-{name}")


def test_services_lead_to_the_pods_from_outside_and_from_pods(cluster: Cluster) -> None:
    (service,) = cluster.items("services")
    (ingress,) = service["status"]["loadBalancer"]["ingress"]
    for address in (service["spec"]["clusterIP"], ingress["ip"]):
        answers = {json.loads(_get(f"http://{address}:80/"))["host"] for _ in range(4)}
        assert answers == set(cluster.pods().values())
    here, there = cluster.pods()
    for url in (f"http://{there}:{PORT}/", f"http://{service['spec']['clusterIP']}:80/"):
        assert json.loads(_get(f"http://{here}:{PORT}/fetch?{url}"))["host"]
    env = json.loads(_get(f"http://{here}:{PORT}/"))["env"]
    api = f"https://{env['KUBERNETES_SERVICE_HOST']}:{env['KUBERNETES_SERVICE_PORT']}/version"
    assert "gitVersion" in _get(f"http://{here}:{PORT}/fetch?{api}")


def test_kubectl_logs_shows_what_a_pod_wrote(cluster: Cluster) -> None:
    address, name = next(iter(cluster.pods().items()))
    _get(f"http://{address}:{PORT}/?marked")

    def marked(*options: str) -> bool:
        return "GET /?marked" in cluster.kubectl("logs", name, "-n", "app", *options)

    until(lambda: marked("-c", "server", "--tail=20"), cluster.told)
    assert not marked("-c", "server", "--since-time=2100-01-01T00:00:00Z")
    assert marked("-c", "server", "--since=1m")


def test_a_changed_secret_comes_into_the_pods(cluster: Cluster) -> None:
    address = next(iter(cluster.pods()))
    assert _file(address, "/etc/keys/password") == "first"
    patch = json.dumps({"stringData": {"password": "second"}})
    cluster.kubectl("patch", "secret", "keys", "-n", "app", "-p", patch)
    until(lambda: _file(address, "/etc/keys/password") == "second", cluster.told)
    assert json.loads(_get(f"http://{address}:{PORT}/"))["env"]["PASSWORD"] == "first"


def test_a_container_that_fails_starts_again(cluster: Cluster) -> None:
    address, name = next(iter(cluster.pods().items()))

    def status() -> dict[str, Any]:
        (pod,) = (p for p in cluster.items("pods") if p["metadata"]["name"] == name)
        return dict(pod["status"]["containerStatuses"][0])

    before = status()["restartCount"]
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        _get(f"http://{address}:{PORT}/fail")
    until(lambda: status()["restartCount"] == before + 1, cluster.told)
    assert status()["lastState"]["terminated"]["exitCode"] == 3
    until(cluster.ready, cluster.told)
    assert cluster.pods()[address] == name


def test_a_deleted_pod_drains_and_is_replaced(cluster: Cluster) -> None:
    before = cluster.pods()
    address, name = next(iter(before.items()))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(_get, f"http://{address}:{PORT}/hold")
        cluster.kubectl("delete", "pod", name, "-n", "app", "--wait=false")
        # It was answered after its preStop hook had begun, and before the server was told to end.
        assert json.loads(held.result(timeout=20))["host"] == name
    draining = {"ready": False, "serving": True, "terminating": True}
    until(lambda: cluster.endpoints().get(address) == draining, cluster.endpoints)
    _get(f"http://{address}:{PORT}/finish")
    until(cluster.ready, cluster.told)
    after = cluster.pods()
    assert address not in after
    assert len(before.keys() & after.keys()) == 1
    until(lambda: name not in _names(cluster), cluster.told)


def test_probes_of_each_kind_decide(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=PROBED)

    def shown() -> dict[str, tuple[bool, int]]:
        (pod,) = (p for p in cluster.items("pods") if p["metadata"]["name"] == "probed")
        found = pod["status"].get("containerStatuses", ())
        return {entry["name"]: (entry["ready"], entry["restartCount"]) for entry in found}

    others = {"connections": (True, 0), "health": (True, 0)}
    until(lambda: shown() == {"commands": (False, 0), **others}, cluster.told)
    (pod,) = (p for p in cluster.items("pods") if p["metadata"]["name"] == "probed")
    at = f"http://{pod['status']['podIP']}:{PORT}"
    _get(f"{at}/touch?/srv/ready")
    until(lambda: shown() == {"commands": (True, 0), **others}, cluster.told)
    _get(f"{at}/touch?/srv/broken")
    # It starts again on files of its own, without what was written before.
    until(lambda: shown() == {"commands": (False, 1), **others}, cluster.told)
    assert not Path("/srv/ready").exists()
    cluster.kubectl("delete", "pod", "probed", "-n", "app", "--wait=false", "--now")


def test_pods_of_two_clusters_meet_at_load_balancers_only(cluster: Cluster, tmp_path: Path) -> None:
    options = (
        *("--bridge", "pods1", "--pod-network", "10.78.1.0/24"),
        *("--load-balancers", "10.77.201.0/24"),
    )
    with (
        running_kubernetes(service_network="10.96.128.0/17") as server,
        running_pods(server, IMAGES, tmp_path, *options) as runner,
    ):
        other = Cluster(server, runner)
        other.kubectl("create", "namespace", "app")
        labels = ("--labels", "app=web")
        other.kubectl("run", "web", "-n", "app", "--image=example.test/server", *labels)
        (here,) = until(other.pods, other.told)
        until(lambda: _answers(here), other.told)
        (service,) = cluster.items("services")
        (ingress,) = service["status"]["loadBalancer"]["ingress"]
        across = f"http://{here}:{PORT}/fetch?http://{ingress['ip']}:80/"
        assert json.loads(_get(across))["host"] in cluster.pods().values()
        there = next(iter(cluster.pods()))
        assert _answers(there)
        with pytest.raises(urllib.error.HTTPError) as refused:
            _get(f"http://{here}:{PORT}/fetch?http://{there}:{PORT}/")
        assert "timed out" in refused.value.read().decode()
        refused.value.close()


def test_what_cannot_run_says_why(cluster: Cluster) -> None:
    cluster.kubectl("run", "stranger", "-n", "app", "--image=example.test/unknown")

    def why() -> str:
        (pod,) = (p for p in cluster.items("pods") if p["metadata"]["name"] == "stranger")
        (container,) = pod["status"].get("containerStatuses") or [{"state": {}}]
        return str(container["state"].get("waiting", {}).get("message", ""))

    until(lambda: "no local command stands for image" in why(), cluster.told)
    cluster.kubectl("delete", "pod", "stranger", "-n", "app", "--timeout=20s")


def test_statuses_come_to_rest(cluster: Cluster) -> None:
    """No write without a change: what was written equals what is read back."""

    def versions() -> dict[str, str]:
        return {pod["metadata"]["name"]: _version(pod) for pod in cluster.items("pods")}

    until(lambda: versions() == versions(), cluster.told)


def _version(item: dict[str, Any]) -> str:
    return str(item["metadata"]["resourceVersion"])


def _names(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["name"] for pod in cluster.items("pods")}


def _condition(item: dict[str, Any], kind: str) -> str:
    found = {entry["type"]: entry["status"] for entry in item["status"].get("conditions", ())}
    return str(found.get(kind, ""))


def _get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=20) as answer:
        return str(answer.read().decode())


def _answers(address: str) -> bool:
    try:
        return bool(_get(f"http://{address}:{PORT}/"))
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError):
        # The last two: it ended in the middle of an answer.
        return False


def _file(address: str, path: str) -> str:
    return _get(f"http://{address}:{PORT}/file?{path}")
