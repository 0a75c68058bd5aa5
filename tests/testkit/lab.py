"""The lab as tests drive it: through ``fedctl`` alone, as a user or a script would."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc

from federation.cli.lab.client import server_of
from tests.testkit.federation import conditions

ORPHAN = """
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {name: orphan, namespace: app}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: nobody}
  retry: {attempts: 2}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: nowhere, namespace: app}
spec:
  parentRefs: [{name: grpc-gateway, namespace: infra}]
  hostnames: [nowhere.example.com]
  rules: [{backendRefs: [{name: no-such-service, port: 9090}]}]
"""
"""A policy without a target, and a route whose Service is not there: what `fedctl check` finds."""

FEDCTL = Path(sys.executable).with_name("fedctl")


@dataclass(frozen=True, slots=True)
class Result:
    """How one ``fedctl`` call ended."""

    code: int
    out: str
    err: str


class Lab:
    """A lab in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fedctl(self, *arguments: str, check: bool = True, timeout_s: float = 120.0) -> Result:
        """Run ``fedctl``; with ``check`` a non-zero exit fails the test with what it printed."""
        done = subprocess.run(
            [str(FEDCTL), *arguments],
            env=os.environ | {"FEDERATION_LAB_DIR": str(self.directory)},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if check and result.code != 0:
            raise AssertionError(
                f"fedctl {' '.join(arguments)} exited {result.code}\n{result.out}\n{result.err}"
            )
        return result

    def status(self) -> dict[str, Any]:
        found = json.loads(self.fedctl("lab", "status", "-o", "json").out)
        assert isinstance(found, dict)
        return found

    def cluster(self, name: str) -> dict[str, Any]:
        return next(c for c in self.status()["clusters"] if c["name"] == name)

    @cached_property
    def first_status(self) -> dict[str, Any]:
        """The status when first asked for: names, addresses and paths in it never change."""
        return self.status()

    def gateways(self, cluster: str) -> list[dict[str, Any]]:
        """The gateways of ``cluster``; their pids are those of the start."""
        found: list[dict[str, Any]] = next(
            c["gateways"] for c in self.first_status["clusters"] if c["name"] == cluster
        )
        return found

    def gateway(self, cluster: str, number: int = 0) -> str:
        """Where the ``grpc`` listener of a gateway of ``cluster`` is."""
        return str(self.gateways(cluster)[number]["listeners"]["grpc"])

    def admin(self, cluster: str, number: int = 0) -> str:
        """Where the admin endpoint of a gateway of ``cluster`` is, for ``ask``."""
        return str(self.gateways(cluster)[number]["admin"])

    def ca(self) -> bytes:
        return Path(self.first_status["ca"]).read_bytes()

    def pids(self, role: str) -> dict[str, int]:
        """Live processes of a role, by name."""
        return {
            p["name"]: p["pid"]
            for p in self.status()["processes"]
            if p["role"] == role and p["alive"]
        }

    def federation(self) -> dict[str, Any]:
        """``fedctl status -o json``."""
        found = json.loads(self.fedctl("status", "-o", "json").out)
        assert isinstance(found, dict)
        return found

    def wait(
        self, condition: Callable[[], bool], *, timeout_s: float, what: str | Callable[[], str]
    ) -> float:
        """Poll ``condition`` until it holds; returns how long it took. Fails saying ``what``."""
        started = time.monotonic()
        while True:
            if condition():
                return time.monotonic() - started
            if time.monotonic() - started > timeout_s:
                missed = what if isinstance(what, str) else what()
                raise AssertionError(f"{missed}: not within {timeout_s} s")
            time.sleep(0.1)


def ask(admin: str, path: str) -> Any:
    """The JSON that the admin endpoint at ``admin`` answers, whatever its HTTP status."""
    try:
        with urllib.request.urlopen(f"http://{admin}{path}", timeout=5.0) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as answer:
        return json.load(answer)


class Caller:
    """Calls through one gateway's TLS listener, as any client of the documents' host makes them."""

    def __init__(self, target: str, authority: bytes) -> None:
        self._target = target
        self._credentials = grpc.ssl_channel_credentials(authority)
        self._channels: dict[str, grpc.Channel] = {}

    def __call__(
        self,
        method: str = "com.example.api.UserService/GetUser",
        *,
        host: str = "grpc.example.com",
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """The Service whose demo server answered, or ``STATUS: MESSAGE``."""
        return self.answered(method, host=host, headers=headers)[0]

    def answered(
        self, method: str, *, host: str, headers: Mapping[str, str] | None = None
    ) -> tuple[str, dict[str, str]]:
        """Who answered, and the answer's headers."""
        send = self._channel(host).unary_unary(f"/{method}")
        sent = tuple((headers or {}).items())
        try:
            _, call = send.with_call(b"", timeout=10, metadata=sent)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}", {}
        found = {str(key): str(value) for key, value in call.initial_metadata()}
        return server_of(found.items())[1], found

    def shares(self, calls: int) -> dict[str, float]:
        """The part of ``calls`` that each service answers."""
        answers = collections.Counter(self() for _ in range(calls))
        return {service: count / calls for service, count in answers.items()}

    def _channel(self, host: str) -> grpc.Channel:
        if host not in self._channels:
            options = (
                ("grpc.ssl_target_name_override", "grpc.example.com"),
                ("grpc.default_authority", host),
            )
            self._channels[host] = grpc.secure_channel(self._target, self._credentials, options)
        return self._channels[host]

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


KUBECTL = Path(sys.executable).with_name("kubectl")


class KubernetesLab(Lab):
    """A lab whose regions have API servers."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._written: set[str] = set()
        """Regions to whose API servers something was written."""

    def kubectl(
        self, region: str, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> Result:
        """Run ``kubectl`` against a region; with ``check`` a failure fails the test."""
        if arguments[0] in ("apply", "create", "patch", "replace"):
            self._written.add(region)
        config = ("--kubeconfig", str(self.directory / "kubeconfig"), "--context", region)
        done = subprocess.run(
            [str(KUBECTL), *config, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if check and result.code != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}\n{result.out}\n{result.err}")
        return result

    def object(self, region: str, kind: str, name: str, namespace: str = "app") -> dict[str, Any]:
        """One object as the API server has it; empty when there is none."""
        shown = self.kubectl(
            *(region, "get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        )
        found = json.loads(shown.out or "{}")
        assert isinstance(found, dict)
        return found

    def conditions(
        self, region: str, kind: str, name: str, at: str = "", namespace: str = "app"
    ) -> dict[str, str]:
        """An object's conditions as ``tests.testkit.federation.conditions`` tells them."""
        return conditions(self.object(region, kind, name, namespace).get("status", {}), at)

    @contextlib.contextmanager
    def caller(self, region: str) -> Iterator[Caller]:
        """A client of the region's first gateway."""
        found = Caller(self.gateway(region), self.ca())
        try:
            yield found
        finally:
            found.close()

    def clear(self) -> None:
        """Delete what tests applied where they did, except the Gateway that the lab began with."""
        kinds = "grpcroutes,httproutes,backendtrafficpolicies,multiclusterservices"
        imports = "serviceimports.gateway.networking.k8s.io"
        others = "metadata.name!=grpc-gateway"
        for region in self._written:
            self.kubectl(region, "delete", f"{kinds},{imports}", "--all", "-n", "app")
            self.kubectl(region, "delete", "gateways", "--field-selector", others, "-n", "infra")
        self._written.clear()
