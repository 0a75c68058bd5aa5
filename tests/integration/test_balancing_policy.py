"""Each field of `loadBalancer`, `circuitBreaker` and `connectionPool`, from a manifest to traffic.

One `fedctl standalone` serves a route with a policy of its own for each test; the servers behind
are real gRPC servers of the tests' own.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.native.support import Backend, backends, call, failure, unary, wait_until
from tests.testkit.ports import free_port

ROOT = Path(__file__).parents[2]
GROUP = "gateway.networking.k8s.io"
ALL = ("a", "b", "c")


def key(**spec: Any) -> dict[str, Any]:
    return {"loadBalancer": {"type": "ConsistentHash", "consistentHash": spec}}


EJECT = {"baseEjectionTime": "1m", "consecutiveFailures": 1000, "consecutiveGatewayFailures": 1000}
TURNS = {"loadBalancer": {"type": "RoundRobin"}}
POLICIES: dict[str, dict[str, Any]] = {
    "turns": TURNS,
    "least": {"loadBalancer": {"type": "LeastRequest"}},
    "peak": {"loadBalancer": {"type": "PeakEWMA"}},
    "header": key(type="Header", header={"name": "X-User"}),
    "headers": key(type="Headers", headers=[{"name": "x-user"}, {"name": "x-team"}]),
    "cookie": key(type="Cookie", cookie={"name": "sid"}, algorithm="RingHash"),
    "source": key(type="SourceIP"),
    "two-slots": key(type="Header", header={"name": "x-user"}, tableSize=2),
    "slow": {"loadBalancer": {"slowStart": {"window": "10m", "minWeightPercent": 1}}},
    "in-a-row": TURNS | {"circuitBreaker": EJECT | {"consecutiveFailures": 3}},
    "share": TURNS
    | {
        "circuitBreaker": EJECT
        | {"failurePercentage": {"threshold": 30, "requestVolume": 20, "minimumHosts": 3}}
    },
    "bounded-time": TURNS
    | {
        "circuitBreaker": {
            "consecutiveFailures": 2,
            "consecutiveGatewayFailures": 2,
            "interval": "10m",
            "baseEjectionTime": "300ms",
            "maxEjectionTime": "500ms",
        }
    },
    "parallel": {"connectionPool": {"maxParallelRequests": 2}},
    "pending": {"connectionPool": {"maxConnections": 1, "maxPendingRequests": 1}},
    "per-connection": {"connectionPool": {"maxRequestsPerConnection": 3}},
}


@dataclass
class Gateway:
    """The process, its folder, and the servers of each route by name."""

    folder: Path
    port: int
    admin: int
    servers: dict[str, list[Backend]] = field(default_factory=dict)

    @contextlib.contextmanager
    def client(self, name: str, *, port: int | None = None) -> Iterator[grpc.Channel]:
        """A connection of its own to the route ``name``."""
        options = [
            ("grpc.default_authority", f"{name}.example.com"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
        ]
        with grpc.insecure_channel(f"127.0.0.1:{port or self.port}", options) as made:
            yield made

    def write(self, name: str, servers: Sequence[Backend]) -> None:
        """Serve the route ``name`` by these servers."""
        self.servers[name] = [*servers]
        text = "\n---\n".join(json.dumps(it) for it in manifests(name, servers))
        new = self.folder / f".{name}.new"
        new.write_text(text)
        new.replace(self.folder / f"{name}.yaml")

    def core(self) -> dict[str, Any]:
        """The core's counters."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)["core"]
        return found

    def ejected(self, name: str) -> set[str]:
        """Addresses of the route's servers that are out."""
        return {
            it["address"]
            for it in self.core()["endpoints"]
            if f"/{name}/" in it["cluster"] and it["ejected_until_unix_ms"] is not None
        }


def manifests(name: str, servers: Sequence[Backend]) -> list[dict[str, Any]]:
    route = {"group": GROUP, "kind": "GRPCRoute", "name": name}
    service = {"ports": [{"name": "grpc", "port": 9090}]}
    return [
        _object(f"{GROUP}/v1", "GRPCRoute", name)
        | {
            "spec": {
                "parentRefs": [{"name": "gw"}],
                "hostnames": [f"{name}.example.com"],
                "rules": [{"backendRefs": [{"name": name, "port": 9090}]}],
            }
        },
        _object(f"{GROUP}/v1alpha3", "BackendTrafficPolicy", name)
        | {"spec": {"targetRef": route} | POLICIES[name]},
        _object("v1", "Service", name) | {"spec": service},
        *(_slice(name, number, server) for number, server in enumerate(servers)),
    ]


def _object(api_version: str, kind: str, name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "app"}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _slice(name: str, number: int, server: Backend) -> dict[str, Any]:
    found = _object("discovery.k8s.io/v1", "EndpointSlice", f"{name}-{number}")
    found["metadata"]["labels"] = {"kubernetes.io/service-name": name}
    port = int(server.address.rpartition(":")[2])
    return found | {
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": port}],
        "endpoints": [{"addresses": ["127.0.0.1"]}],
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("manifests")
    found = Gateway(folder, free_port(), free_port())
    (folder / "gateway.yaml").write_text(
        json.dumps(
            _object(f"{GROUP}/v1", "Gateway", "gw")
            | {
                "spec": {
                    "gatewayClassName": "istio",
                    "listeners": [{"name": "grpc", "port": found.port, "protocol": "HTTP"}],
                }
            }
        )
    )
    command = [sys.executable, "-c", "from federation.cli.main import main; main()", "standalone"]
    command += [f"--manifests={folder}", "--port-offset=0", f"--admin=127.0.0.1:{found.admin}"]
    with contextlib.ExitStack() as stack:
        for name in POLICIES:
            found.write(name, stack.enter_context(backends(*ALL)))
        with subprocess.Popen(command, cwd=ROOT) as child:
            try:
                wait_until(lambda: _listens(found.port), "the gateway listens")
                yield found
            finally:
                child.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def served_by(client: grpc.Channel, count: int, **metadata: str) -> collections.Counter[str]:
    """Who answered ``count`` calls; failed ones count as "failed"."""

    def one() -> str:
        try:
            pairs = tuple((name.replace("_", "-"), it) for name, it in metadata.items())
            return call(client, metadata=pairs)[1]
        except grpc.RpcError:
            return "failed"

    return collections.Counter(one() for _ in range(count))


def slow(gateway: Gateway, name: str, delay_s: float) -> None:
    gateway.servers[name][2].delay_s = delay_s


def test_round_robin(gateway: Gateway) -> None:
    with gateway.client("turns") as client:
        assert served_by(client, 90) == {"a": 30, "b": 30, "c": 30}


def test_peak_ewma_spares_the_slow_and_least_request_counts_open_calls(gateway: Gateway) -> None:
    shares = {}
    for name in ("least", "peak"):
        slow(gateway, name, 0.03)
        with gateway.client(name) as client:
            shares[name] = served_by(client, 120)["c"]
    assert shares["least"] > 18
    assert shares["peak"] < 14


def homes(client: grpc.Channel, header: str, values: Sequence[str]) -> dict[str, str]:
    return {it: call(client, metadata=((header, it),))[1] for it in values}


USERS = [f"user-{number}" for number in range(40)]


def test_a_header_is_a_key(gateway: Gateway) -> None:
    with gateway.client("header") as client, gateway.client("header") as other:
        found = homes(client, "x-user", USERS)
        assert set(found.values()) == {*ALL}
        assert homes(other, "x-user", USERS) == found


def test_headers_are_a_key_together(gateway: Gateway) -> None:
    with gateway.client("headers") as client:
        teams = [
            {it: served_by(client, 3, x_user=it, x_team=team) for it in USERS} for team in "xy"
        ]
        assert all(len(served) == 1 for team in teams for served in team.values())
        assert teams[0] != teams[1], "the other header counts too"
        assert {name for served in teams[0].values() for name in served} == {*ALL}


def test_a_cookie_is_a_key_also_when_cookies_are_split(gateway: Gateway) -> None:
    with gateway.client("cookie") as client:
        found = homes(client, "cookie", [f"sid={it}" for it in USERS])
        assert set(found.values()) == {*ALL}
        for name in USERS:
            split = (("cookie", "other=1"), ("cookie", f"sid={name}"))
            assert call(client, metadata=split)[1] == found[f"sid={name}"]


@contextlib.contextmanager
def coming_from(source: str, port: int) -> Iterator[int]:
    """A port of this machine that leads to ``port``, where clients are at ``source``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def copy(one: socket.socket, other: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while part := one.recv(65536):
                    other.sendall(part)
                other.shutdown(socket.SHUT_WR)

        def serve() -> None:
            with contextlib.suppress(OSError):
                near, _ = listener.accept()
                far = socket.create_connection(
                    ("127.0.0.1", port), timeout=10, source_address=(source, 0)
                )
                with near, far:
                    back = threading.Thread(target=copy, args=(far, near))
                    back.start()
                    copy(near, far)
                    back.join()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def test_the_clients_address_is_a_key(gateway: Gateway) -> None:
    found = set()
    for number in range(2, 14):
        with (
            coming_from(f"127.0.0.{number}", gateway.port) as port,
            gateway.client("source", port=port) as client,
        ):
            served = served_by(client, 5)
            assert len(served) == 1, served
            found |= {*served}
    assert len(found) > 1


def test_the_size_of_a_table(gateway: Gateway) -> None:
    with gateway.client("two-slots") as client:
        assert len(set(homes(client, "x-user", USERS).values())) == 2


def test_slow_start(gateway: Gateway) -> None:
    known = gateway.servers["slow"]
    with gateway.client("slow") as client, backends("new") as [new]:
        assert set(served_by(client, 60)) == {*ALL}
        gateway.write("slow", [*known, new])
        wait_until(lambda: served_by(client, 60)["new"], "the new server is known")
        assert served_by(client, 300)["new"] < 40, "a fair share is 75"
        gateway.write("slow", known)


def until_ejected(gateway: Gateway, name: str, again: Callable[[], object]) -> set[str]:
    def out() -> set[str]:
        again()
        return gateway.ejected(name)

    wait_until(out, "an endpoint is ejected")
    return gateway.ejected(name)


def test_consecutive_failures(gateway: Gateway) -> None:
    address = gateway.servers["in-a-row"][0].address
    with gateway.client("in-a-row") as client:
        ejected = until_ejected(gateway, "in-a-row", lambda: served_by(client, 3, x_fail_at="a"))
        assert ejected == {address}
        assert set(served_by(client, 30)) == {"b", "c"}


def test_failure_percentage(gateway: Gateway) -> None:
    address = gateway.servers["share"][0].address

    def half() -> None:
        for _ in range(30):
            served_by(client, 1, x_fail_at="a")
            served_by(client, 1)

    with gateway.client("share") as client:
        assert until_ejected(gateway, "share", half) == {address}
        assert set(served_by(client, 30)) == {"b", "c"}


def test_the_time_of_ejections(gateway: Gateway) -> None:
    """At first the base, later the bound: there is no third step of 900 ms."""
    lasted = []

    def events() -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{gateway.admin}/events"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return [
            it for it in found if it["event"] == "ejection" and "/bounded-time/" in it["cluster"]
        ]

    with gateway.client("bounded-time") as client:

        def thrice() -> bool:
            served_by(client, 3, x_fail_at="a")
            return len(events()) >= 3

        wait_until(thrice, "three ejections")
        found = events()[:3]
    starts = [it["until_unix_ms"] for it in found]
    lasted = [later - earlier for earlier, later in itertools.pairwise(starts)]
    # From the end of one to the end of the next: the next one's time, and what it took to fail.
    assert lasted[0] >= 500
    assert 500 <= lasted[1] < 900


def hang(client: grpc.Channel, count: int) -> list[Any]:
    return [unary(client, "Hang").future(b"", timeout=30) for _ in range(count)]


def seen(gateway: Gateway, name: str) -> int:
    return sum(len(it.seen) for it in gateway.servers[name])


def test_parallel_requests(gateway: Gateway) -> None:
    with gateway.client("parallel") as client:
        hanging = hang(client, 2)
        wait_until(lambda: seen(gateway, "parallel") == 2, "two hang")
        error = failure(client)
        assert (error.code(), "max_requests" in error.details()) == (
            grpc.StatusCode.UNAVAILABLE,
            True,
        )
        hanging[0].cancel()
        wait_until(lambda: not served_by(client, 1)["failed"], "there is room again")
        hanging[1].cancel()


def test_connections_and_pending_requests(gateway: Gateway) -> None:
    one_stream = Backend("one", options=(("grpc.max_concurrent_streams", 1),)).start()
    gateway.write("pending", [one_stream])
    with gateway.client("pending") as client:
        wait_until(lambda: set(served_by(client, 3)) == {"one"}, "it is known")
        before = len(one_stream.seen)
        hanging = hang(client, 1)
        wait_until(lambda: len(one_stream.seen) == before + 1, "one hangs")
        open_calls = gateway.core()["numbers"]["calls_open"]
        waiting = hang(client, 1)
        wait_until(lambda: gateway.core()["numbers"]["calls_open"] == open_calls + 1, "one waits")
        assert "max_pending_requests" in failure(client).details()
        assert len(one_stream.seen) == before + 1, "there is one connection, of one stream"
        for future in (*hanging, *waiting):
            future.cancel()
    one_stream.stop()


def test_requests_of_a_connection(gateway: Gateway) -> None:
    gateway.write("per-connection", gateway.servers["per-connection"][:1])
    with gateway.client("per-connection") as client:
        wait_until(lambda: set(served_by(client, 9)) == {"a"}, "the others are gone")
        before = gateway.core()["numbers"]["connects"]
        served_by(client, 9)
        assert gateway.core()["numbers"]["connects"] == before + 3
