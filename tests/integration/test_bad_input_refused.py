"""Manifests that are no valid objects: ``fedctl apply`` and ``standalone`` say the same words.

Each bad file stands in a folder beside good ones: what is good is applied, and is served.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from federation.cli.main import app
from tests.native.support import backends, call, channel
from tests.testkit.etcd import EtcdServer
from tests.testkit.federation import FEDCTL, process
from tests.testkit.ports import free_port

IN_USE = f"{os.strerror(errno.EADDRINUSE)} (os error {errno.EADDRINUSE})"

GOOD = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: infra}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: taken, port: {taken}, protocol: HTTP}}
  - {{name: grpc, port: {grpc}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: good, namespace: app}}
spec:
  parentRefs: [{{name: edge, namespace: infra, sectionName: grpc}}]
  rules: [{{backendRefs: [{{name: echo, port: 9090}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: app}}
spec: {{ports: [{{name: grpc, port: 9090}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: echo-1, namespace: app, labels: {{kubernetes.io/service-name: echo}}}}
addressType: IPv4
ports: [{{name: grpc, port: {backend}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"""

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: {name}
  namespace: app
spec:
  rules:
  - backendRefs:
    - name: a
      port: 9090
      {first}
    - name: b
      port: 9090
      {second}
"""

POLICY = """\
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata:
  name: circle
  namespace: app
spec:
  targetRef:
    group: gateway.networking.k8s.io
    kind: GRPCRoute
    name: good
  failover:
    regionFailover:
    - from: us-east-1
      to: us-west-1
    - from: us-west-1
      to: us-west-1
"""


def route(name: str, first: str, second: str = "weight: 1") -> str:
    return ROUTE.format(name=name, first=first, second=second)


BAD = {
    "malformed.yaml": (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a\nspec: {}\n",
        ":4:5: not valid YAML: expected ',' or '}', but got ':' (while parsing a flow mapping)",
    ),
    "unknown-field.yaml": (
        route("unknown-field", "wieght: 80"),
        (
            ":11: GRPCRoute app/unknown-field: spec.rules[0].backendRefs[0].wieght: unknown field; "
            "known fields here: filters, group, kind, name, namespace, port, weight; did you mean "
            "weight?"
        ),
    ),
    "negative-weight.yaml": (
        route("negative-weight", "weight: 80", "weight: -5"),
        (
            ":14: GRPCRoute app/negative-weight: spec.rules[0].backendRefs[1].weight: must be "
            "between 0 and 1000000, got -5"
        ),
    ),
    "zero-weights.yaml": (
        route("zero-weights", "weight: 0", "weight: 0"),
        ":8: GRPCRoute app/zero-weights: spec.rules[0].backendRefs: weight sum is zero",
    ),
    "same-region.yaml": (
        POLICY,
        (
            ":15: BackendTrafficPolicy app/circle: spec.failover.regionFailover[1]: from and to "
            'are both "us-west-1"; a region cannot fail over to itself'
        ),
    ),
}
"""File name: its content, and what is said about it after its path."""


def messages(folder: Path) -> set[str]:
    """What a user is told about the bad files in ``folder``."""
    return {f"{folder / name}{said}" for name, (_, said) in BAD.items()}


def write_bad(folder: Path) -> None:
    for name, (text, _) in BAD.items():
        (folder / name).write_text(text)


class Fedctl:
    """``fedctl`` on a store with a prefix of its own."""

    def __init__(self, etcd: EtcdServer) -> None:
        self._options = ("--etcd", etcd.endpoint, "--prefix", f"/test/{uuid4().hex}")

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*self._options, *arguments])


@pytest.fixture
def fedctl(etcd_server: EtcdServer) -> Fedctl:
    return Fedctl(etcd_server)


def test_apply_says_where_and_takes_the_others(fedctl: Fedctl, tmp_path: Path) -> None:
    write_bad(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD.format(taken=1, grpc=2, backend=3))
    done = fedctl("apply", "-f", str(tmp_path), "--cluster", "west")
    assert sorted(done.stderr.splitlines()) == [
        *(f"error: {message}" for message in sorted(messages(tmp_path))),
        'warning: no cluster "west" has joined; known clusters: none',
    ]
    assert done.stdout.splitlines() == [
        "gateway.gateway.networking.k8s.io/edge created (west)",
        "grpcroute.gateway.networking.k8s.io/good created (west)",
        "service/echo created (west)",
        "endpointslice.discovery.k8s.io/echo-1 created (west)",
    ]
    assert done.exit_code == 1


def test_a_patch_to_a_bad_object_is_refused(fedctl: Fedctl, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(route("split", "weight: 80", "weight: 0"))
    assert fedctl("apply", "-f", str(tmp_path), "--cluster", "west").exit_code == 0
    place = "/spec/rules/0/backendRefs/0/weight"
    patched = {
        weight: fedctl(
            *("patch", "grpcroute", "split", "-n", "app", "--type=json", "-p"),
            f'[{{"op": "replace", "path": "{place}", "value": {weight}}}]',
        )
        for weight in (0, -5)
    }
    assert {weight: (done.exit_code, done.stderr) for weight, done in patched.items()} == {
        0: (
            1,
            "error: patch: GRPCRoute app/split: spec.rules[0].backendRefs: weight sum is zero\n",
        ),
        -5: (
            1,
            (
                "error: patch: GRPCRoute app/split: spec.rules[0].backendRefs[0].weight: must be "
                "between 0 and 1000000, got -5\n"
            ),
        ),
    }


@pytest.fixture
def holder() -> Iterator[socket.socket]:
    """Somebody else's socket."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken


def test_standalone_serves_beside_bad_files_and_a_port_in_use(
    tmp_path: Path, holder: socket.socket
) -> None:
    grpc, taken = free_port(), holder.getsockname()[1]
    folder = tmp_path / "manifests"
    folder.mkdir()
    with backends("echo-1") as (backend,):
        number = backend.address.rpartition(":")[2]
        good = GOOD.format(taken=taken, grpc=grpc, backend=number)
        (folder / "good.yaml").write_text(good)
        arguments = ("standalone", "--manifests", str(folder), "--port-offset", "0")
        with process(tmp_path / "log", *FEDCTL, *arguments) as standalone:
            standalone.says(f"listening: infra/edge/{grpc} on 127.0.0.1:{grpc} (plain text)\n")
            standalone.says(
                f"listeners infra/edge/{taken}: cannot listen on 127.0.0.1:{taken}: {IN_USE}; "
                "free the port or choose another; it is tried again "
                "every few seconds\n"
            )
            with channel(f"127.0.0.1:{grpc}") as client:
                assert call(client)[1] == "echo-1"
                write_bad(folder)
                for message in messages(folder):
                    standalone.says(f"{message}\n")
                assert call(client)[1] == "echo-1"
            holder.close()
            standalone.says(f"listening: infra/edge/{taken} on 127.0.0.1:{taken} (plain text)\n")
