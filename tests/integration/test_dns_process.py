"""Names answered by ``fedctl agent``, asked by dig: over UDP and TCP, while etcd is away, and after
a restart without it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit.etcd import running_etcd
from tests.testkit.federation import CLUSTER, FEDCTL, REGION, Federation, Process, process, until
from tests.testkit.ports import free_port

pytestmark = [
    pytest.mark.skipif(shutil.which("dig") is None, reason="dig is missing: bind9-dnsutils"),
    pytest.mark.timeout(120),
]

NAME = "users.app.svc.clusterset.local"
OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: users, namespace: app}
spec: {clusterIP: None, ports: [{name: grpc, port: 9090}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: users-1, namespace: app, labels: {kubernetes.io/service-name: users}}
addressType: IPv4
ports: [{name: grpc, port: 9090}]
endpoints: [{addresses: [10.1.2.3], hostname: users-0}, {addresses: [10.1.2.4]}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: users, namespace: app}
"""


@contextlib.contextmanager
def agent(federation: Federation, log: str, dns: int, health: int) -> Iterator[Process]:
    arguments = (
        *(*FEDCTL, *federation.options, "agent", "--cluster", CLUSTER, "--region", REGION),
        *("--xds", f"127.0.0.1:{free_port()}", "--dns", f"127.0.0.1:{dns}"),
        *("--state-dir", str(federation.directory / "state"), "--health", f"127.0.0.1:{health}"),
    )
    with process(federation.directory / log, *arguments) as started:
        yield started


def dig(port: int, name: str, rdtype: str = "A", *options: str) -> list[str]:
    """The answers, sorted."""
    command = ["dig", "@127.0.0.1", "-p", str(port), "+short", "+time=1", "+tries=1"]
    done = subprocess.run(
        [*command, *options, name, rdtype], capture_output=True, text=True, timeout=20, check=False
    )
    return sorted(line for line in done.stdout.splitlines() if not line.startswith(";"))


def status(port: int, name: str) -> str:
    """The header line of the whole answer."""
    command = ["dig", "@127.0.0.1", "-p", str(port), "+time=1", "+tries=1", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return next((line for line in done.stdout.splitlines() if "status:" in line), done.stdout)


def test_answers_go_on_without_etcd_and_after_a_restart(tmp_path: Path) -> None:
    expected = ["10.1.2.3", "10.1.2.4"]
    with running_etcd() as etcd:
        federation = Federation(etcd.endpoint, tmp_path)
        dns, health = free_port(), free_port()
        with agent(federation, "one.log", dns, health) as first:
            first.says("heartbeat is present")
            federation.apply(OBJECTS)
            until(lambda: dig(dns, NAME) == expected, first.output)
            assert dig(dns, NAME, "A", "+tcp") == expected
            assert dig(dns, f"users-0.{CLUSTER}.{NAME}") == ["10.1.2.3"]
            assert dig(dns, f"_grpc._tcp.{NAME}", "SRV") == [
                f"0 100 9090 10-1-2-4.{CLUSTER}.{NAME}.",
                f"0 100 9090 users-0.{CLUSTER}.{NAME}.",
            ]
            assert dig(dns, "dns-version.clusterset.local", "TXT") == ['"1.0.0"']
            assert "status: NXDOMAIN" in status(dns, f"none.{NAME}")
            assert "status: REFUSED" in status(dns, "users.app.svc.cluster.local")
            with urllib.request.urlopen(f"http://127.0.0.1:{health}/metrics", timeout=5) as shown:
                counted = shown.read().decode()
            assert 'federation_dns_queries_total{rcode="NXDOMAIN",transport="udp"}' in counted
            saved = federation.directory / "state" / "last-good.json"
            until(lambda: saved.exists() and "10.1.2.4" in saved.read_text(), first.output)
            etcd.kill()
            assert dig(dns, NAME) == expected
        with agent(federation, "two.log", dns, health) as second:
            until(lambda: dig(dns, NAME) == expected, second.output)
            assert "serving the last good state" in second.output()
