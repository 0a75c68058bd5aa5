"""What real processes of the control plane tell: by scrape, and by OTLP to a real collector."""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from federation.telemetry import catalogue, spans
from tests.testkit.collector import COLLECTOR, Collector, Span, running_collector
from tests.testkit.etcd import running_etcd
from tests.testkit.federation import (
    CLUSTER,
    FEDCTL,
    REGION,
    Federation,
    Process,
    process,
    until,
)
from tests.testkit.ports import free_port
from tests.testkit.prometheus import needs_promtool, promtool

pytestmark = pytest.mark.timeout(900)  # the collector may have to be built first

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: grpc, port: {port}, protocol: HTTP}}]
"""


class Running:
    """A federation whose control plane tells about itself."""

    def __init__(
        self, federation: Federation, agent: int, resolver: int, control: tuple[Process, ...]
    ) -> None:
        self.federation = federation
        self.agent = agent
        self.resolver = resolver
        self.control = control

    def scrape(self, port: int) -> str:
        """What a process shows; empty as long as it does not listen."""
        try:
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)
        except OSError:
            return ""
        with answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            return str(answer.read().decode())

    def value(self, port: int, series: str) -> float | None:
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.scrape(port), re.MULTILINE)
        return float(found[1]) if found else None


@contextlib.contextmanager
def running(directory: Path, *options: str) -> Iterator[Running]:
    """etcd, a resolver, an agent and a gateway; ``options`` are the control plane's."""
    agent, resolver, dns = free_port(), free_port(), free_port()
    xds = f"127.0.0.1:{free_port()}"
    gateway = (
        *("-m", "gateway", "--name", "gw-1", "--cluster", CLUSTER, "--agent", xds),
        *("--state-dir", str(directory / "gateway"), "--address", "127.0.0.1"),
    )
    with contextlib.ExitStack() as stack:
        etcd = stack.enter_context(running_etcd())
        federation = Federation(etcd.endpoint, directory)
        first = stack.enter_context(
            process(
                directory / "resolver.log",
                *(*FEDCTL, *federation.options, "resolver", "--name", "resolver-1"),
                *("--health", f"127.0.0.1:{resolver}", *options),
            )
        )
        second = stack.enter_context(
            process(
                directory / "agent.log",
                *(*FEDCTL, *federation.options, "agent", "--cluster", CLUSTER, "--region", REGION),
                *("--xds", xds, "--state-dir", str(directory / "agent")),
                *("--dns", f"127.0.0.1:{dns}", "--health", f"127.0.0.1:{agent}", *options),
            )
        )
        stack.enter_context(process(directory / "gateway.log", *gateway)).says("gateway started")
        yield Running(federation, agent, resolver, (first, second))


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    try:
        COLLECTOR.build()
    except NoProgramsError as error:
        pytest.skip(str(error))
    with running_collector(tmp_path / "collector") as collector:
        yield collector


def test_agent_and_resolver_are_scraped(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        cluster.federation.apply(GATEWAY.format(port=free_port()))
        behind = 'federation_agent_gateway_behind_seconds{node="gw-1"}'
        until(
            lambda: (
                cluster.value(cluster.agent, 'federation_agent_objects{kind="Gateway"}') == 1.0
                and cluster.value(cluster.agent, behind) == 0.0
            ),
            lambda: cluster.scrape(cluster.agent),
        )
        shown = cluster.scrape(cluster.agent)
        for series in (
            'federation_agent_gateways_connected{kind="gateway"}',
            "federation_agent_present",
            "federation_agent_leading",
            "federation_agent_snapshots_published_total",
            "federation_agent_compilations_total",
            'federation_agent_compiled_pieces_total{piece="listeners"}',
            "federation_agent_store_revision",
            "federation_agent_snapshot_generation",
        ):
            assert (cluster.value(cluster.agent, series) or 0.0) >= 1.0, f"{series}\n{shown}"
        assert "federation_dns_truncated_replies_total 0.0" in shown
        assert "federation_resolver" not in shown

        decided = cluster.scrape(cluster.resolver)
        assert "\nfederation_resolver_leading 1.0\n" in decided
        assert "\nfederation_resolver_clusters 1.0\n" in decided
        assert f'federation_resolver_cluster_stale_seconds{{cluster="{CLUSTER}"}} 0.0' in decided
        assert (cluster.value(cluster.resolver, "federation_resolver_decisions_total") or 0) >= 1
        for specs, text in ((catalogue.AGENT, shown), (catalogue.RESOLVER, decided)):
            missing = [spec.name for spec in specs if f"# TYPE {spec.name} " not in text]
            assert missing == []


@needs_promtool
def test_prometheus_finds_nothing_wrong_with_a_scrape(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        for port in (cluster.agent, cluster.resolver):
            shown = until(partial(cluster.scrape, port), lambda: "no answer")
            assert promtool("check", "metrics", given=shown.encode()) == ""


def test_a_change_is_one_trace_up_to_the_gateways_answer(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
    otlp = ("--otlp", f"http://127.0.0.1:{collector.http_port}")
    with running(tmp_path, *otlp) as cluster:
        until(
            lambda: cluster.value(
                cluster.agent, 'federation_agent_gateways_connected{kind="gateway"}'
            ),
            lambda: cluster.scrape(cluster.agent),
        )
        cluster.federation.apply(GATEWAY.format(port=free_port()))
        until(lambda: _whole(collector), collector.spans)
        root, parts = _whole(collector)[-1]
        until(lambda: _decisions(collector), collector.spans)
        until(
            lambda: (
                {"federation_agent_present", "federation_resolver_leading"}
                <= {metric.name for metric in collector.metrics()}
            ),
            lambda: sorted({metric.name for metric in collector.metrics()}),
        )

    assert root.attributes[spans.CLUSTER] == CLUSTER
    assert root.attributes[spans.OBJECTS] == ["Gateway app/edge"]
    assert root.attributes[spans.GENERATIONS] == [1]
    assert root.resource["service.name"] == "federation-agent"
    answer = parts[spans.ACKNOWLEDGE]
    assert answer.attributes[spans.NODE] == "gw-1"
    assert answer.attributes[spans.SNAPSHOT] >= root.attributes[spans.SNAPSHOT] >= 1
    assert "listeners=1" in parts[spans.COMPILE].attributes[spans.PIECES]
    times = [root.start_ns, parts[spans.COMPILE].end_ns, parts[spans.PUBLISH].end_ns]
    assert [*times, answer.end_ns] == sorted([*times, answer.end_ns])
    assert root.end_ns >= answer.end_ns - 1_000_000
    compiled = [m for m in collector.metrics() if m.name == catalogue.COMPILE_SECONDS.name]
    assert compiled[-1].kind == "histogram"
    assert int(compiled[-1].points[0]["count"]) >= 1


def test_a_collector_that_never_answers_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "300")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as hole:
        otlp = ("--otlp", f"http://127.0.0.1:{hole.getsockname()[1]}")
        with running(tmp_path, *otlp) as cluster:
            until(
                lambda: "metrics are not sent" in cluster.control[1].output(),
                cluster.control[1].output,
            )
            cluster.federation.apply(GATEWAY.format(port=free_port()))
            served = 'federation_agent_objects{kind="Gateway"}'
            until(
                lambda: cluster.value(cluster.agent, served) == 1.0,
                lambda: cluster.scrape(cluster.agent),
            )
            for process in cluster.control:
                process.command.terminate()
                assert process.ended() == 0, process.output()


def _whole(collector: Collector) -> list[tuple[Span, dict[str, Span]]]:
    """Traces of objects' changes that a gateway has answered: the root, its children by name."""
    found = []
    for trace in collector.traces().values():
        parts = {span.name: span for span in trace}
        root = parts.pop(spans.OBJECT_CHANGE, None)
        if root is not None and spans.ACKNOWLEDGE in parts:
            assert all(span.parent == root.id for span in parts.values())
            found.append((root, parts))
    return found


def _decisions(collector: Collector) -> list[Span]:
    return [
        span
        for span in collector.spans()
        if span.name == spans.DECISION and span.attributes[spans.WRITES] >= 1
    ]
