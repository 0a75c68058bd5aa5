"""The documents' manifests, unchanged, through ``fedctl standalone``: each shows on traffic.

Beside the files stand only what they name and do not bring: Services with endpoints, certificates.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import yaml

from federation.cli.lab.authority import Authority
from tests.testkit.federation import ROOT, until
from tests.testkit.ports import free_port

DOCUMENTS = Path(__file__).parents[1] / "manifests"
HOST = "grpc.example.com"
USERS = "com.example.api.UserService"

SECRET = """
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: infra}}
type: kubernetes.io/tls
data: {{tls.crt: {certificate}, tls.key: {key}}}
"""

SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: app}}
spec: {{ports: [{{name: grpc, port: 9090}}]}}
"""

ENDPOINT = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{port}, namespace: app, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: grpc, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
"""


class Server(grpc.GenericRpcHandler):
    """Answers every method with its name; keeps what it was sent."""

    def __init__(self, name: str, *, fail: bool = False) -> None:
        self.name = name
        self.fail = fail
        self.seen: list[dict[str, str | bytes]] = []
        server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((self,))
        self.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.stop: Callable[[], threading.Event] = lambda: server.stop(None)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self.seen.append(dict(context.invocation_metadata()))
        if self.fail:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"{self.name} fails")
        return self.name.encode()


@dataclass
class Edge:
    """A gateway that serves a folder."""

    folder: Path
    offset: int
    authority: Authority
    servers: dict[str, list[Server]] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)

    def document(self, name: str, *, only: tuple[int, ...] = ()) -> None:
        """Put a document's file into the folder, or only some of the objects in it."""
        source = DOCUMENTS / name
        if not only:
            shutil.copy(source, self.folder / name)
            return
        objects = source.read_text().split("\n---\n")
        (self.folder / name).write_text("\n---\n".join(objects[index] for index in only))

    def serve(self, *names: str, fail: bool = False) -> None:
        """A server more for each Service."""
        for name in names:
            self.servers.setdefault(name, []).append(Server(name, fail=fail))
        text = ""
        for name, servers in self.servers.items():
            text += SERVICE.format(name=name)
            text += "".join(ENDPOINT.format(name=name, port=server.port) for server in servers)
        (self.folder / "services.yaml").write_text(text)

    def certificate(self, name: str, *hosts: str) -> None:
        """A certificate of the test's authority in a Secret."""
        pair = self.authority.issue(hosts[0], dns=hosts)
        values = {"certificate": pair.certificate_pem, "key": pair.key_pem}
        encoded = {key: base64.b64encode(value).decode() for key, value in values.items()}
        (self.folder / f"{name}.yaml").write_text(SECRET.format(name=name, **encoded))

    @contextlib.contextmanager
    def calls(self, port: int = 443) -> Iterator[Calls]:
        """A client of the listener on ``port``, over TLS."""
        credentials = grpc.ssl_channel_credentials(self.authority.certificate_pem)
        options = [
            ("grpc.ssl_target_name_override", HOST),
            ("grpc.default_authority", HOST),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.enable_retries", 0),
        ]
        target = f"127.0.0.1:{port + self.offset}"
        with grpc.secure_channel(target, credentials, options) as channel:
            yield Calls(channel)


@dataclass
class Calls:
    """Calls on one channel."""

    channel: grpc.Channel

    def __call__(self, method: str = "GetUser", *, service: str = USERS, **headers: str) -> str:
        """The server that answered, or the name of the status."""
        return self.whole(method, service=service, **headers)[0]

    def whole(
        self, method: str = "GetUser", *, service: str = USERS, **headers: str
    ) -> tuple[str, dict[str, str | bytes]]:
        """The server that answered and the response's metadata."""
        metadata = [(name.replace("_", "-"), value) for name, value in headers.items()]
        multi = self.channel.unary_unary(f"/{service}/{method}")
        try:
            answer, call = multi.with_call(b"", metadata=metadata, timeout=5)
        except grpc.RpcError as error:
            return error.code().name, {}
        return answer.decode(), dict(call.initial_metadata())

    def split(self, count: int, **headers: str) -> Counter[str]:
        """How many of ``count`` calls each server answered."""
        return Counter(self(**headers) for _ in range(count))


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    """A running gateway on an empty folder."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    found = Edge(folder, free_port() - 443, Authority("test"))
    command = [
        *(sys.executable, "-c", "from federation.cli.main import main; main()", "standalone"),
        *("--manifests", str(folder), "--port-offset", str(found.offset)),
    ]
    log = tmp_path / "standalone.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield found
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        for servers in found.servers.values():
            for server in servers:
                server.stop()
        print(log.read_text(errors="replace"))


def basics(edge: Edge) -> None:
    """The Gateway of the first document and its certificate; its route is left out."""
    edge.document("1-basic-routing.yaml", only=(0,))
    edge.certificate("grpc-cert", HOST)


def test_1_services_and_methods_have_their_backends(edge: Edge) -> None:
    edge.serve("user-service", "order-service")
    edge.certificate("grpc-cert", HOST)
    edge.document("1-basic-routing.yaml")
    with edge.calls() as call:
        until(lambda: call() == "user-service", call)
        assert call("DeleteUser") == "user-service"
        assert call("GetOrder", service="com.example.api.OrderService") == "order-service"
        assert call("GetItem", service="com.example.api.ItemService") == "UNIMPLEMENTED"


def test_2_weights_split_and_change_while_calls_run(edge: Edge) -> None:
    edge.serve("user-service-v1", "user-service-v2")
    basics(edge)
    edge.document("2-weighted-split.yaml")
    with edge.calls() as call:
        until(lambda: call().startswith("user-service"), call)
        seen = call.split(1000)
        assert set(seen) == {"user-service-v1", "user-service-v2"}
        assert 0.74 < seen["user-service-v1"] / 1000 < 0.86
        path = edge.folder / "2-weighted-split.yaml"
        weights = {"weight: 80": "weight: 0", "weight: 20": "weight: 100"}
        text = path.read_text()
        for before, after in weights.items():
            text = text.replace(before, after)
        path.write_text(text)
        meanwhile: Counter[str] = Counter()

        def all_moved() -> bool:
            now = call.split(50)
            meanwhile.update(now)
            return set(now) == {"user-service-v2"}

        until(all_moved, lambda: meanwhile)
        assert set(meanwhile) <= {"user-service-v1", "user-service-v2"}


def test_3_a_canary_marks_its_answers(edge: Edge) -> None:
    edge.serve("user-service-v1", "user-service-v2")
    basics(edge)
    edge.document("3-canary.yaml")
    with edge.calls() as call:
        until(lambda: call().startswith("user-service"), call)
        answers = [call.whole() for _ in range(400)]
        share = sum(name == "user-service-v2" for name, _ in answers) / len(answers)
        assert 0 < share < 0.15
        # The filter stands on the rule, so every answer is marked.
        assert all(metadata.get("x-backend-version") == "canary-v2" for _, metadata in answers)


def test_3_the_filter_may_stand_on_the_backend(edge: Edge) -> None:
    edge.serve("user-service-v1", "user-service-v2")
    basics(edge)
    route = yaml.safe_load((DOCUMENTS / "3-canary.yaml").read_text().split("\n---\n")[0])
    rule = route["spec"]["rules"][0]
    rule["backendRefs"][1] |= {"filters": rule.pop("filters"), "weight": 95}
    (edge.folder / "3.yaml").write_text(yaml.safe_dump(route))
    with edge.calls() as call:
        until(lambda: call().startswith("user-service"), call)
        answers = [call.whole() for _ in range(200)]
        assert {name for name, _ in answers} == {"user-service-v1", "user-service-v2"}
        for name, metadata in answers:
            assert ("x-backend-version" in metadata) == (name == "user-service-v2")


def test_4_methods_before_headers_before_services(edge: Edge) -> None:
    edge.serve("user-service-staging", "user-service-v1", "user-service-v2")
    edge.serve("user-read-service", "user-write-service", "user-read-service-v2", "user-service")
    basics(edge)
    edge.document("4-header-and-method.yaml")
    with edge.calls() as call:
        until(lambda: call("Other") == "user-service-v1", lambda: call("Other"))
        assert call("Other", x_env="staging") == "user-service-staging"
        assert call("Other", x_env="canary") == "user-service-v2"
        assert call("GetUser", x_env="staging") == "user-read-service"
        assert call("CreateUser") == "user-write-service"
        listed = Counter(call("ListUsers") for _ in range(300))
        assert set(listed) == {"user-read-service", "user-read-service-v2"}
        assert 0.8 < listed["user-read-service"] / 300 < 0.98


def test_4_request_headers_are_added_set_and_removed(edge: Edge) -> None:
    edge.serve("user-service")
    basics(edge)
    edge.document("4-header-and-method.yaml", only=(2,))
    with edge.calls() as call:
        until(lambda: call() == "user-service", call)
        assert call(x_trace_id="mine", x_internal_token="secret") == "user-service"
        seen = edge.servers["user-service"][0].seen[-1]
        assert (seen["x-gateway-source"], seen["x-trace-id"]) == ("gateway-api", "auto-generated")
        assert "x-internal-token" not in seen


def test_5_the_older_policy_retries(edge: Edge) -> None:
    edge.serve("user-service", "order-service")
    edge.serve("user-service", fail=True)
    edge.certificate("grpc-cert", HOST)
    edge.document("1-basic-routing.yaml")
    good, bad = edge.servers["user-service"]
    with edge.calls() as call:
        until(lambda: call() == "user-service", call)
        until(lambda: call() == "UNAVAILABLE", call)
        edge.document("5-retry-and-circuit-breaker.yaml")
        until(lambda: call.split(20) == {"user-service": 20}, lambda: call.split(20))
        assert call.split(100) == {"user-service": 100}
        # Ejected after three failures in a row, as consecutiveGatewayFailures says.
        asked = len(bad.seen)
        assert call.split(50) == {"user-service": 50}
        assert len(bad.seen) - asked <= 1
        assert len(good.seen) > 150


def test_8_a_standby_with_weight_zero_gets_nothing(edge: Edge) -> None:
    edge.serve("user-service-primary", "user-service-secondary")
    basics(edge)
    edge.document("8-keepalive-health-coexistence.yaml", only=(0, 1))
    with edge.calls() as call:
        until(lambda: call() == "user-service-primary", call)
        assert call.split(100) == {"user-service-primary": 100}
        seen = edge.servers["user-service-primary"][0].seen[-1]
        assert seen["x-failover-enabled"] == "true"
